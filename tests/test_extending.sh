#!/bin/sh
# tests/test_extending.sh - the compressor of docs/extending.md, added to a copy of this tree as that page says.
# Would catch: a page that is not true any more; another place that knows compressors by name.
set -eu
. tests/support/daemon.sh
here=$PWD
flavour=${BUILD##*/}
model=$here/tests/data/tiny_smollm2.gguf

# block N: the page's N-th block of C.
block() {
    awk -v want="$1" '/^```/ { in_c = $0 == "```c" && ++n == want; next } in_c' docs/extending.md
}

# --- a file and a line --------------------------------------------------------------------------
# Objects come along: only what includes the table is compiled again.
mkdir -p "$tmp/tree/build/$flavour"
cp -a Makefile base client ctl cuda daemon engine ipc proto store "$tmp/tree/"
for part in flags gen base client ctl daemon engine ipc store; do
    cp -a "$BUILD/$part" "$tmp/tree/build/$flavour/"
done
number=$(grep -c '^COMPRESSOR(' base/compressors.def)
block 1 >"$tmp/tree/engine/kv/compress_peak.c"
block 2 | sed "s/(8,/($number,/" >>"$tmp/tree/base/compressors.def"
diff -rq . "$tmp/tree" | grep -v '^Only in \.' | grep -v "^Only in \./" >"$tmp/changed" || true
check 'a file and a line' [ "$(grep -v -c ' build$' "$tmp/changed")" -eq 2 ]
check 'of 60 lines' [ "$(grep -c . "$tmp/tree/engine/kv/compress_peak.c")" -le 65 ]

san=
case $flavour in
*address*) san=address,undefined ;;
*thread*) san=thread ;;
esac
cc=cc
case $flavour in
*-clang) cc=clang ;;
esac
code 'it builds' 0 env -u MAKEFLAGS -u MAKELEVEL make -C "$tmp/tree" -j2 WERROR=-Werror SAN=$san CC=$cc \
    "build/$flavour/gistd" "build/$flavour/gistctl"
[ $failures -eq 0 ] || done_testing

# --- it works -----------------------------------------------------------------------------------
BUILD=$tmp/tree/build/$flavour
gistctl=$BUILD/gistctl
daemon_start "$model" --segment 64
code 'help names it' 0 "$gistctl" ask --help
check 'in the list of compressors' grep -q -e '--compressor NAME.*, peak (' "$tmp/out"
code 'a name that is none' 2 "$gistctl" score --compressor peek Makefile
says ', peak.'
code 'it takes no adapter, and checks the ratio' 1 "$gistctl" score --compressor peak --ratio 7 Makefile
says 'a ratio of 7'

seq 1 150 >"$tmp/text"
# score NAME [OPTION]...: into NAME.json
score() {
    name=$1
    shift
    code "score $name" 0 "$gistctl" score --json --window 1024 "$@" "$tmp/text"
    cp "$tmp/out" "$tmp/$name.json"
}
score full
score none --compressor none
score peak --compressor peak --ratio 4
score again --compressor peak --ratio 4
score select --compressor select --ratio 4
score thinned --compressor peak --ratio 4 --budget 160
check 'the same twice' [ "$(grep -o '"nll":[^,]*' "$tmp/peak.json")" = "$(grep -o '"nll":[^,]*' "$tmp/again.json")" ]
check 'another memory than any other' python3 - "$tmp" <<'EOP'
import json, sys
r = {n: json.load(open(f"{sys.argv[1]}/{n}.json")) for n in ("full", "none", "peak", "select", "thinned")}
n = len(r["full"]["logprobs"])
assert n > 300, n
assert len({x["nll"] for x in r.values()}) == 5, {k: x["nll"] for k, x in r.items()}
for x in r.values():  # the first segment is read as ever
    assert x["logprobs"][1:64] == r["full"]["logprobs"][1:64]
u = r["peak"]["usage"]  # a window's own: all its full segments are compressed, 4 sinks stay
packed = n // 64 * 64
assert u["gist_tokens"] == packed - 4, u
assert u["gists"] == (packed - 4) // 4, u
assert r["thinned"]["usage"]["gists"] < u["gists"], r["thinned"]["usage"]
EOP
daemon_stop
done_testing
