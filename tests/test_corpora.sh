#!/bin/sh
# tests/test_corpora.sh - every fuzzer over the inputs that are kept of it (tests/corpora), in this flavour.
# Would catch: what a fuzzer found once and is there again, without clang and its minutes; a
# format of the kept inputs that is not read as it is written.
set -eu
case $BUILD in
*thread*)
    echo 'fuzzers have one thread: nothing that the thread sanitizer could find'
    exit 77
    ;;
esac
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for f in tests/corpora/*; do
    name=${f##*/}
    printf '%s: ' "$name"
    "$BUILD/tests/replay_$name" "$f" 2>"$tmp/said" || {
        cat "$tmp/said"
        exit 1
    }
done

# Bytes of all values, as text and in hexadecimal, come back.
mkdir -p "$tmp/scripts" "$tmp/tests/corpora" "$tmp/in" "$tmp/out"
cp scripts/corpora "$tmp/scripts/"
printf 'a \\x41 \134 text\n\377' >"$tmp/in/text"
printf '\000\001\002\200\377\012' >"$tmp/in/bytes"
: >"$tmp/in/empty"
"$tmp/scripts/corpora" pack all "$tmp/in"
"$tmp/scripts/corpora" unpack all "$tmp/out"
for f in text bytes empty; do
    same=no
    for g in "$tmp"/out/*; do cmp -s "$tmp/in/$f" "$g" && same=yes; done
    [ $same = yes ] || { echo "the input '$f' did not come back"; exit 1; }
done
[ "$(ls "$tmp/out" | wc -l)" = 3 ]
grep -q '^x 000102' "$tmp/tests/corpora/all" && grep -q '^t a ' "$tmp/tests/corpora/all"
