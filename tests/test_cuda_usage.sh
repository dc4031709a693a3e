#!/bin/sh
# tests/test_cuda_usage.sh - would catch: a kernel that spills registers and is not reported, or a table that
# says something else than nvcc did (scripts/cuda-usage). The kernels themselves are looked at by `make check`
# where nvcc is (cuda/Makefile.inc).
set -eu
cd "$(dirname "$0")/.."
scripts/cuda-usage --self-test
# A log that is none of ours is not passed over in silence.
! scripts/cuda-usage README.md 2>/dev/null
