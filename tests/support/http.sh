# tests/support/http.sh - for shell tests: a gist-http of the test's own. Sourced behind daemon.sh.

http=$BUILD/gist-http
http_pid=

http_finish() {
    rc=$?
    [ -z "$http_pid" ] || kill -9 "$http_pid" 2>/dev/null || true
    set +e
    (exit $rc)
    finish
}
trap http_finish EXIT

# http_start [OPTION]...: on a port of its own, which $port says, and on $tmp/http.sock.
http_start() {
    "$http" --config /dev/null --socket "$GISTD_SOCKET" --listen 127.0.0.1:0 --unix "$tmp/http.sock" "$@" >"$tmp/http.log" 2>&1 &
    http_pid=$!
    tries=600 port=
    until [ -n "$port" ]; do
        tries=$((tries - 1))
        if [ $tries -eq 0 ] || ! kill -0 $http_pid 2>/dev/null; then
            echo "gist-http does not serve:"
            cat "$tmp/http.log"
            exit 1
        fi
        sleep 0.1
        port=$(sed -n 's|.*serving HTTP on http://127.0.0.1:\([0-9]*\).*|\1|p' "$tmp/http.log")
    done
    url=http://127.0.0.1:$port
}

# SIGTERM; its exit code must be 0 (a sanitizer's complaint is not).
http_stop() {
    kill "$http_pid"
    rc=0
    wait "$http_pid" || rc=$?
    http_pid=
    check "gist-http ends cleanly" [ $rc -eq 0 ]
    [ $rc -eq 0 ] || cat "$tmp/http.log"
}
