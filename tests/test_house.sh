#!/bin/sh
# Would catch: an include against the layers or through another's door, a comparison that a NaN passes, a folder
# that README's map lacks, a file that clang-format would change, functions and files that are too long; a
# check of these that no longer finds what was planted; a plot whose figures have changed since it was drawn.
set -u
if ! command -v python3 >/dev/null; then
    echo "no python3 here"
    exit 77
fi
bad=0
python3 scripts/check-house --self-test || bad=1
python3 scripts/check-house || bad=1
# Another promise about files alone: the plots of docs/choosing-memory.md are what docs/results.md says.
python3 scripts/plots --check || bad=1
if ! grep -q 'prefers-color-scheme:dark' docs/memory_bench.svg docs/images/memory-*.svg; then
    echo "a plot is not made for dark pages"
    bad=1
fi
exit $bad
