#!/bin/sh
# tests/test_dbus.sh - who uses the model, on D-Bus. Would catch: a state or number that is not gistd's, or stays when
# it changes; a change that is not told; sessions of another user that are shown, or can be cancelled; a gist-dbus that
# needs a daemon, or ends with it; two of them on one bus.
set -eu
BUILD=${BUILD:-build/release}
for tool in dbus-daemon busctl setpriv; do
    command -v $tool >/dev/null || {
        echo "$tool is not installed"
        exit 77
    }
done
. tests/support/daemon.sh
chmod 711 "$tmp"
mkdir "$tmp/bus"
chmod 755 "$tmp/bus"

# A system's bus of the test's own, with the policy that is installed, but for the user's name.
sed "s/user=\"gistd\"/user=\"$(id -un)\"/" systemd/dbus-1/org.gistd.Manager1.conf >"$tmp/bus/policy.conf"
cat >"$tmp/bus/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=$tmp/bus/socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>$tmp/bus/policy.conf</include>
</busconfig>
END
bus= server= monitor=
dbus-daemon --config-file="$tmp/bus/bus.conf" --nofork --nopidfile >"$tmp/bus.log" 2>&1 &
bus=$!
trap 'rc=$?; for pid in $server $bus $monitor; do kill "$pid" 2>/dev/null || true; done; (exit $rc); finish' EXIT
DBUS_SYSTEM_BUS_ADDRESS=unix:path=$tmp/bus/socket
export DBUS_SYSTEM_BUS_ADDRESS

ask() {
    busctl --system "$@"
}
get() {
    ask get-property org.gistd.Manager1 /org/gistd/Manager1 org.gistd.Manager1 "$1"
}
call() {
    ask call org.gistd.Manager1 /org/gistd/Manager1 org.gistd.Manager1 "$@"
}
is() {
    [ "$(get "$1")" = "$2" ]
}

until_ok [ -S "$tmp/bus/socket" ]
"$BUILD/gist-dbus" --bus system --interval 1 >"$tmp/server.log" 2>&1 &
server=$!
check 'it serves without a daemon' until_ok is State 's "stopped"'
check 'and knows no model' is Model 's ""'
code 'no daemon, no cancel' 1 call Cancel t 1
check 'which it says' grep -q 'does not serve' "$tmp/err"
code 'a second one on the bus' 3 timeout 60 "$BUILD/gist-dbus" --bus system
check 'says whose name it is' grep -q 'another program serves' "$tmp/err"
code 'a wrong option' 2 "$BUILD/gist-dbus" --bus nowhere

ask monitor org.gistd.Manager1 >"$tmp/monitor" 2>&1 &
monitor=$!
daemon_start tests/data/tiny_smollm2.gguf --kv-bytes 16M --threads 1 --socket-mode 0666
check 'it finds one' until_ok is State 's "serving"'
check 'its model' is Model 's "tiny random smollm2"'
check 'its memory' sh -c "[ '$(get ContextMemory)' != 't 0' ]"
check 'no client is no client' until_ok is Clients 'u 0' # that which has found it served may still be known
code 'nobody' 0 call ListClients
check 'is an empty list' grep -qx 'a(tuusut) 0' "$tmp/out"

seq 1 15000 >"$tmp/long"
"$gistctl" ask -n 1 -f "$tmp/long" Why >"$tmp/answer" 2>&1 &
asking=$!
sessions() {
    call ListSessions >"$tmp/sessions"
    grep -q "^a(ttusuts) 1 .*\"\(append\|generate\)\"$" "$tmp/sessions"
}
check 'a session at work' until_ok sessions
check 'whose it is' sh -c "[ \"\$(cut -d' ' -f5 '$tmp/sessions')\" = $(id -u) ]"
code 'its client' 0 call ListClients
check 'by name' grep -q '^a(tuusut) 1 .*"gistctl" 1 ' "$tmp/out"
session=$(cut -d' ' -f3 "$tmp/sessions")

# Another user asks, who has none. One that the bus finds in the list of users.
if [ "$(id -u)" -eq 0 ]; then
    other() {
        setpriv --reuid daemon --regid daemon --clear-groups busctl --system call org.gistd.Manager1 \
            /org/gistd/Manager1 org.gistd.Manager1 "$@"
    }
    code 'another user may ask' 0 other ListSessions
    check 'but sees no session' grep -qx 'a(ttusuts) 0' "$tmp/out"
    code 'nor' 0 other ListClients
    check 'a client' grep -qx 'a(tuusut) 0' "$tmp/out"
    code 'and may cancel none' 1 other Cancel t "$session"
    check 'as if there was none' grep -q 'no session' "$tmp/err"
fi
code 'cancel' 0 call Cancel t "$session"
wait $asking || true
code 'once' 1 call Cancel t "$session"
check 'it is gone' until_ok is Sessions 'u 0'
daemon_stop
check 'the daemon is gone' until_ok is State 's "stopped"'
check 'and its model' is Model 's ""'
check 'changes are told' until_ok grep -q 'Member=PropertiesChanged' "$tmp/monitor"
check 'with names' grep -q '"State"' "$tmp/monitor"
check 'and sessions' grep -q 'Member=SessionsChanged' "$tmp/monitor"
kill $server
rc=0
wait $server || rc=$?
server=
check 'it ends by a signal, cleanly' [ $rc -eq 0 ]
done_testing
