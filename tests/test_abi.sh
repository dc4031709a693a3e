#!/bin/sh
# tests/test_abi.sh - a program that was compiled with the gist.h of some time ago runs with the shared library of today.
# Would catch: a struct that the library fills beyond what the program knows of it, rows of a list that are not where it
# looks for them, a function that is gone, an answer that means something else.
set -eu
. tests/support/daemon.sh

daemon_start tests/data/tiny_smollm2.gguf
first=$BUILD/tests/abi_first
check 'it was compiled with the old header' grep -q 'tests/abi/gist.h' "$BUILD/tests/abi/first.d"
check 'it has the library of today' sh -c "ldd '$first' | grep -q 'libgist.so.0 => .*$BUILD'"
check 'and calls what it did then' sh -c "nm -D '$first' | grep -q ' U gist_connect\$'"
check 'the header has grown since' sh -c "! cmp -s tests/abi/gist.h client/gist.h && grep -q 'outputs;' client/gist/conn.h && ! grep -q 'outputs;' tests/abi/gist.h"
code 'it runs' 0 "$first" "$GISTD_SOCKET"
code 'without a socket' 2 "$first"
daemon_stop
done_testing
