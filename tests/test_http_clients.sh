#!/bin/sh
# tests/test_http_clients.sh - gist-http and the real clients: openai, anthropic, ollama, llm. Would catch: an answer or
# an event that one of them can't read, an error that becomes another exception than its own.
#   PYTHON=...  one that has them (scripts/test says so); else python3
set -eu
. tests/support/daemon.sh
. tests/support/http.sh
python=${PYTHON:-python3}
if ! "$python" -c 'import importlib.util as u, sys; sys.exit(not any(u.find_spec(m) for m in ("openai", "anthropic", "ollama", "llm")))'; then
    echo "$python has none of the clients openai, anthropic, ollama, llm (tests/requirements-http.txt)"
    exit 77
fi
daemon_start tests/data/tiny_smollm2.gguf
http_start
"$python" tests/support/http_clients.py "$url" || failures=1
checks=1
http_stop
daemon_stop
done_testing
