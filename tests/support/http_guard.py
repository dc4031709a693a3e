"""http_guard.py URL UNIX - keys, origins of pages, names of hosts; one request at a time, one model."""
import sys

from http_client import Server, chat, check, done

s = Server(sys.argv[1])
C, KEY = "/v1/chat/completions", "0123456789abcdef"
body = chat("Why?", max_tokens=2)
auth = {"Authorization": f"Bearer {KEY}"}


def status(path=C, method="POST", data=body, **headers):
    return s.ask(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})


st, headers, j = status()
check("no key", st == 401 and headers["WWW-Authenticate"] == "Bearer" and j["error"]["code"] == "invalid_api_key", (st, j))
check("no key, in Anthropic's words", status("/v1/messages")[2]["error"]["type"] == "authentication_error")
for wrong in ("", "x", KEY[:-1], KEY + "0", KEY.upper(), "0" * 300):
    check(f"a wrong key: {wrong!r}", status(Authorization="Bearer " + wrong)[0] == 401)
check("the key", status(Authorization="Bearer " + KEY)[0] == 200)
check("the key as Anthropic has it", status(x_api_key=KEY)[0] == 200)
check("/health needs none", status("/health", "GET", None)[0] == 200)
check("/v1/models does", status("/v1/models", "GET", None)[0] == 401)

for origin in ("http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:80", "https://page.example"):
    st, headers, _ = status(Origin=origin, **auth)
    check(f"pages of {origin} may ask", st == 200 and headers["Access-Control-Allow-Origin"] == origin, (st, origin))
for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "file://",
               "http://page.example", "https://page.example.evil.example", "http://localhost:80@evil.example"):
    st, headers, _ = status(Origin=origin, **auth)
    check(f"pages of {origin} may not", st == 403 and "Access-Control-Allow-Origin" not in headers, (st, origin))
st, headers, _ = status(method="OPTIONS", data=None, Origin="https://page.example", Access_Control_Request_Method="POST",
                        Access_Control_Request_Headers="authorization, content-type")
check("a page that asks whether it may", st == 204 and headers["Access-Control-Allow-Headers"]
      == "authorization, content-type" and "POST" in headers["Access-Control-Allow-Methods"], headers)
check("another one", status(method="OPTIONS", data=None, Origin="https://evil.example")[0] == 403)
check("no page is told of others", "Access-Control-Allow-Origin" not in status(**auth)[1])

for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:4478", "192.168.1.7:4478", "my.example", "my.example:99"):
    check(f"{host} is us", status(Host=host, **auth)[0] == 200, host)
for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4478", "my.example.evil", "localhost:x", "[::1",
             "evil.example:4478"):
    check(f"{host} is not", status(Host=host, **auth)[0] == 403, host)

model = status("/v1/models", "GET", None, **auth)[2]["data"][0]["id"]
check("the model by name", status(data={**body, "model": model}, **auth)[0] == 200)
check("as Ollama's clients name it", status(data={**body, "model": model + ":latest"}, **auth)[0] == 200)
st, _, j = status(data={**body, "model": "gpt-9"}, **auth)
check("another model", st == 404 and model in j["error"]["message"], (st, j))
st, _, j = status("/v1/embeddings", data={"input": "x", "model": "gpt-9"}, **auth)
check("for embeddings, too", st == 404 and model in j["error"]["message"], (st, j))
check("and ours", status("/v1/embeddings", data={"input": "x", "model": model + ":latest"}, **auth)[0] == 200)

# One request at a time: while a stream goes on others are told to come again.
sock = s.connect()
sock.sendall((f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 73\r\n\r\n"
              '{"prompt":"One","max_tokens":1000000, "stream": true, "ignore_eos": true}').encode())
seen = b""
while b"data:" not in seen:
    seen += sock.recv(4096)
st, headers, j = status(**auth)
check("too many at once", st == 429 and headers["Retry-After"] == "1" and "--max-requests" in j["error"]["message"], (st, j))
sock.close()
done()
