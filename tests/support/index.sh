# tests/support/index.sh - for shell tests: a package index of what $tmp/*.whl there are. Sourced behind daemon.sh. $server
# is its process, which the test ends ($server may be empty).

server=

# index CUTS: anew, at $url; the next CUTS downloads break off.
index() {
    [ -z "$server" ] || kill $server
    rm -f "$tmp/port"
    python3 tests/support/cut_index.py "$tmp/port" "$1" "$tmp"/*.whl >"$tmp/downloads" &
    server=$!
    while [ ! -e "$tmp/port" ] && kill -0 $server; do sleep 0.1; done
    url=http://127.0.0.1:$(cat "$tmp/port")/simple
}
