#!/bin/sh
# tests/test_weights.sh - a daemon whose weights come from an image, whole or layer by layer. Would catch: an answer
# that differs from that of weights from the file, an image that is written where it was not asked for or stays
# unused, one that is damaged and answers, a daemon that dies of it, status that does not say where weights are.
set -eu
[ -z "${GISTD_TEST_BACKEND:-}" ] || { echo "the backend $GISTD_TEST_BACKEND has memory of its own"; exit 77; }
. tests/support/daemon.sh
model=$tmp/model.gguf
cp tests/data/tiny_smollm2.gguf "$model"
cache=$tmp/images

head -c 1500 tests/data/score.txt >"$tmp/text"

# scores TO: the log-probabilities of a text, all digits, without the time that it took.
scores() {
    "$gistctl" score --json --window 64 "$tmp/text" | sed 's/"[a-z_]*ns": *[0-9]*//g' >"$1"
}

# from FILE|IMAGE: where status says the weights are from.
from() {
    "$gistctl" status --json >"$tmp/status"
    check "weights are from the $1" json "j['weights_from'] == '$1'" <"$tmp/status"
}

image() {
    echo "$cache"/*.weights
}

wait_for_image() {
    tries=600
    until [ -e "$(image)" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo 'no image was written'; cat "$tmp/daemon.log"; exit 1; }
        sleep 0.1
    done
}

# flip OFFSET: a bit of the image.
flip() {
    python3 -c '
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
at = int(sys.argv[2])
os.pwrite(f, bytes([os.pread(f, 1, at)[0] ^ 4]), at)
os.fsync(f)' "$(image)" "$1"
}

# --- from the file, and an image for the next start ---------------------------------------------
daemon_start "$model" --weight-cache "$cache"
from file
scores "$tmp/want"
wait_for_image
check 'only its user may read it' [ "$(stat -c %a "$(image)")" = 600 ]
daemon_stop
check 'nothing else was written' [ "$(ls "$cache" | wc -l)" = 1 ]

# --- the image ----------------------------------------------------------------------------------
daemon_start "$model" --weight-cache "$cache"
from image
scores "$tmp/got"
check 'the image computes the same' cmp "$tmp/want" "$tmp/got"
daemon_stop

daemon_start "$model" --weight-cache none
from file
daemon_stop

# A bit of the last layer: the start finds it, and makes another one.
size=$(stat -c %s "$(image)")
before=$(stat -c %i "$(image)")
flip $((size - 5000))
daemon_start "$model" --weight-cache "$cache"
from file
check 'the log says so' grep -q 'its weights are damaged' "$tmp/daemon.log"
scores "$tmp/got"
check 'the file computes the same' cmp "$tmp/want" "$tmp/got"
tries=600
while [ "$(stat -c %i "$(image)")" = "$before" ] && [ $tries -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
daemon_stop
daemon_start "$model" --weight-cache "$cache"
from image
daemon_stop

# Another file of that name.
cp tests/data/tiny_qwen2.gguf "$model"
daemon_start "$model" --weight-cache "$cache" --log-level debug
from file
daemon_stop
cp tests/data/tiny_smollm2.gguf "$model"

# --- layer by layer -----------------------------------------------------------------------------
rm -rf "$cache"
least=$(timeout 60 "$BUILD/gistd" --socket "$tmp/x" --model "$model" --weight-bytes 1 --weight-cache "$cache" 2>&1 |
    sed -n 's/.* needs at least \([0-9]*\).*/\1/p')
check 'the least is said' [ "${least:-0}" -gt 1 ]
check 'nothing was written for that' [ -z "$(ls -A "$cache" 2>/dev/null)" ]
code 'without a folder' 1 timeout 60 "$BUILD/gistd" --socket "$tmp/x" --model "$model" --weight-bytes "$least" --weight-cache none
says 'set weight-cache'
: >"$tmp/nofolder"
code 'a folder that is none' 1 timeout 60 "$BUILD/gistd" --socket "$tmp/x" --model "$model" --weight-bytes "$least" \
    --weight-cache "$tmp/nofolder/x"
says 'Not a directory'
for io in uring threads; do
    daemon_start "$model" --weight-cache "$cache" --weight-bytes "$least" --io $io
    scores "$tmp/got"
    check "streamed weights compute the same, $io" cmp "$tmp/want" "$tmp/got"
    from image
    check 'status has the budget' json "0 < j['weights_memory'] <= $least" <"$tmp/status"
    check 'status has what was read' json "j['weights_read'] >= j['weights_streamed'] > 0" <"$tmp/status"
    code 'status in words' 0 "$gistctl" status
    check 'it says what passes' grep -q 'are read for each token' "$tmp/out"
    [ $io = uring ] || break
    daemon_stop
done

# A bit of a layer turns over under it: no answer, and the next one is right when the bit is.
size=$(stat -c %s "$(image)")
flip $((size - 5000))
code 'what is not right does not answer' 1 "$gistctl" score --json --window 64 "$tmp/text"
says 'its bytes are not those that were written'
flip $((size - 5000))
scores "$tmp/got"
check 'the daemon lives, and computes the same' cmp "$tmp/want" "$tmp/got"
daemon_stop

done_testing
