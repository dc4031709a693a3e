#!/bin/sh
# tests/test_gistctl_start.sh - gistctl models, pull, use, start and stop, in an installation and a home of their own.
# Would catch: a model that is listed as one that gistd can load and is not, or the other way round; a cut download
# that is taken for a model; a gistd.conf that loses a line; a daemon that holds the terminal, that starts twice or
# whose failure is not explained; one that is said to be gone and is not.
set -eu
. tests/support/daemon.sh
. tests/support/index.sh

# Whatever a check left running: its socket says who it is.
cleanup() {
    rc=$?
    "$gistctl" stop >/dev/null 2>&1 || true
    [ -z "$server" ] || kill $server 2>/dev/null || true
    rm -rf "$tmp"
    exit $rc
}
trap cleanup EXIT

mkdir -p "$tmp/bin" "$tmp/lib/gistd" "$tmp/home" "$tmp/run"
cp "$BUILD/gistctl" "$BUILD/gistd" "$tmp/bin"
cp scripts/fetch-model "$tmp/lib/gistd"
gistctl=$tmp/bin/gistctl
HOME=$tmp/home
GISTD_KV_BYTES=64M
export HOME GISTD_KV_BYTES
unset XDG_CONFIG_HOME XDG_CACHE_HOME GISTD_CACHE GISTD_MODEL HF_HOME HF_HUB_CACHE OLLAMA_MODELS
conf=$HOME/.config/gistd/gistd.conf
tiny=$PWD/tests/data/tiny_smollm2.gguf
log=$XDG_STATE_HOME/gistd/gistd.log

# --- a list with a model in a package, as an index has it -------------------------------------------
python3 - "$tiny" "$tmp" >"$tmp/lib/gistd/models" <<'END'
import hashlib, sys, zipfile
tiny, tmp = sys.argv[1:]
data = open(tiny, "rb").read()
with zipfile.ZipFile(tmp + "/tiny_model-1.0-py3-none-any.whl", "w") as z:
    z.writestr("tiny_model/tiny.gguf", data)
    info = "tiny_model-1.0.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
print("# name file bytes sha256 window licence package")
print("tiny tiny.gguf", len(data), hashlib.sha256(data).hexdigest(), "2048 Apache-2.0 tiny-model==1.0")
print("other other.gguf 1000", "0" * 64, "4096 MIT no-such-package==1.0")
END
PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_CONFIG_FILE PIP_DISABLE_PIP_VERSION_CHECK

