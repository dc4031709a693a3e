"""metrics.py SOCKET [UID] - reads GET /metrics of a Unix socket, as that user, and parses it as strictly as the format
asks: by prometheus_client, and by rules that it does not check. Prints a line `NAME{LABELS} VALUE` for each sample.

metrics.py SOCKET --wrong: what is no such request is refused, and the socket goes on.
"""
import os
import re
import socket
import sys

from prometheus_client.parser import text_string_to_metric_families


def ask(request, path, half_close=False):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)  # it waits its turn, which a socket with a time limit does not
        s.settimeout(60)
        s.sendall(request)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        got = b""
        while True:
            more = s.recv(65536)
            if not more:
                return got
            got += more


def split(got):
    head, body = got.split(b"\r\n\r\n", 1)
    status, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return status, headers, body


def samples(path):
    status, headers, body = split(ask(b"GET /metrics HTTP/1.0\r\n\r\n", path, half_close=True))
    assert status == "HTTP/1.0 200 OK", status
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", headers
    assert int(headers["Content-Length"]) == len(body), headers
    text = body.decode("utf-8")
    assert text.endswith("\n")
    seen, families = set(), list(text_string_to_metric_families(text))
    for f in families:
        assert f.name not in seen, f"{f.name} stands twice"
        seen.add(f.name)
        assert re.fullmatch(r"gistd_[a-z_]+", f.name) and f.documentation and f.type != "unknown", f
        rows = [(s.name, tuple(sorted(s.labels.items()))) for s in f.samples]
        assert len(rows) == len(set(rows)), f"{f.name} has a row twice"
        for s in f.samples:
            assert s.name.startswith("gistd_") and s.value >= 0, s
            assert f.type != "counter" or s.name.endswith("_total"), s
        if f.type == "histogram":
            check_histogram(f)
    # Every line is a comment of a known kind or a sample; each HELP is followed by its TYPE.
    lines = text.splitlines()
    for i, line in enumerate(lines):
        assert re.fullmatch(r'# (HELP|TYPE) gistd_\w+ .+|gistd_\w+(\{[^{}]*\})? [0-9.e+-]+', line), line
        if line.startswith("# HELP"):
            assert lines[i + 1].startswith(f"# TYPE {line.split()[2]} "), line
    return families


def check_histogram(f):
    series = {}
    for s in f.samples:
        labels = {k: v for k, v in s.labels.items() if k != "le"}
        series.setdefault(tuple(sorted(labels.items())), []).append(s)
    for rows in series.values():
        buckets = [(float(s.labels["le"]), s.value) for s in rows if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf"), rows
        assert all(a[1] <= b[1] for a, b in zip(buckets, buckets[1:])), rows
        count = [s.value for s in rows if s.name.endswith("_count")]
        total = [s.value for s in rows if s.name.endswith("_sum")]
        assert count == [buckets[-1][1]] and len(total) == 1, rows
        assert (count[0] == 0) == (total[0] == 0), rows


def ended(s):
    """It was closed, whether or not all that we sent had been read."""
    s.settimeout(60)
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def wrong(path):
    for request, status in [
        (b"GET / HTTP/1.0\r\n\r\n", "404"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.0\r\n\r\n", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"hello\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", "400"),
        (b"GET /me\0trics HTTP/1.0\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.0\r\nX: " + b"x" * 8000 + b"\r\n\r\n", "431"),
    ]:
        try:
            got, headers, body = split(ask(request, path))
            assert got.split()[1] == status and len(body) == int(headers["Content-Length"]), (request, got)
        except (ConnectionResetError, BrokenPipeError):
            assert status == "431", request  # what it did not read is lost
    status, headers, body = split(ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", path))
    assert status.endswith("200 OK") and body == b"" and int(headers["Content-Length"]) > 100
    # Those who say nothing keep nobody out.
    silent = []
    for _ in range(20):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(b"GET ")
        silent.append(s)
    samples(path)
    assert ended(silent[-1])
    samples(path)


if sys.argv[2:] == ["--wrong"]:
    wrong(sys.argv[1])
else:
    if len(sys.argv) > 2:
        os.setgid(int(sys.argv[2]))
        os.setuid(int(sys.argv[2]))
    for family in samples(sys.argv[1]):
        for s in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(s.labels.items()))
            print(f"{s.name}{{{labels}}} {s.value:g}" if labels else f"{s.name} {s.value:g}")
