#!/bin/sh
# tests/test_gistctl_attach.sh - an answer whose program is killed, from the command line. Would catch: a rest that is not the
# rest, a token that is taken twice or from elsewhere, a session that stays when it was fetched, one that can't be seen or ended.
set -eu
. tests/support/daemon.sh

code 'no token' 2 "$gistctl" attach
says '32 hexadecimal digits'
code 'no token of ours' 2 "$gistctl" attach 0123
says '32 hexadecimal digits'

daemon_start tests/data/tiny_smollm2.gguf

# Asks with a full pipe for its output, so that it stands still at the first word; kills it there. Prints the token.
cat >"$tmp/killed.py" <<'END'
import fcntl, json, os, re, signal, subprocess, sys, time
gistctl, word = sys.argv[1:3]
r, w = os.pipe()
os.set_blocking(w, False)
try:
    while True:
        os.write(w, b"x" * 65536)
except BlockingIOError:
    pass
os.set_blocking(w, True)
def total():
    return json.loads(subprocess.check_output([gistctl, "status", "--json"]))["generated_tokens_total"]
before = total()
p = subprocess.Popen([gistctl, "ask", "--detachable", "-n", "60", word], stdin=subprocess.DEVNULL, stdout=w, stderr=subprocess.PIPE, text=True)
line = p.stderr.readline()
token = re.search(r"gistctl attach ([0-9a-f]{32})\]", line)
assert token, line
while total() == before and p.poll() is None:
    time.sleep(0.01)
assert p.poll() is None, "it stands still"
p.kill()
p.wait()
while not json.loads(subprocess.check_output([gistctl, "sessions", "--json"]))[0]["left_s"]:
    time.sleep(0.01)
print(token.group(1))
END

killed() {
    token=$(python3 "$tmp/killed.py" "$gistctl" "$1")
}

code 'an answer' 0 "$gistctl" ask -n 60 rain
cp "$tmp/out" "$tmp/whole"
code 'one that may be detached, and is not' 0 "$gistctl" ask --detachable -n 60 rain
check 'is the same' cmp "$tmp/whole" "$tmp/out"
code 'all at its end' 0 "$gistctl" ask --detachable --json -n 4 rain
says 'gistctl attach --all '
code 'several' 0 "$gistctl" ask --detachable --answers 2 -n 4 rain
says 'gistctl attach --all '
killed rain
code 'it is there' 0 "$gistctl" sessions
check 'and says so' grep -q 'detached, [0-9]* s left  ask' "$tmp/out"
code 'the rest' 0 "$gistctl" attach "$token"
check 'which is all of it' cmp "$tmp/whole" "$tmp/out"
code 'it was fetched' 1 "$gistctl" attach "$token"
says 'no session is kept for this token'
killed rain
code 'from its beginning' 0 "$gistctl" attach --all "$token"
check 'which is the same' cmp "$tmp/whole" "$tmp/out"
killed rain
code 'all of them' 0 "$gistctl" sessions --json
id=$(python3 -c 'import json, sys
[x] = json.load(open(sys.argv[1]))
assert x["left_s"] > 0 and x["kept_s"] == 600 and x["client"] == 0, x
print(x["id"])' "$tmp/out")
code 'it is ended' 0 "$gistctl" cancel "$id"
code 'and can not be fetched' 1 "$gistctl" attach "$token"
says 'no session is kept for this token'
killed rain
daemon_stop
daemon_start tests/data/tiny_smollm2.gguf
code 'another daemon' 1 "$gistctl" attach "$token"
says 'the daemon was started again'
daemon_stop
done_testing