# --- other programs' caches ------------------------------------------------------------------------
hub=$HOME/.cache/huggingface/hub
snapshot=$hub/models--some--Tiny-GGUF/snapshots/0123abcd
mkdir -p "$snapshot" "$hub/models--some--Tiny-GGUF/blobs" "$hub/models--some--Tiny/snapshots/0123abcd" "$tmp/folder"
cp "$tiny" "$hub/models--some--Tiny-GGUF/blobs/feed"
ln -s ../../blobs/feed "$snapshot/tiny-Q8_0.gguf"
echo '{}' >"$hub/models--some--Tiny/snapshots/0123abcd/model.safetensors"
ollama=$HOME/.ollama/models
digest=$(sha256sum "$tiny" | cut -d ' ' -f 1)
mkdir -p "$ollama/blobs" "$ollama/manifests/registry.ollama.ai/library/tiny" "$ollama/manifests/hub.example/some/cut"
cat >"$ollama/manifests/registry.ollama.ai/library/tiny/1b" <<END
{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:$(printf '%064d' 1)","size":5},
"layers":[{"mediaType":"application/vnd.ollama.image.license","digest":"sha256:$(printf '%064d' 2)","size":5},
{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:$digest","size":9},
{"mediaType":"application/vnd.ollama.image.params","digest":"sha256:$(printf '%064d' 3)","size":5}]}
END
sed "s/$digest/$(printf '%064d' 7)/" "$ollama/manifests/registry.ollama.ai/library/tiny/1b" \
    >"$ollama/manifests/hub.example/some/cut/latest"
cp "$tiny" "$ollama/blobs/sha256-$digest"
head -c 20000 "$tiny" >"$ollama/blobs/sha256-$(printf '%064d' 7)"
echo 'not a model' >"$tmp/folder/wrong.gguf"
find "$HOME" -type f -exec sha256sum {} + | sort >"$tmp/before"

code 'models' 0 "$gistctl" models
check 'one can be fetched' grep -q '^tiny  .* 2048  Apache-2.0  *list  *to be fetched$' "$tmp/out"
# shellcheck disable=SC2016
check 'it says how' grep -q '`gistctl pull NAME`' "$tmp/out"
code 'models --json' 0 "$gistctl" models --json "$tmp/folder"
check 'all are found, by their names' json "sorted(m['name'] for m in j) == sorted(['tiny', 'other', 'wrong.gguf', \
    'some/Tiny-GGUF/tiny-Q8_0.gguf', 'some/Tiny', 'hub.example/some/cut:latest', 'tiny:1b'])" <"$tmp/out"
check 'and what they are' json "(lambda m: m['some/Tiny-GGUF/tiny-Q8_0.gguf']['state'] == m['tiny:1b']['state'] == 'ready' and \
    m['tiny:1b']['window'] == 2048 and m['tiny:1b']['path'].endswith('sha256-$digest') and m['tiny:1b']['from'] == 'ollama' and \
    'cut short' in m['hub.example/some/cut:latest']['why'] and 'safetensors' in m['some/Tiny']['why'] and \
    'gistd' not in m['wrong.gguf']['why'] and m['wrong.gguf']['state'] == 'can\'t be loaded' and m['tiny']['path'] is None)( \
    {m['name']: m for m in j})" <"$tmp/out"
find "$HOME" -type f -exec sha256sum {} + | sort >"$tmp/after"
check 'nothing of other programs was touched' cmp "$tmp/before" "$tmp/after"

# --- pull ------------------------------------------------------------------------------------------
index 1000
export PIP_INDEX_URL="$url"
code 'a download that breaks off' 1 "$gistctl" pull tiny
check 'leaves no model' [ ! -e "$HOME/.cache/gistd/tiny.gguf" ]
index 0
PIP_INDEX_URL=$url
code 'pull' 0 "$gistctl" pull tiny
check 'prints where it is' [ "$(cat "$tmp/out")" = "$HOME/.cache/gistd/tiny.gguf" ]
check 'and how far it is' grep -q 'fetching tiny-model' "$tmp/err"
code 'pull again' 0 "$gistctl" pull --json tiny
check 'as JSON' json "j == {'name': 'tiny', 'path': '$HOME/.cache/gistd/tiny.gguf'}" <"$tmp/out"
code 'pull what is in no list' 1 "$gistctl" pull tiny:1b
# shellcheck disable=SC2016
says '`gistctl models`'
code 'pull nothing' 2 "$gistctl" pull
says 'needs one model'
code 'it is ready' 0 "$gistctl" models
check 'it is ready' grep -q '^tiny .*ready$' "$tmp/out"
truncate -s -1 "$HOME/.cache/gistd/tiny.gguf"
code 'cut, it is to be fetched' 0 "$gistctl" models
check 'cut, it is to be fetched' grep -q '^tiny .*to be fetched$' "$tmp/out"
code 'and is' 0 "$gistctl" pull tiny

# --- use -------------------------------------------------------------------------------------------
code 'use what is not here' 1 "$gistctl" use other
# shellcheck disable=SC2016
says '`gistctl pull other`'
code 'use what is nowhere' 1 "$gistctl" use nonsense
says "no model 'nonsense'"
code 'use what is no model' 1 "$gistctl" use "$tmp/folder/wrong.gguf"
says "can't be loaded"
check 'nothing was written' [ ! -e "$conf" ]
code 'use' 0 "$gistctl" use tiny:1b
check 'the file is there' grep -q -x "model = $ollama/blobs/sha256-$digest" "$conf"
printf '# my own\nthreads = 1\n  model=old.gguf\n# model = no\nkv-type = q8_0' >"$conf"
code 'use another' 0 "$gistctl" use --json tiny
check 'as JSON' json "j == {'name': 'tiny', 'path': '$HOME/.cache/gistd/tiny.gguf', 'config': '$conf'}" <"$tmp/out"
printf '# my own\nthreads = 1\nmodel = %s\n# model = no\nkv-type = q8_0' "$HOME/.cache/gistd/tiny.gguf" >"$tmp/want"
check 'all other lines stay as they were' cmp "$conf" "$tmp/want"
printf 'model = first.gguf\nmodel = second.gguf\n' >"$conf"
code 'use, where two are named' 0 "$gistctl" use tiny
check 'it takes the place of the one that gistd would take' [ "$(tail -n 1 "$conf")" = "model = $HOME/.cache/gistd/tiny.gguf" ]
cp "$tmp/want" "$conf"
mkdir "$tmp/dotfiles"
mv "$conf" "$tmp/dotfiles/mine"
ln -s "$tmp/dotfiles/mine" "$conf"
chmod 600 "$conf"
code 'use, with a file that is a link' 0 "$gistctl" use tiny:1b
check 'it is one still, and as private' sh -c "[ -L '$conf' ] && [ \"\$(stat -c %a '$tmp/dotfiles/mine')\" = 600 ]"
code 'and back' 0 "$gistctl" use tiny
check 'what it leads to has the line' cmp "$tmp/dotfiles/mine" "$tmp/want"
code 'it is marked' 0 "$gistctl" models
check 'it is marked' grep -q '^tiny .*ready, taken by the next start$' "$tmp/out"

# --- start and stop --------------------------------------------------------------------------------
code 'stop without one' 3 "$gistctl" stop
says 'no daemon is running at'
code 'no daemon' 3 "$gistctl" status
# shellcheck disable=SC2016
says '`gistctl start`'
code 'start' 0 "$gistctl" start --wait --json
check 'start' json "j['serving'] and not j['already'] and j['log'] == '$log' and j['socket'] == '$GISTD_SOCKET' and j['pid'] > 1" <"$tmp/out"
pid=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])' <"$tmp/out")
check 'it is a daemon: a session of its own' [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
code 'it serves' 0 "$gistctl" ask -n 4 Why
code 'status' 0 "$gistctl" status --json
check 'with what gistd.conf says' json "j['threads'] == 1" <"$tmp/out"
code 'start again' 0 "$gistctl" start
check 'start again' grep -q "serves already at .* (pid $pid)" "$tmp/out"
code 'start another' 1 "$gistctl" start --model tiny
# shellcheck disable=SC2016
says '`gistctl stop` first'
check 'the log' grep -q 'Serving tiny random smollm2' "$log"
code 'stop' 0 "$gistctl" stop
check 'stop' grep -q "(pid $pid) has ended" "$tmp/out"
check 'it is gone' sh -c "! kill -0 $pid 2>/dev/null || grep -q '^State:.*Z' /proc/$pid/status"
code 'nobody is there' 3 "$gistctl" status

code 'start without waiting' 0 "$gistctl" start --model tiny:1b -- --threads 2 --kv-type f32
code 'it serves soon' 0 "$gistctl" ask -n 4 Why
code 'status' 0 "$gistctl" status --json
check 'with the options for gistd' json "j['threads'] == 2" <"$tmp/out"
code 'stop --json' 0 "$gistctl" stop --json
check 'stop --json' json "j['pid'] > 1" <"$tmp/out"

code 'a model that is cut' 1 "$gistctl" start --model hub.example/some/cut:latest
says 'cut short'
code 'an option that gistd does not have' 1 "$gistctl" start -- --nonsense
says 'gistd did not start. It said:'
says 'nonsense'
says "$log"
code 'memory that is not there' 1 "$gistctl" start --wait -- --kv-bytes 4000T
says 'gistd did not start'
code 'a word too many' 2 "$gistctl" start tiny
says '--model'
code 'nobody is there' 3 "$gistctl" status

# Paths are those of the folder where it was started, and what a script has open is the script's own.
named=$GISTD_SOCKET
GISTD_SOCKET=own.sock
cp "$tiny" "$tmp/folder/own.gguf"
code 'start in a folder' 0 sh -c "cd '$tmp/folder' && exec 9>lock && flock 9 && '$gistctl' start --wait -- --model own.gguf"
check 'there is its socket' [ -S "$tmp/folder/own.sock" ]
check 'the lock is free' flock -n "$tmp/folder/lock" true
code 'stop in the folder' 0 sh -c "cd '$tmp/folder' && '$gistctl' stop"
GISTD_SOCKET=$named

# What another user says is not the daemon's word. To send as one takes root.
if [ "$(id -u)" = 0 ]; then
    mkdir "$tmp/fake"
    cp "$gistctl" "$tmp/fake"
    cat >"$tmp/fake/gistd" <<END
#!$(command -v python3)
import os, socket, sys
if "--plan" in sys.argv:
    sys.exit(0)
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
os.setuid(65534)
to.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])
sys.exit("this is no daemon")
END
    chmod 755 "$tmp/fake/gistd"
    code 'another user says that it serves' 1 "$tmp/fake/gistctl" start --wait --model "$tiny"
    says 'this is no daemon'
