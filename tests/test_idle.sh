#!/bin/sh
# tests/test_idle.sh - memory that is given back, with a real model and what people see of it. Would catch: weights or
# context that stay resident; another answer than before; a status, metrics or a log that don't say so; a client at a
# terminal that is told nothing while it waits; a look at the status that loads the model.
set -eu
BUILD=${BUILD:-build/release}
. tests/support/daemon.sh
model=${GISTD_TEST_MODEL:-tests/data/tiny_smollm2.gguf}
if [ -n "${GISTD_TEST_BACKEND:-}" ]; then
    echo "the test's backend gives no memory back"
    exit 77
fi
metrics=$tmp/metrics.sock
daemon_start "$model" --threads 1 --idle 1 --metrics-socket "$metrics"
resident() { # in MiB
    awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$daemon/status"
}
number() {
    python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"GET /metrics HTTP/1.1\r\nHost: gistd\r\nConnection: close\r\n\r\n")
for line in s.makefile("r"):
    if line.startswith(sys.argv[2] + " "):
        print(line.split()[1])' "$metrics" "gistd_$1"
}
is_idle() {
    [ "$(number idle)" = 1 ]
}

code 'an answer' 0 "$gistctl" ask --no-stdin -n 8 --temperature 0 'What is a ring buffer?'
cp "$tmp/out" "$tmp/first"
# The most that it had: a second may be over by now.
before=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$daemon/status")
check 'it is idle' until_ok is_idle
after=$(resident)
# 256 MiB of context; and weights, as far as they are in no page cache.
check "memory is given back: $before MiB, then $after" [ $((before - after)) -ge 230 ]
check 'status says so' sh -c "'$gistctl' status | grep -q \"^idle  *the weights' memory is given back\""
code 'status in JSON' 0 "$gistctl" status --json
check 'says so, too' json "j['idle'] and j['weights_memory'] == 0 and j['pages_returned'] > 0" <"$tmp/out"
check 'the log has it' grep -q 'idle: [0-9]* bytes of memory are given back' "$tmp/daemon.log"
check 'looks load nothing' is_idle
check 'what was returned is counted' [ "$(number kv_returned_bytes)" -gt 200000000 ]
code 'the same answer' 0 "$gistctl" ask --no-stdin -n 8 --temperature 0 'What is a ring buffer?'
check 'word for word' cmp "$tmp/first" "$tmp/out"
check 'it was loaded again' grep -q 'the model is back after' "$tmp/daemon.log"
check 'times are counted' [ "$(number idles_total)" -ge 1 ]
check 'and it goes again' until_ok is_idle
# At a terminal.
if command -v script >/dev/null; then
    script -qec "'$gistctl' ask --no-stdin -n 2 Why" /dev/null >"$tmp/terminal" 2>&1 </dev/null || true
    check 'who waits is told' grep -q 'gistd is loading the model: ' "$tmp/terminal"
fi
daemon_stop
done_testing
