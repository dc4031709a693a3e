#!/bin/sh
# tests/test_http_page.sh - the page of gist-http in a headless Chromium, with a model that knows nothing. Would catch: a
# page that does not come up, or asks anybody else; a question, a document, a stop, a name, a key on the keyboard that
# does nothing; an answer or a file name that becomes more than text; an error that does not say what to do; colours
# that can't be read.
set -eu
. tests/support/daemon.sh
. tests/support/http.sh
missing=$(cd tests/support && python3 -c 'import cdp; print(cdp.usable())')
if [ -n "$missing" ]; then
    echo "$missing"
    exit 77
fi
daemon_start tests/data/tiny_smollm2.gguf --idle 2
http_start
check 'the page' python3 tests/support/http_page.py "$url" "$http_pid"
kill "$http_pid" 2>/dev/null || true # of who has failed before he did
wait "$http_pid" || true
http_pid=
daemon_stop
done_testing
