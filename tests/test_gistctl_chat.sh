#!/bin/sh
# tests/test_gistctl_chat.sh - gistctl chat under a person's hands, see tests/support/chat_hands.py.
set -eu
. tests/support/daemon.sh

daemon_start tests/data/tiny_smollm2.gguf
check 'a conversation by hand' timeout 600 python3 tests/support/chat_hands.py "$gistctl"
daemon_stop
done_testing
