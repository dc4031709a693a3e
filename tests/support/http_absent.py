"""http_absent.py URL SOCKET - what requests are told while there is no daemon, and while one loads its model."""
import os
import socket
import struct
import sys
import threading

from http_client import Server, chat, check, done

s, path = Server(sys.argv[1]), sys.argv[2]
MAGIC, LOADING = b"gistd\r\n\x1a", 5
body = chat("Why?", max_tokens=2)

for where in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"):
    for stream in (False, True):
        more = {"input": "x", "stream": stream} if where == "/v1/responses" else {"prompt": "x", "stream": stream}
        status, headers, j = s.ask("POST", where, {**body, **more})
        text = j["error"] if where.startswith("/api") else j["error"]["message"]
        check(f"{where} without a daemon", status == 503 and headers["Retry-After"] and "gistd --model" in text, (status, j))
status, _, j = s.ask("GET", "/health")
check("/health without a daemon", status == 503, j)
check("/ needs none", s.ask("GET", "/")[0] == 200)


def serve(listener):
    while True:
        try:
            conn, _ = listener.accept()
        except OSError:
            return
        with conn:
            conn.recv(64)
            conn.send(struct.pack("<8sII3II224s", MAGIC, 1, LOADING, 0, 0, 0, 43, b""))
            conn.recv(64)


listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(8)
threading.Thread(target=serve, args=(listener,), daemon=True).start()
status, headers, j = s.ask("GET", "/health")
check("/health while the model is loaded", status == 503 and "43 %" in j["error"]["message"], (status, j))
status, headers, j = s.ask("POST", "/v1/chat/completions", body)
check("loading", status == 503 and headers["Retry-After"] == "2" and j["error"]["code"] == "model_loading", (status, j))
status, headers, j = s.ask("POST", "/v1/messages", body)
check("loading, for Anthropic's", status == 503 and j["error"]["type"] == "overloaded_error", (status, j))
os.unlink(path)
done()
