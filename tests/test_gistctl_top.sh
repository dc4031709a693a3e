#!/bin/sh
# tests/test_gistctl_top.sh - sessions, cancel, trace and top. Would catch: a session that is not listed, an answer that
# `gistctl cancel` does not end, times that are not told, a picture that a terminal without colours or of another size
# can't show, a terminal that is left in disorder, output for scripts that is no JSON.
set -eu
BUILD=${BUILD:-build/release}
. tests/support/daemon.sh
daemon_start tests/data/tiny_smollm2.gguf --kv-bytes 16M --threads 1

code 'no session' 0 "$gistctl" sessions
check 'the head alone' [ "$(wc -l <"$tmp/out")" -eq 1 ]
code 'none for scripts' 0 "$gistctl" sessions --json
check 'an empty array' json 'j == []' <"$tmp/out"

# A text that takes long to read.
seq 1 15000 >"$tmp/long"
"$gistctl" ask -n 1 -f "$tmp/long" Why >"$tmp/answer" 2>"$tmp/asked" &
asking=$!
session=0
tries=600
while [ "$session" -eq 0 ] && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.05
    "$gistctl" sessions --json >"$tmp/sessions"
    session=$(python3 -c 'import json, sys
print(next((s["id"] for s in json.load(open(sys.argv[1])) if s["doing"] == "append"), 0))' "$tmp/sessions")
done
check 'it is listed' sh -c "'$gistctl' sessions | grep -q ' append ('"
check 'it says by which unit its rows are shared' json "all(isinstance(s['unit'], str) for s in j)" <"$tmp/sessions"
"$gistctl" status --json >"$tmp/status"
check 'and so does status' json "all(isinstance(x['unit'], str) for x in j['clients'] + j['sessions'])" <"$tmp/status"
code 'how it is held' 0 "$gistctl" sessions --segments
check 'in words' grep -q 'held as' "$tmp/out"
code 'how it is held, for scripts' 0 "$gistctl" sessions --segments --json
check 'it adds up' python3 -c 'import json, sys
for s in json.load(open(sys.argv[1])):
    sys.exit(s["n_tokens"] != sum(x["n_tokens"] for x in s["segments"]))
sys.exit("no session")' "$tmp/out"
code 'cancel' 0 "$gistctl" cancel "$session"
rc=0
wait $asking || rc=$?
check 'its program is told' sh -c "[ $rc -eq 1 ] && grep -q cancelled '$tmp/asked'"
code 'an answer' 0 "$gistctl" ask -n 3 --no-stdin 'Why?'
code 'nothing to cancel' 1 "$gistctl" cancel 99999
says 'no session 99999 of this user is at work'
code 'cancel without a number' 2 "$gistctl" cancel
says 'gistctl sessions'
code 'cancel of a word' 2 "$gistctl" cancel all
says "'all' is no number of a session"

code 'trace' 0 "$gistctl" trace
check 'its lines' grep -q ' generate ' "$tmp/out"
code 'trace for scripts' 0 "$gistctl" trace --json
check 'its fields' json "any(r['what'] == 'generate' and r['first_token_ns'] > 0 for r in j) and \
    any(r['what'] == 'append' and r['ended'] == 'cancelled' for r in j) and \
    any(r['what'] == 'append' and r['ended'] == 'done' and r['prefill_ns'] > 0 for r in j) and \
    [r['number'] for r in j] == sorted((r['number'] for r in j), reverse=True)" <"$tmp/out"
number=$(python3 -c 'import json, sys; print(next(r["number"] for r in json.load(open(sys.argv[1])) if r["what"] == "append" and r["ended"] == "done"))' "$tmp/out")
code 'one request' 0 "$gistctl" trace "$number"
check 'its parts' grep -q '^  prefill ' "$tmp/out"
code 'a request that nobody knows' 1 "$gistctl" trace 999999999
says 'is known, or not any more'
code 'a word' 2 "$gistctl" trace last

code 'top once' 0 "$gistctl" top --once
check 'as lines' sh -c "grep -q '^tokens/s ' '$tmp/out' && grep -q '^queue ' '$tmp/out' && grep -q '^pages ' '$tmp/out'"
code 'top once for scripts' 0 "$gistctl" top --once --json
check 'as an object' json "j['pages'] > 0 and j['requests_running'] == 0 and j['clients'] == 1" <"$tmp/out"
code 'top into a file' 2 "$gistctl" top
says '--once'
check 'top on a terminal' python3 tests/support/top.py xterm-256color 24 80 q "$gistctl" top -i 0.2
check 'top without colours' python3 tests/support/top.py vt100 24 80 q "$gistctl" top -i 0.2
check 'top, ended by Ctrl-C' python3 tests/support/top.py xterm 50 132 ^C "$gistctl" top -i 0.2
check 'top, whose terminal is gone' python3 tests/support/top.py xterm 24 80 gone "$gistctl" top -i 0.2
check 'a terminal that nobody knows' sh -c "TERM=nonesuch python3 -c 'import pty, os, sys
out = b\"\"
def read(fd):
    global out
    b = os.read(fd, 4096)
    out += b
    return b
r = os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read))
sys.exit(0 if r == 1 and b\"nonesuch\" in out else repr((r, out)))' '$gistctl' top"
daemon_stop
done_testing
