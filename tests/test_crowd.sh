#!/bin/sh
# tests/test_crowd.sh - bench/crowd, short and small: several users' programs that ask, cancel, leave and are killed.
# Would catch: an answer that depends on who else is there, text that is taken over from another user, a daemon that
# ends, or keeps pages, places, descriptors or memory of who is gone. Timings and shares are told and fail nothing here.
set -eu
# What a sanitizer keeps of freed memory would pass for memory that is lost.
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=8
export ASAN_OPTIONS
exec timeout 900 "$BUILD/bench/crowd" --seconds "${CROWD_SECONDS:-6}" --clients 12 --document 1200 --report \
    "$BUILD/gistd" tests/data/tiny_qwen2.gguf --threads 1 --kv-bytes 32M
