#!/bin/sh
# tests/test_turnaway.sh - a daemon that a connection started, and that can't serve. Would catch: a client that hears
# nothing, or no word of what to do, a daemon that ends before all who wait were told, or one that keeps whoever
# started it by hand waiting.
set -eu
. tests/support/daemon.sh
command -v systemd-socket-activate >/dev/null || {
    echo 'systemd-socket-activate is not installed'
    exit 77
}
if [ -e /etc/gistd/gistd.conf ]; then
    echo "this machine has a gistd.conf of its own, which the daemon would read"
    exit 77
fi
XDG_CONFIG_HOME=$tmp/config
export XDG_CONFIG_HOME
# socket-activate passes little of the environment on.
activate() {
    rm -f "$GISTD_SOCKET"
    systemd-socket-activate -E XDG_CONFIG_HOME --seqpacket --listen="$GISTD_SOCKET" "$BUILD/gistd" "$@" 2>"$tmp/daemon.log" &
    daemon=$!
    check 'it listens' until_ok [ -S "$GISTD_SOCKET" ]
}
ended() {
    got=0
    wait "$daemon" || got=$?
    daemon=
    check "the daemon ends with $1 for a bad option, not $got" [ $got -eq "$1" ]
}

# No file at all: both places are named.
activate
code 'no config file' 3 "$gistctl" ask hello
says 'no model was named: write `model = FILE` with a GGUF file into ~/.config/gistd/gistd.conf or /etc/gistd/gistd.conf'
# It is still there for the next one, although it serves nobody.
code 'another client of the same daemon' 3 "$gistctl" status
says 'no model was named'
ended 2
check 'the log has the same sentence, once' [ "$(grep -c 'no model was named: write' "$tmp/daemon.log")" -eq 1 ]

# The file that lacks it. Several at once are all told.
mkdir -p "$XDG_CONFIG_HOME/gistd"
echo 'threads = 1' >"$XDG_CONFIG_HOME/gistd/gistd.conf"
activate
clients=
for i in 1 2 3 4; do
    "$gistctl" status >"$tmp/said.$i" 2>&1 &
    clients="$clients $!"
done
for pid in $clients; do wait "$pid" || true; done
for i in 1 2 3 4; do
    check "client $i knows which file" grep -q "into $XDG_CONFIG_HOME/gistd/gistd.conf, and try again" "$tmp/said.$i"
done
ended 2

# An option that is wrong: what it is stays in the log, since not all who connect may read the file.
echo 'threads = many' >"$XDG_CONFIG_HOME/gistd/gistd.conf"
activate
code 'a bad option' 3 "$gistctl" status
says 'an option of the daemon is wrong: its log says which'
ended 2
check 'the log says which' grep -q 'threads' "$tmp/daemon.log"

# Nobody is waiting: it ends at once, and says the sentence for who starts it by hand.
echo 'threads = 1' >"$XDG_CONFIG_HOME/gistd/gistd.conf"
code 'by hand' 2 "$BUILD/gistd"
says 'no model was named: start `gistd --model FILE`'
done_testing
