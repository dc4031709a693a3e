"""http_live_guard.py URL - sessions of another key, the page without one, pages from elsewhere."""
import sys

from http_client import Server, check, done

s = Server(sys.argv[1])
ONE, TWO = ({"Authorization": f"Bearer {k}"} for k in ("0123456789abcdef", "fedcba9876543210"))


def turn(headers, **more):
    return s.ask("POST", "/gist/v1/chat", {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 2, **more}, headers)


def ids(headers):
    return [x["id"] for x in s.ask("GET", "/gist/v1/sessions", headers=headers)[2]["sessions"]]


st, _, raw = turn(ONE)
check("a turn", st == 200, raw)
rows = s.ask("GET", "/gist/v1/sessions", headers=ONE)[2]["sessions"]
check("one's own", len(rows) == 1, rows)
sid = rows[0]["id"]
check("are not another's", s.ask("GET", "/gist/v1/sessions", headers=TWO)[2] == {"sessions": []})
for method, path in (("GET", ""), ("GET", "/memory"), ("POST", "/stop"), ("DELETE", "")):
    check(f"nor {method} {path}", s.ask(method, f"/gist/v1/sessions/{sid}{path}", headers=TWO)[0] == 404)
st, _, j = s.ask("POST", f"/gist/v1/sessions/{sid}", {"title": "Mine"}, TWO)
check("nor its name", st == 404, (st, j))
st, _, j = turn(TWO, session=sid, turns=1)
check("nor a turn", st == 404 and j["error"]["code"] == "session_gone", (st, j))
check("it is as it was", s.ask("GET", f"/gist/v1/sessions/{sid}", headers=ONE)[2]["turns"] == 1)
for method, path in (("POST", "chat"), ("GET", "sessions"), ("GET", f"sessions/{sid}"), ("GET", "memory"), ("DELETE", f"sessions/{sid}")):
    st, _, j = s.ask(method, f"/gist/v1/{path}", {} if method == "POST" else None)
    check(f"without a key: {method} {path}", st == 401 and j["error"]["code"] == "invalid_api_key", (st, j))
    st, _, _ = s.ask(method, f"/gist/v1/{path}", {} if method == "POST" else None, {**ONE, "Origin": "https://evil.example"})
    check(f"for another page: {method} {path}", st == 403, st)
here = {"Host": "my.example:4478", "Origin": "http://my.example:4478"}
check("our own page by our name", turn({**ONE, **here})[0] == 200)
check("not by another port", turn({**ONE, **here, "Origin": "http://my.example:1"})[0] == 403)
check("nor under another name", turn({**ONE, "Host": "evil.example", "Origin": "http://evil.example"})[0] == 403)

# What one key has read another can't tell from the cache; nor by asking again does it find its own less.
text = "The sea, the wind and the waves. " * 30


def known(headers):
    """Whether it was not read now; what its template begins with any chat has."""
    u = s.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 1}, headers)[2]["usage"]
    return u["prompt_tokens_details"]["cached_tokens"] > u["prompt_tokens"] // 2


check("a text is new", not known(ONE))
check("its key knows it", known(ONE))
check("another does not", not known(TWO))
check("before it has read it, too", known(TWO))

# Three places (--live-sessions 3): one key's many do not end the only one of another.
for sid in ids(ONE) + ids(TWO):
    owner = ONE if sid in ids(ONE) else TWO
    s.ask("DELETE", f"/gist/v1/sessions/{sid}", headers=owner)
turn(ONE)
mine = ids(ONE)
for i in range(4):
    check(f"a place for another: {i}", turn(TWO)[0] == 200)
check("who has one keeps it", ids(ONE) == mine, (ids(ONE), mine))
check("who wants more has the rest", len(ids(TWO)) == 2, ids(TWO))
newest = ids(TWO)
turn(ONE)
check("who has less gets a place of who has more", len(ids(ONE)) == 2 and ids(TWO) == newest[:1], (ids(TWO), newest))

st, h, _ = s.ask("GET", "/", headers={"Accept": "text/html"})
check("the page needs no key", st == 200 and h["Content-Type"] == "text/html; charset=utf-8", st)
done()
