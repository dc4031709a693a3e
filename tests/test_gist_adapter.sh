#!/bin/sh
# tests/test_gist_adapter.sh - gist-adapter as people use it, and a daemon with what it made. Would catch: a
# wrong exit code, a file that is half written or gone after a mistake, an adapter that the daemon does not
# take or uses in another way than it was trained. What imported gists compute: tests/test_import.c.
set -eu
. tests/support/daemon.sh
tool=$BUILD/gist-adapter
model=tests/data/tiny_smollm2.gguf

code 'no command' 2 "$tool"
code 'an unknown command' 2 "$tool" nonsense x
code 'import without a file' 2 "$tool" import -m $model x
code 'no model' 2 "$tool" init "$tmp/x.safetensors"
says '--model'
code 'a model that is not there' 1 "$tool" init -m "$tmp/none.gguf" "$tmp/x.safetensors"
says "$tmp/none.gguf"
code 'version' 0 "$tool" --version

# --- init ---------------------------------------------------------------------------------------
code 'init' 0 "$tool" init -m $model --segment 128 --ratios '2 8' --sinks 3 "$tmp/first.safetensors"
code 'show' 0 "$tool" show "$tmp/first.safetensors"
check 'segment' grep -q '^segment *128$' "$tmp/out"
check 'ratios' grep -q '^ratios *2 8$' "$tmp/out"
check 'sinks' grep -q '^sinks *3$' "$tmp/out"
check 'no tensors' grep -q '^0 tensors, 0 values, 0 bytes$' "$tmp/out"
code 'init over a file' 1 "$tool" init -m $model "$tmp/first.safetensors"
says '--force'
cp "$tmp/first.safetensors" "$tmp/before"
code 'init with a bad ratio' 1 "$tool" init -f -m $model --ratios '2 x' "$tmp/first.safetensors"
says '2 x'
check 'the file that was there is there' cmp "$tmp/before" "$tmp/first.safetensors"
code 'init --force' 0 "$tool" init -f -m $model "$tmp/first.safetensors"

# --- import -------------------------------------------------------------------------------------
mkdir "$tmp/beacon"
cp tests/data/beacon_smollm2.safetensors "$tmp/beacon/model.safetensors"
cp tests/data/beacon_smollm2.config.json "$tmp/beacon/config.json"
code 'import' 0 "$tool" import -m $model "$tmp/beacon" "$tmp/beacon.safetensors"
code 'show' 0 "$tool" show "$tmp/beacon.safetensors"
check 'mask' grep -q '^mask *in-segment$' "$tmp/out"
check 'segment' grep -q '^segment *64$' "$tmp/out"
check 'projections' grep -q '^k *layers 0 to 1: a matrix of its own$' "$tmp/out"
check 'types stay' grep -q '^layers.1.v.weight *BF16 *32 96$' "$tmp/out"
code 'import over a file' 1 "$tool" import -m $model "$tmp/beacon" "$tmp/beacon.safetensors"
says '--force'
code 'import of another model' 1 "$tool" import -m tests/data/tiny_qwen2.gguf "$tmp/beacon" "$tmp/x"
says 'model_type is llama'
mkdir "$tmp/empty"
code 'import of nothing' 1 "$tool" import -m $model "$tmp/empty" "$tmp/x"
says "$tmp/empty"
code 'ranks' 0 "$tool" show tests/data/gist_llama31.safetensors
check 'ranks' grep -q "^q *layers 0 to 1: the base model's matrix + rank 3$" "$tmp/out"
check 'not of the feed-forward part' grep -q "^down *layers 0 to 1: the base model's matrix$" "$tmp/out"
code 'all projections' 0 "$tool" show tests/data/gist_smollm2_all.safetensors
check 'o' grep -q '^o *layers 0 to 0: a matrix of its own$' "$tmp/out"
check 'down' grep -q "^down *layers 0 to 0: the base model's matrix + rank 3$" "$tmp/out"
check 'nothing is left behind' [ -z "$(find "$tmp" -name '*.tmp*' -o -name x)" ]

# --- mark ---------------------------------------------------------------------------------------
cp "$tmp/beacon.safetensors" "$tmp/marked.safetensors"
code 'mark' 0 "$tool" mark -m $model --better-than-fit '8 16' "$tmp/marked.safetensors"
code 'show' 0 "$tool" show "$tmp/marked.safetensors"
check 'its mark' grep -q '^better_than_fit *8 16$' "$tmp/out"
cp "$tmp/marked.safetensors" "$tmp/before"
code 'a ratio that is none' 1 "$tool" mark -m $model --better-than-fit '8 x' "$tmp/marked.safetensors"
says 'better_than_fit is "8 x"'
check 'a refused mark changes nothing' cmp "$tmp/before" "$tmp/marked.safetensors"
code 'another mark' 0 "$tool" mark -m $model --better-than-fit 4 "$tmp/marked.safetensors"
code 'show' 0 "$tool" show "$tmp/marked.safetensors"
check 'one mark' [ "$(grep -c '^better_than_fit *4$' "$tmp/out")" = 1 ]
code 'no mark' 0 "$tool" mark -m $model --better-than-fit '' "$tmp/marked.safetensors"
check 'all else stays, bit for bit' cmp "$tmp/beacon.safetensors" "$tmp/marked.safetensors"
code 'mark without ratios' 2 "$tool" mark -m $model "$tmp/marked.safetensors"
says '--better-than-fit'

# --- served -------------------------------------------------------------------------------------
seq 1 400 >"$tmp/text"
# What the last score said, without the time that it took.
probabilities() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)["logprobs"])' <"$tmp/out" >"$tmp/$1"
}
daemon_start $model --adapter "$tmp/beacon.safetensors:$tmp/first.safetensors"
code 'status' 0 "$gistctl" status
check 'status names it' grep -q beacon "$tmp/out"
code 'score' 0 "$gistctl" score --adapter beacon --ratio 8 --json "$tmp/text"
probabilities preset
code 'score, all said' 0 "$gistctl" score --adapter beacon --compressor fine-kv --ratio 8 --segment 64 \
    --sinks 0 --json "$tmp/text"
probabilities said
check 'segment and sinks are those of the training' cmp "$tmp/preset" "$tmp/said"
code 'score, other segments' 0 "$gistctl" score --adapter beacon --ratio 8 --segment 128 --json "$tmp/text"
probabilities other
check 'segments of another length are something else' sh -c "! cmp -s '$tmp/preset' '$tmp/other'"
code 'sinks behind the first gist' 1 "$gistctl" score --adapter beacon --ratio 2 --sinks 3 "$tmp/text"
says '3 sinks are too many'
code 'another method' 1 "$gistctl" score --adapter beacon --compressor coarse-kv "$tmp/text"
says 'makes fine-kv gists, not coarse-kv'
code 'no adapter for coarse gists' 1 "$gistctl" score --compressor coarse-rec "$tmp/text"
says 'needs an adapter'
daemon_stop

done_testing
