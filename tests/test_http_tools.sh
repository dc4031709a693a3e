#!/bin/sh
# tests/test_http_tools.sh - gist-http and models whose own chat templates know tools: Qwen2.5's, Llama 3.1's, on tiny
# models. Would catch: tools that the model is not shown, a call by another template's form, a byte of an answer that
# is lost while calls are looked for, an answer that is neither calls nor in the format that was asked for.
# tests/test_http_clients.sh has a model whose template knows none.
set -eu
. tests/support/daemon.sh
. tests/support/http.sh

for pair in qwen2:qwen2.5 llama31:llama-3.1; do
    form=
    [ "$pair" = qwen2:qwen2.5 ] || form=bare
    python3 tests/support/with_template.py "tests/data/tiny_${pair%:*}.gguf" "tests/data/chat/${pair#*:}.jinja" "$tmp/model.gguf"
    daemon_start "$tmp/model.gguf"
    http_start
    check "${pair#*:}" python3 tests/support/http_tools.py "$url" $form
    http_stop
    daemon_stop
done
done_testing
