#!/bin/sh
# tests/test_metrics.sh - numbers for Prometheus. Would catch: text that a strict parser refuses, a count or a time that is
# not counted, what tells other users how much of a prompt was there before, a socket that others may open, one that a
# bad or silent peer blocks, one that stays or stands in the way of the next daemon.
set -eu
BUILD=${BUILD:-build/release}
. tests/support/daemon.sh
python=${PYTHON:-python3}
"$python" -c 'import prometheus_client' 2>/dev/null || {
    echo "python's prometheus_client is not installed (tests/requirements.txt)"
    exit 77
}
metrics=$tmp/metrics.sock
# Of an earlier daemon that was killed.
python3 -c 'import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1])' "$metrics"
daemon_start tests/data/tiny_smollm2.gguf --kv-bytes 16M --threads 1 --metrics-socket "$metrics" --socket-mode 0666
read_them() {
    "$python" tests/support/metrics.py "$metrics" "$@"
}

has() {
    grep -q "$1" "$tmp/numbers"
}

wait_for() {
    tries=600
    until [ $tries -eq 0 ] || has "$1"; do
        tries=$((tries - 1))
        read_them >"$tmp/numbers"
    done
    check "$2" has "$1"
}

read_them >"$tmp/numbers"
check 'version and model' has '^gistd_build_info{digest="[^"]*",model="tiny random smollm2",version="[0-9.]*"} 1$'
check 'it is loaded' has '^gistd_loaded 1$'
check 'nothing was generated' has '^gistd_generated_tokens_total 0$'
code 'an answer' 0 "$gistctl" ask -n 5 --no-stdin 'What is a ring buffer?'
code 'the same beginning' 0 "$gistctl" ask -n 5 --no-stdin 'What is a ring buffer?'
read_them >"$tmp/numbers"
check 'tokens are counted' has '^gistd_generated_tokens_total 10$'
check 'what was read' sh -c "grep '^gistd_prompt_tokens_total{source=\"computed\"}' '$tmp/numbers' | grep -qv ' 0$'"
check 'what was there' has '^gistd_prompt_tokens_total{source="page"} '
check 'times to first tokens' has '^gistd_ttft_seconds_count{priority="interactive"} 2$'
check 'times between tokens' has '^gistd_itl_seconds_count 8$'
check 'times in the queue' has '^gistd_queue_seconds_count{priority="interactive"} [2-9]'
check 'nothing was cancelled' has '^gistd_cancel_latency_seconds_count 0$'
check 'pages' has '^gistd_kv_pages{state="free"} [1-9]'

# A cancel is timed.
seq 1 15000 >"$tmp/long"
"$gistctl" ask -n 1 -f "$tmp/long" Why >"$tmp/answer" 2>&1 &
asking=$!
wait_for "^gistd_client_bytes{kind=\"raw\",uid=\"$(id -u)\"} [1-9]" 'memory of an owner'
check 'an owner' has "^gistd_owner_clients{uid=\"$(id -u)\"} 1$"
check 'it runs' has '^gistd_requests_running 1$'
# Another user sees nothing that would tell of single requests.
if [ "$(id -u)" -eq 0 ]; then
    chmod 711 "$tmp"
    check 'another user may read' sh -c "'$python' tests/support/metrics.py '$metrics' 54321 >'$tmp/others'"
    check 'but no owner' sh -c "! grep -q 'uid=' '$tmp/others'"
    check 'no times to first tokens' sh -c "! grep -q ttft '$tmp/others'"
    check 'no tokens of prompts' sh -c "! grep -q prompt_tokens '$tmp/others'"
    check 'and all the rest' grep -q '^gistd_generated_tokens_total ' "$tmp/others"
fi
session=$("$gistctl" sessions --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
code 'cancel' 0 "$gistctl" cancel "$session"
wait $asking || true
read_them >"$tmp/numbers"
check 'the cancel is timed' has '^gistd_cancel_latency_seconds_count 1$'

# A session whose program is killed while it reads nothing: compressed text, and an answer that waits.
mkfifo "$tmp/pipe"
exec 3<>"$tmp/pipe"
head -c 65536 /dev/zero >&3 # it is full: the program stands still at the first word
seq 1 200 >"$tmp/some"
"$gistctl" ask --detachable --compressor select --ratio 4 --segment 64 -n 400 -f "$tmp/some" Why >"$tmp/pipe" 2>"$tmp/answer" &
asking=$!
wait_for '^gistd_sessions_kept 1$' 'a kept session'
check 'with its connection' has '^gistd_sessions_detached 0$'
wait_for '^gistd_gist_ratio [1-9]' 'how many tokens a gist stands for'
wait_for '^gistd_generated_tokens_total \(1[1-9]\|[2-9][0-9]\|[0-9]*[0-9][0-9][0-9]\)$' 'it writes'
kill -9 $asking
wait $asking || true
wait_for '^gistd_sessions_detached 1$' 'without it'
wait_for '^gistd_detached_bytes [1-9]' 'what waits for who comes back'
code 'top' 0 "$gistctl" top -1
check 'shows it' grep -q '^detached  1 of 1 sessions' "$tmp/out"
if [ "$(id -u)" -eq 0 ]; then
    "$python" tests/support/metrics.py "$metrics" 54321 >"$tmp/others"
    check 'others see how many' grep -q '^gistd_sessions_detached 1$' "$tmp/others"
    check 'and not how much' sh -c "! grep -q 'detached_bytes\|gist_ratio\|gist_tokens' '$tmp/others'"
fi

check 'what is wrong is refused' read_them --wrong
check 'its mode is the socket'"'"'s' [ "$(stat -c %a "$metrics")" = 666 ]
code 'a second daemon' 3 timeout 60 "$BUILD/gistd" --model tests/data/tiny_smollm2.gguf --kv-bytes 1M --socket "$tmp/other.sock" \
    --metrics-socket "$metrics"
says 'somebody answers at'
daemon_stop
check 'it is removed' [ ! -e "$metrics" ]
done_testing
