"""http_client.py - for tests of gist-http: requests by the standard library, checks that count."""
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse

WAIT_S = 120
checks = failures = 0


def check(what, ok, seen=""):
    global checks, failures
    checks += 1
    if not ok:
        failures += 1
        print(f"FAILED: {what}: {seen!r}"[:2000], flush=True)


def done():
    print(f"{checks} checks, {failures} failed")
    sys.exit(0 if checks and not failures else 1)


def until(what, look, holds=bool):
    """What look() has seen when it holds, or when it did not for too long, which is a failure."""
    end = time.monotonic() + WAIT_S
    while not holds(seen := look()):
        if time.monotonic() > end:
            check(what, False, seen)
            break
        time.sleep(0.02)
    return seen


def daemon_status():
    """What gistctl says of the daemon behind the server."""
    gistctl = os.path.join(os.environ["BUILD"], "gistctl")
    return json.loads(subprocess.run([gistctl, "status", "--json"], capture_output=True, check=True).stdout)


def first(evs, name):
    """The first event of that name, in a list of them."""
    return next((j for e, j in evs if e == name), None)


class Server:
    def __init__(self, url):
        u = urllib.parse.urlparse(url)
        self.host, self.port = u.hostname, u.port

    def ask(self, method, path, body=None, headers=None):
        """status, headers, body (JSON where it is that)"""
        c = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        c.request(method, path, data, headers or {})
        r = c.getresponse()
        raw = r.read()
        c.close()
        try:
            value = json.loads(raw)
        except ValueError:
            value = raw
        return r.status, r.headers, value

    def post(self, path, **body):
        return self.ask("POST", path, body)

    def connect(self):
        s = socket.create_connection((self.host, self.port), timeout=WAIT_S)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def send(self, path, body):
        """A POST on a socket of its own, whose answer is left to the caller."""
        s, data = self.connect(), json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        s.sendall(head.encode() + data)
        return s

    def events(self, path, **body):
        """(event, JSON or text) of a stream; comments are events named ':'."""
        return self.stream("POST", path, {**body, "stream": True})

    def stream(self, method, path, body=None, headers=None):
        """As events(); who is told to come again does."""
        end = time.monotonic() + WAIT_S
        while True:
            c = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
            c.request(method, path, json.dumps(body) if body else None, headers or {})
            r = c.getresponse()
            if r.status != 429 or time.monotonic() > end:
                break
            c.close()
            time.sleep(0.02)
        check(f"{path} streams events", r.status == 200 and r.headers["Content-Type"] == "text/event-stream", r.status)
        event = None
        try:
            for line in r:
                line = line.decode().rstrip("\n")
                if line.startswith(":"):
                    yield ":", line[1:].strip()
                elif line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: "):
                    data = line[6:]
                    yield event, data if data == "[DONE]" else json.loads(data)
                    event = None
        finally:  # also of who has heard enough
            r.close()
            c.close()


def chat(*texts, **more):
    roles = ["user", "assistant"]
    return {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(texts)], "temperature": 0, **more}
