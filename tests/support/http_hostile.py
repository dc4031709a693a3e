"""http_hostile.py URL UNIX - bytes that no client sends. The server refuses, or closes; it serves the others."""
import json
import socket
import sys
import threading
import time

from http_client import WAIT_S, Server, chat, check, done

s, unix = Server(sys.argv[1]), sys.argv[2]
C = "/v1/chat/completions"
good = json.dumps(chat("Why?", max_tokens=2)).encode()


def head(path=C, length=None, method="POST", more=""):
    length = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{more}\r\n".encode()


def raw(data, shut=False):
    """All that is answered to these bytes, until the server closes or is silent for long."""
    sock, got = s.connect(), b""
    try:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(65536):
            got += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    except socket.timeout:
        got += b"TIMEOUT"
    sock.close()
    return got


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def refused(what, data, statuses, shut=False):
    answer = raw(data, shut)
    check(what, b"TIMEOUT" not in answer and status_of(answer) in statuses, answer[:300])


bye = "Connection: close\r\n"
post = lambda body, more=bye: head(C, len(body), more=more) + body

check("a good request", status_of(raw(post(good))) == 200)
refused("noise", bytes(range(256)) * 4 + b"\r\n\r\n", (0, 400, 505))
refused("no HTTP at all", b"hello\r\n\r\n", (0, 400, 505))
refused("a huge header", head(C, 2, more="X: " + "a" * 200_000 + "\r\n") + b"{}", (0, 400, 413, 431))
refused("many headers", head(C, 2, more="".join(f"X-{i}: y\r\n" for i in range(20000))) + b"{}", (0, 400, 413, 431))
refused("a huge path", head("/" + "a" * 200_000, method="GET"), (0, 400, 404, 413, 414))
refused("no length that is one", head(C, "many") + good, (0, 400))
refused("a negative length", head(C, -5) + good, (0, 400))
refused("a length beyond 64 bits", head(C, 10**30) + good, (0, 400, 413))
refused("a body that is cut", head(C, len(good) + 100) + good, (0, 400), shut=True)
refused("a body that is longer than said", post(good[:-1]) + good, (400,))
refused("a body that is too long", post(b'{"a": "' + b"x" * (3 << 20) + b'"}'), (413,))
refused("chunks that are none", head(C, None, more="Transfer-Encoding: chunked\r\n") + b"zz\r\n{}\r\n0\r\n\r\n", (0, 400))
chunks = b"".join(b"%x\r\n%s\r\n" % (1, good[i:i + 1]) for i in range(len(good))) + b"0\r\n\r\n"
check("chunks of a byte", status_of(raw(head(C, None, more="Transfer-Encoding: chunked\r\n" + bye) + chunks)) == 200)
refused("deep JSON", post(b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), (400,))
refused("deep objects", post(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), (400,))
refused("bytes that are no UTF-8", post(b'{"messages":[{"role":"user","content":"\xff\xfe\xc0\x80"}]}'), (400,))
refused("half a character", post(b'{"messages":[{"role":"user","content":"\xe2\x82"}]}'), (400,))
refused("half a pair, which may be read as U+FFFD", post(b'{"messages":[{"role":"user","content":"\\ud800"}]}'), (200, 400))
refused("a number beyond all", post(b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1e999}'), (400,))
refused("an integer beyond all, which may be the largest", post(b'{"messages":[{"role":"user","content":"x"}],"seed":99999999999999999999}'), (200, 400))
refused("an escape in a refusal", post('{"messages":[{"role":"\u001b[2J\u009b","content":"x"}]}'.encode()), (400,))
refused("a path with a NUL", head("/v1/%00models", method="GET", more=bye), (400, 404))

# Two requests in one write: both are answered, in order.
answers = raw(head("/health", method="GET") + post(good))
check("pipelining", answers.count(b"HTTP/1.1 200") == 2 and answers.index(b'"ok"') < answers.index(b"chat.completion"),
      answers[:600])
check("a client that shuts its side only", b"HTTP" in raw(head("/health", method="GET", more=bye), shut=True))
sock = socket.socket(socket.AF_UNIX)
sock.connect(unix)
sock.settimeout(WAIT_S)
sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: any.thing.example\r\nConnection: close\r\n\r\n")
check("the Unix socket has no names to check", sock.recv(65536).startswith(b"HTTP/1.1 200"))
sock.close()


# Who sends a byte now and then is never silent; there is an end to it all the same (--request-timeout 5).
def slowly(data, results):
    sock, t0 = s.connect(), time.monotonic()
    sock.settimeout(0.3)
    for byte in data * 1000:
        try:
            sock.sendall(bytes([byte]))
            if sock.recv(4096) == b"":
                break
        except socket.timeout:
            continue
        except OSError:
            break
        if time.monotonic() - t0 > WAIT_S:
            results.append(False)
            return
    results.append(True)


results, slow = [], []
for data in (b"a", head(C, 1000)[:40], b"X: y\r\n"):
    for _ in range(4):
        slow.append(threading.Thread(target=slowly, args=(data, results)))
for t in slow:
    t.start()
check("others are served meanwhile", s.post(C, **chat("Why?", max_tokens=2))[0] == 200)
for t in slow:
    t.join()
check("slow senders are closed", results == [True] * len(slow), results)
socks = [s.connect() for _ in range(40)]
check("and silent ones wait for nobody", s.post(C, **chat("Why?", max_tokens=2))[0] == 200)
for x in socks:
    x.close()
done()
