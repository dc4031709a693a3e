#!/bin/sh
# tests/test_http_live.sh - sessions that stay open between requests, and what is told of their memory: what the page
# of gist-http stands on. Would catch: a turn that reads again what is there, an answer that can't be stopped, a session
# that another key sees or pushes out, a text that one key can tell another to have sent, a session that nobody ends; a
# picture of memory that does not add up; an answer that ends with its page, or that somebody else may come back to.
set -eu
. tests/support/daemon.sh
. tests/support/http.sh
export BUILD
run() {
    python3 "tests/support/$1.py" "$url"
}
# py WHAT CODE: Python that knows Server, and exits with what is wrong.
py() {
    check "$1" python3 -c "
import sys, time
sys.path.insert(0, 'tests/support')
from http_client import *
s = Server('$url')
def turn(**more):
    return s.ask('POST', '/gist/v1/chat', {'messages': [{'role': 'user', 'content': 'Why?'}], 'max_tokens': 2, **more})
def ids():
    return [x['id'] for x in s.ask('GET', '/gist/v1/sessions')[2]['sessions']]
$2"
}

daemon_start tests/data/tiny_smollm2.gguf
http_start --live-sessions 2
check 'turns, memory, stopping' run http_live
check 'the files of the page' run http_page_files

# A daemon that was started anew has none of them; the chat that is sent whole goes on.
py 'a turn' "
turn()
open('$tmp/id', 'w').write(ids()[0])"
daemon_stop
py 'no daemon' "
st, _, j = turn()
sys.exit(None if st == 503 and 'gistd --model' in j['error']['message'] else str(j))"
daemon_start tests/data/tiny_smollm2.gguf
py 'another daemon' "
st, _, j = turn(session=open('$tmp/id').read(), turns=1)
sys.exit(None if st == 404 and j['error']['code'] == 'session_gone' and turn()[0] == 200 else str((st, j)))"
http_stop

http_start --session-idle 1
py 'what nobody uses ends' "
turn()
end = time.monotonic() + WAIT_S
while ids() and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(str(ids()) if ids() else None)"
check 'and its memory is free' sh -c "'$gistctl' sessions --json | grep -q '\[\]'"
http_stop

printf 'one 0123456789abcdef\ntwo fedcba9876543210\n' >"$tmp/keys"
chmod 600 "$tmp/keys"
http_start --api-keys "$tmp/keys" --hosts my.example --live-sessions 3
check 'sessions are their keys own' run http_live_guard
http_stop
http_start --api-keys "$tmp/keys" --live-sessions 3
check 'turns whose clients come back' run http_again
http_stop
for seconds in 0 1; do
    http_start --api-keys "$tmp/keys" --answer-wait $seconds
    check "turns whose clients do not come back: $seconds s" python3 tests/support/http_again.py "$url" $seconds
    http_stop
done
daemon_stop
done_testing
