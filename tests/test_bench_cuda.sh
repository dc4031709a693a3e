#!/bin/sh
# tests/test_bench_cuda.sh - would catch: a benchmark that fails on the day that a GPU is here (scripts/bench-cuda). It runs
# through over the shim, with a tiny model; and the table of an 8B's kernels is there without any device.
set -eu
cd "$(dirname "$0")/.."
: "${BUILD:?is set by make check}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

page=$tmp/page.md
for part in kernels model; do printf '<!-- bench-cuda: %s -->\nold\n<!-- /bench-cuda: %s -->\n' $part $part; done >"$page"
SECONDS_LEFT=600 DEVICE=cuda-shim scripts/bench-cuda --tiny --into "$page" >"$tmp/out" 2>"$tmp/err" || { cat "$tmp/err"; exit 1; }

# Each kernel was measured, and the whole model, in time.
grep -q '^| matvec | Q6_K 272 x 256, 2 rows | 1 |' "$page"
grep -q '^| fit | a layer of a segment |' "$page"
! grep -e 'not measured |' -e 'not in time' -e '^old' "$page"
grep -q '^| 72 | [0-9.]* |  | [0-9.]* |' "$page"
grep -q '^2 sessions behind 72 tokens each at ratio 2: [0-9.]* tokens/s' "$page"
grep -q '^Memory: `gistd --plan` counts ' "$page"

# The roofline page's 4.72 GB of weights a token: 1.1 ms at 4.3 TB/s, within 2 %.
scripts/bench-cuda --counts >"$tmp/counts"
awk '/^A token: / { found = 1; if ($3 < 1075 || $3 > 1120) exit 1 } END { exit !found }' "$tmp/counts"
grep -q 'not measured' "$tmp/counts"

# What is carried to a GPU's machine fits into one transfer, and runs there: here with what it brought along.
MOST=64 scripts/cuda-pack "$tmp/pack" >"$tmp/out" 2>/dev/null
BUILD=$tmp/pack scripts/bench-cuda --counts | cmp - "$tmp/counts"
! MOST=1 scripts/cuda-pack "$tmp/pack" >/dev/null 2>&1
