#!/bin/sh
# tests/test_units.sh - the systemd units. Would catch: a unit that systemd does not accept, one that lost its
# hardening, a daemon that does not take its socket from the service manager or does not start with the
# first connection. Prints the exposure score.
set -eu
BUILD=${BUILD:-build/release}
for tool in systemd-analyze systemd-socket-activate; do
    command -v $tool >/dev/null || {
        echo "$tool is not installed"
        exit 77
    }
done
tmp=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$tmp"' EXIT
here=$(pwd)

# Units as they will be installed, but with the program and the configuration of this build, and with a
# user that this machine has.
mkdir "$tmp/system" "$tmp/user"
for unit in system/gistd.service system/gistd.socket user/gistd.service user/gistd.socket \
    system/gist-http.service system/gist-http.socket user/gist-http.service user/gist-http.socket \
    system/gist-dbus.service user/gist-dbus.service; do
    sed -e "s|/usr/bin/gist|$here/$BUILD/gist|" -e 's|^User=gist.*|User=daemon|' \
        -e 's|Group\(s*\)=gist.*|Group\1=daemon|' \
        "systemd/${unit#system/}" >"$tmp/$unit"
done

# Man pages are not installed yet where this runs.
verify() {
    systemd-analyze verify --man=no "$@" 2>"$tmp/verify" || {
        cat "$tmp/verify"
        exit 1
    }
    if grep gist "$tmp/verify"; then
        echo "systemd-analyze verify complains"
        exit 1
    fi
}
verify "$tmp"/system/gistd.service "$tmp"/system/gistd.socket "$tmp"/system/gist-http.service "$tmp"/system/gist-http.socket \
    "$tmp"/system/gist-dbus.service
# And with what lets it use GPUs.
mkdir -p "$tmp/gpu/gistd.service.d"
cp "$tmp/system/gistd.service" "$tmp/system/gistd.socket" "$tmp/gpu/"
cp systemd/gistd.service.d/*.conf "$tmp/gpu/gistd.service.d/"
SYSTEMD_UNIT_PATH="$tmp/gpu:" verify "$tmp/gpu/gistd.service"
export XDG_RUNTIME_DIR="$tmp"
verify --user "$tmp"/user/gistd.service "$tmp"/user/gistd.socket "$tmp"/user/gist-http.service "$tmp"/user/gist-http.socket \
    "$tmp"/user/gist-dbus.service

# 2.0 of 10: anything above means that a line of the hardening went missing.
for unit in gistd gist-http gist-dbus; do
    systemd-analyze security --offline=true --threshold=20 "$tmp/system/$unit.service" >"$tmp/security" || {
        cat "$tmp/security"
        exit 1
    }
    grep 'Overall exposure' "$tmp/security"
done

# Bounds, so that what is asked of the daemon can't take the machine; the sandbox of its own can be entered.
for unit in system/gistd.service user/gistd.service; do
    for line in '^MemoryMax=[0-9]*%$' '^TasksMax=[0-9]*$' '^NoNewPrivileges=yes$' \
        '^SystemCallFilter=.*seccomp.*landlock_restrict_self'; do
        grep -q "$line" "$tmp/$unit" || {
            echo "$unit lacks $line"
            exit 1
        }
    done
done

for conf in sysusers.d tmpfiles.d; do
    tool=systemd-${conf%.d}
    command -v "$tool" >/dev/null || continue
    "$tool" --cat-config "$here/systemd/$conf/gistd.conf" >/dev/null
done

# The daemon starts with the first connection, on a socket that is not its own.
systemd-socket-activate --seqpacket --listen="$tmp/activated.sock" "$BUILD/gistd" \
    --model tests/data/tiny_smollm2.gguf --kv-bytes 1M --threads 1 --store none 2>"$tmp/log" &
pid=$!
tries=600
until [ -S "$tmp/activated.sock" ] || [ $tries -eq 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
if grep -q Serving "$tmp/log"; then
    echo "the daemon started before anybody connected"
    exit 1
fi
# status alone would not wait for the model.
{ echo hello | timeout 60 "$BUILD/gistctl" --socket "$tmp/activated.sock" tokenize &&
    timeout 60 "$BUILD/gistctl" --socket "$tmp/activated.sock" status; } >"$tmp/status" || {
    cat "$tmp/status" "$tmp/log"
    exit 1
}
grep -q 'sandbox: ' "$tmp/log" && ! grep 'the sandbox denied' "$tmp/log" || {
    cat "$tmp/log"
    exit 1
}
grep -q 'Serving .* on .*activated.sock' "$tmp/log" || {
    cat "$tmp/log"
    exit 1
}
kill $pid
rc=0
wait $pid || rc=$?
pid=
[ $rc -eq 0 ] || {
    echo "the daemon ended with $rc"
    cat "$tmp/log"
    exit 1
}
# The socket is the service manager's, which will use it again.
[ -S "$tmp/activated.sock" ] || {
    echo "the daemon removed a socket that it was handed"
    exit 1
}

# gist-http on two sockets that it was passed, a port and a Unix socket. It needs no daemon to start.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
GISTD_SOCKET="$tmp/none.sock" systemd-socket-activate --listen="127.0.0.1:$port" --listen="$tmp/http.sock" \
    "$BUILD/gist-http" --config /dev/null --listen "127.0.0.1:1" 2>"$tmp/log" &
pid=$!
tries=600
until [ -S "$tmp/http.sock" ] || [ $tries -eq 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
python3 -c '
import socket, sys
def get(s, to):
    s.settimeout(60)
    s.connect(to)
    s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return b"gist-http is running" in s.makefile("rb").read()
both = [get(socket.socket(), ("127.0.0.1", int(sys.argv[1]))), get(socket.socket(socket.AF_UNIX), sys.argv[2])]
sys.exit(0 if all(both) else str(both))' "$port" "$tmp/http.sock" || {
    cat "$tmp/log"
    exit 1
}
kill $pid
rc=0
wait $pid || rc=$?
pid=
if [ $rc -ne 0 ] || [ ! -S "$tmp/http.sock" ]; then
    echo "gist-http ended with $rc, or removed a socket that it was handed"
    cat "$tmp/log"
    exit 1
fi
echo "units are accepted, socket activation works"
