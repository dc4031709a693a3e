#!/bin/sh
# tests/test_http.sh - gist-http against a real daemon, with a model that knows nothing. Would catch: an answer that
# no client of the API can read, a beginning that is computed twice, a client that leaves and is answered all the
# same, a refusal without a sentence, a page or a program without a key that gets an answer.
set -eu
. tests/support/daemon.sh
. tests/support/http.sh
run() {
    from=$(date +%s)
    python3 "tests/support/$1.py" "$url" "${2:-}" || return
    echo "$1: $(($(date +%s) - from)) s" >&3
}
exec 3>&1

# --- options --------------------------------------------------------------------------------------
code 'version' 0 "$http" --version
check 'version' grep -q '^gist-http [0-9]' "$tmp/out"
code 'help' 0 "$http" --help
check 'help' grep -q '^Usage: gist-http' "$tmp/out"
code 'a config file' 0 "$http" --print-config
cp "$tmp/out" "$tmp/http.conf"
code 'is valid' 0 "$http" --config "$tmp/http.conf" --check-config
check 'it is named' grep -q 'http.conf' "$tmp/out"
code 'an unknown option' 2 "$http" --bogus
says '--bogus'
code 'no address' 2 "$http" --config /dev/null --listen 4478
says '127.0.0.1:4478'
code 'other machines without a key' 2 "$http" --config /dev/null --listen 0.0.0.0:0
says '--api-keys'
code 'nowhere' 2 "$http" --config /dev/null --listen ''
says '--unix'
echo precious >"$tmp/file"
code 'a file where the Unix socket is to be' 2 "$http" --config /dev/null --listen '' --unix "$tmp/file"
says 'not a socket'
check 'it is left alone' grep -q precious "$tmp/file"
echo 'me 0123456789abcdef' >"$tmp/keys"
chmod 644 "$tmp/keys"
code 'keys that all may read' 2 "$http" --config /dev/null --listen 127.0.0.1:0 --api-keys "$tmp/keys"
says 'chmod 600'
echo 'me' >"$tmp/bad"
chmod 600 "$tmp/keys" "$tmp/bad"
code 'a key without a name' 2 "$http" --config /dev/null --listen 127.0.0.1:0 --api-keys "$tmp/bad"
says 'line 1'

# --- no daemon, one that loads, one that comes back -------------------------------------------------
http_start --keep-alive 1 --request-timeout 5 --max-body 2M --log-requests yes
check 'no daemon, and one that loads' run http_absent "$tmp/gistd.sock"
code 'a second one' 3 "$http" --config /dev/null --listen "127.0.0.1:$port"
says 'another program'
code 'a second one on the Unix socket' 3 "$http" --config /dev/null --listen '' --unix "$tmp/http.sock"
says 'somebody answers at'
daemon_start tests/data/tiny_smollm2.gguf
code "one on the daemon's socket" 2 "$http" --config /dev/null --listen '' --unix "$GISTD_SOCKET"
says "can't be replaced"
check 'the APIs' run http_api
check 'embeddings' run http_embed "$gistctl"
check 'clients that leave, and long silence' run http_leave "$GISTD_SOCKET"
check 'hostile clients' run http_hostile "$tmp/http.sock"
daemon_stop
daemon_start tests/data/tiny_smollm2.gguf
code 'a daemon that was started anew' 0 python3 -c "
import sys
sys.path.insert(0, 'tests/support')
from http_client import *
for _ in range(3):
    status, _, j = Server('$url').post('/v1/chat/completions', **chat('Why?', max_tokens=2))
    sys.exit(str(j)) if status != 200 else None"
check 'requests are logged' grep -q 'POST /v1/chat/completions 200' "$tmp/http.log"
check 'texts are not' sh -c "! grep -q sky '$tmp/http.log'"
http_stop

# --- keys, pages, names -----------------------------------------------------------------------------
http_start --api-keys "$tmp/keys" --hosts my.example --origins https://page.example --strict-model yes --max-requests 1
check 'who may ask' run http_guard "$tmp/http.sock"
http_stop
check 'the Unix socket is gone' [ ! -e "$tmp/http.sock" ]

# --- the end in the middle of a stream ---------------------------------------------------------------
http_start
check 'a stream ends with the server' python3 tests/support/http_end.py "$url" "$http_pid"
rc=0
wait "$http_pid" || rc=$?
http_pid=
check 'gist-http ends cleanly' [ $rc -eq 0 ]
daemon_stop
done_testing
