#!/bin/sh
# tests/test_crowd.sh - bench/crowd, short and small: several users' programs that ask, cancel, leave and are killed.
# Would catch: an answer that depends on who else is there, text that is taken over from another user, a daemon that
# ends, or keeps pages, places or descriptors of who is gone. Timings and shares are told and fail nothing here.
set -eu
timeout 300 "$BUILD/bench/crowd" --seconds "${CROWD_SECONDS:-8}" --clients 12 --document 1200 --report "$BUILD/gistd" \
    tests/data/tiny_qwen2.gguf --threads 1
