# tests/support/daemon.sh - for shell tests: a daemon of the test's own, and checks that count.
# Sourced with $BUILD set, from the repository's root. Leaves nothing behind.

tmp=$(mktemp -d)
GISTD_SOCKET=$tmp/gistd.sock
XDG_STATE_HOME=$tmp/state
GISTD_STORE=$tmp/store
GISTD_WEIGHT_CACHE=none
export GISTD_SOCKET XDG_STATE_HOME GISTD_STORE GISTD_WEIGHT_CACHE
unset XDG_RUNTIME_DIR
gistctl=$BUILD/gistctl
# Who computes (tests/support/daemon_fixture.h).
gistd_name=gistd
case ${GISTD_TEST_BACKEND:-} in
'' | cpu) ;;
fenced) gistd_name=tests/gistd_fenced ;;
cuda) export GISTD_DEVICE=cuda:0 ;;
*) export GISTD_DEVICE="$GISTD_TEST_BACKEND" ;;
esac
daemon=
failures=0
checks=0

finish() {
    rc=$?
    trap - EXIT
    [ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null || true
    rm -rf "$tmp"
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT TERM

# daemon_start MODEL [OPTION]...: until it serves.
daemon_start() {
    "$BUILD/$gistd_name" --socket "$GISTD_SOCKET" --kv-bytes 256M --model "$@" >"$tmp/daemon.log" 2>&1 &
    daemon=$!
    tries=600
    until "$gistctl" status >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! kill -0 $daemon 2>/dev/null; then
            echo "the daemon does not serve:"
            cat "$tmp/daemon.log"
            exit 1
        fi
        sleep 0.1
    done
}

# SIGTERM; its exit code must be 0 (a sanitizer's complaint is not).
daemon_stop() {
    kill "$daemon"
    rc=0
    wait "$daemon" || rc=$?
    daemon=
    check "the daemon ends cleanly" [ $rc -eq 0 ]
    [ $rc -eq 0 ] || cat "$tmp/daemon.log"
    check "its sandbox denied it nothing" sh -c "! grep 'the sandbox denied' '$tmp/daemon.log'"
}

# check WHAT COMMAND...: the command succeeds.
check() {
    what=$1
    shift
    checks=$((checks + 1))
    if ! "$@" >"$tmp/check.log" 2>&1; then
        failures=$((failures + 1))
        echo "FAILED: $what"
        echo "    $*"
        sed 's/^/    | /' "$tmp/check.log"
    fi
}

# until_ok COMMAND...: it succeeds at last: within a minute, on a machine that is not busy.
until_ok() {
    tries=600
    until "$@" >"$tmp/until" 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || {
            cat "$tmp/until"
            return 1
        }
        sleep 0.1
    done
}

# code WHAT N COMMAND...: the command ends with exit code N. Its output stays in $tmp/out and $tmp/err.
code() {
    what=$1 want=$2
    shift 2
    checks=$((checks + 1))
    got=0
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    if [ $got -ne "$want" ]; then
        failures=$((failures + 1))
        echo "FAILED: $what: exit code $got, not $want"
        echo "    $*"
        sed 's/^/    | /' "$tmp/out" "$tmp/err"
    fi
}

# says TEXT: what the last `code` printed to stderr holds TEXT, in one line.
says() {
    check "stderr says '$1'" grep -q -F -e "$1" "$tmp/err"
}

# json EXPRESSION: of the object j on stdin, in Python.
json() {
    python3 -c '
import json, math, sys
j = json.load(sys.stdin)
sys.exit(0 if eval(sys.argv[1]) else f"not so: {sys.argv[1]}")' "$1"
}

done_testing() {
    echo "$checks checks, $failures failed"
    [ $failures -eq 0 ]
}
