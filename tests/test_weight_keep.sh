#!/bin/sh
# tests/test_weight_keep.sh - weights that a service manager keeps across a restart, with a stand-in for it
# (tests/support/manager.py). Would catch: tensors that are read although the weights are there, other bits than
# before, a forged, damaged or foreign descriptor that is computed with, one that stays in the store although it is
# of no use, weights that are counted twice, a kill that spoils the next start.
set -eu
[ -z "${GISTD_TEST_BACKEND:-}" ] || { echo "the backend $GISTD_TEST_BACKEND has memory of its own"; exit 77; }
model=${GISTD_TEST_MODEL:-$(scripts/fetch-model)}
shown=$(scripts/demo-fdstore tests/data/tiny_smollm2.gguf --kv-bytes 4M)
case $shown in *restart*kept*restart*kept*restart*kept*) ;; *) echo "$shown"; exit 1 ;; esac
exec python3 tests/support/weight_keep.py "$BUILD/gistd" "$BUILD/gistctl" tests/data/tiny_smollm2.gguf "$model"
