#!/bin/sh
# Would catch: an include against the layers or through another's door, a comparison that a NaN passes, a folder
# that README's map lacks, a file that clang-format would change, functions and files that are too long; and a
# check of these that no longer finds what was planted.
set -u
if ! command -v python3 >/dev/null; then
    echo "no python3 here"
    exit 77
fi
bad=0
python3 scripts/check-house --self-test || bad=1
python3 scripts/check-house || bad=1
exit $bad