fi

# In the user's run-time folder, where nothing is yet.
named=$GISTD_SOCKET
unset GISTD_SOCKET
XDG_RUNTIME_DIR=$tmp/run
export XDG_RUNTIME_DIR
code 'start in the usual place' 0 "$gistctl" start --wait
check 'is there' [ -S "$tmp/run/gistd/gistd.sock" ]
code 'and found' 0 "$gistctl" ask -n 2 Why
code 'stop in the usual place' 0 "$gistctl" stop
unset XDG_RUNTIME_DIR
GISTD_SOCKET=$named
export GISTD_SOCKET

# --- what Tab gives --------------------------------------------------------------------------------
complete() {
    PATH=$(dirname "$gistctl"):$PATH bash -c '. ctl/gistctl.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gistctl
        printf "%s\n" "${COMPREPLY[@]}"' - "$@"
}
check 'models to fetch' [ "$(complete gistctl pull '' | tr '\n' ' ')" = 'tiny other ' ]
check 'models to use: those that can be loaded' [ "$(complete gistctl use ti | sort | tr '\n' ' ')" = 'tiny tiny:1b ' ]
check 'models to start' [ "$(complete gistctl start --model some/ | tr '\n' ' ')" = 'some/Tiny-GGUF/tiny-Q8_0.gguf ' ]
done_testing
