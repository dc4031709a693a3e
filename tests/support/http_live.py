"""http_live.py URL [DAEMON_PID] - the page's own API, /gist/v1: turns of sessions that stay, their memory, stopping them."""
import json
import random
import sys

from http_client import Server, check, done, first, until

s = Server(sys.argv[1])
LONG = dict(ignore_eos=True, max_tokens=1000000)


def turn(text, **more):
    return list(events(text, **more))


def events(text, **more):
    messages = [{"role": "user", "content": t} for t in ([text] if isinstance(text, str) else text)]
    return s.events("/gist/v1/chat", messages=messages, temperature=0, **{"max_tokens": 8, **more})


def last(evs, name):
    return first(reversed(evs), name)


def adds_up(what, m):
    seg = m["segments"]
    check(f"{what}: tokens add up", sum(x["tokens"] for x in seg) == m["tokens"], m)
    check(f"{what}: keys add up", sum(x["keys"] for x in seg) == m["keys"] <= m["budget"], m)
    check(f"{what}: states", {x["state"] for x in seg} <= {"raw", "gists", "hydrated"}, m)


# A turn, and another one behind it.
a = turn("Why is the sky blue?", title="The sky")
sid = first(a, "session")["id"]
check("the order", [e for e, _ in a if e in ("session", "read", "done")] == ["session", "read", "done"], [e for e, _ in a])
check("a text", "".join(j["text"] for e, j in a if e == "text") != "")
check("done", last(a, "done")["reason"] == "length" and last(a, "done")["turns"] == 1 and last(a, "done")["tokens"] == 8, a[-1])
adds_up("one turn", last(a, "memory"))
b = turn("And at night?", session=sid, turns=1)
check("the same session", first(b, "session") == {"id": sid, "turns": 1, "model": first(a, "session")["model"]}, b[0])
read = first(b, "read")
check("only what is new is read", 0 < read["computed"] <= 40 and read["shared"] == 0 and read["tokens"] > read["computed"], read)
check("two turns", last(b, "done")["turns"] == 2)

# What is said about it.
st, _, j = s.ask("GET", "/gist/v1/sessions")
check("it is listed", st == 200 and [(x["id"], x["title"], x["turns"], x["busy"]) for x in j["sessions"]] == [(sid, "The sky", 2, False)], j)
st, _, j = s.ask("GET", f"/gist/v1/sessions/{sid}/memory")
check("its memory", st == 200 and j["tokens"] >= last(b, "memory")["tokens"], j)
adds_up("asked for", j)
st, _, j = s.post(f"/gist/v1/sessions/{sid}", title="Blue <b>")
check("renamed", st == 200 and j["title"] == "Blue <b>", j)
st, _, j = s.ask("GET", f"/gist/v1/sessions/{sid}")
check("it has the name", j["title"] == "Blue <b>", j)
st, _, j = s.ask("GET", "/gist/v1/memory")
check("the daemon's memory", st == 200 and j["pages"] > j["pages_free"] and j["context"] > 0 and "on" in j["store"], j)
for what, method, path, body in (("no title", "POST", sid, {}), ("a long one", "POST", sid, {"title": "x" * 128}),
                                 ("a number", "POST", sid, {"title": 5})):
    st, _, j = s.ask(method, f"/gist/v1/sessions/{path}", body)
    check(f"{what} is refused", st == 400 and "title" in j["error"]["message"], (st, j))
for method, path in (("GET", "nobody"), ("GET", "nobody/memory"), ("DELETE", "nobody"), ("POST", "nobody/stop")):
    st, _, j = s.ask(method, f"/gist/v1/sessions/{path}")
    check(f"{method} {path}", st == 404 and j["error"]["code"] == "session_gone", (st, j))
check("another path", s.ask("GET", f"/gist/v1/sessions/{sid}/soul")[0] == 404)
for what, body in (("two answers", {"n": 2}), ("log-probabilities", {"logprobs": True}), ("no number of turns", {"turns": "1"}),
                   ("a long title", {"title": "x" * 128})):
    st, _, j = s.post("/gist/v1/chat", messages=[{"role": "user", "content": "x"}], **body)
    check(f"{what} is refused", st == 400 and j["error"]["message"], (st, j))

# Another program went on with it, or this one has missed something: it is no use any more.
st, _, j = s.post("/gist/v1/chat", messages=[{"role": "user", "content": "x"}], session=sid, turns=1)
check("other turns", st == 404 and j["error"]["code"] == "session_gone", (st, j))
check("it is gone", s.ask("GET", "/gist/v1/sessions")[2]["sessions"] == [])
c = turn(["Why is the sky blue?", "And at night?"])
check("sent whole it is a new one", first(c, "session")["id"] != sid and first(c, "read")["shared"] > 0, c[:4])
s.ask("DELETE", f"/gist/v1/sessions/{first(c, 'session')['id']}")

# A text that is too long for its budget: gists, and what a question points to comes back.
random.seed(3)
words = ["".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6)) for _ in range(400)]
text = " ".join(words)
few = {"gistd": {"budget": 1024}}
d = turn(text, answer=False, **few)
sid = first(d, "session")["id"]
check("read, not answered", last(d, "done")["reason"] == "read" and first(d, "text") is None, d[-1])
check("how far it was", any(e == "reading" and j["of"] >= j["read"] for e, j in d), [e for e, _ in d])
m = last(d, "memory")
adds_up("a long text", m)
check("gists", m["budget"] == 1024 < m["tokens"] and any(x["state"] == "gists" and x["ratio"] >= 4 for x in m["segments"]), m)
e = turn(" ".join(words[60:70]), session=sid, turns=1)
m = last(e, "memory")
adds_up("a question", m)
g = last(e, "done")["gistd"]
check("what it points to is hydrated", g["hydrated"] > 0 and g["hydrated"] ==
      sum(x["tokens"] for x in m["segments"] if x["state"] == "hydrated"), (g, m))
check("what it stands on", g["raw"] + g["gist_tokens"] > 1024 and g["gists"] > 0, g)

# Stopped, and gone on with.
n_texts, stopped = 0, None
for name, j in events("On and on", session=sid, turns=2, **LONG):
    n_texts += name == "text"
    if n_texts == 3 and not stopped:
        st, _, busy = s.post("/gist/v1/chat", messages=[{"role": "user", "content": "x"}], session=sid, turns=2)
        check("one at a time", st == 429 and "stop" in busy["error"]["message"], (st, busy))
        stopped = s.post(f"/gist/v1/sessions/{sid}/stop")
        check("it is at work, and told to stop", stopped[0] == 200 and stopped[2]["busy"], stopped)
    end = (name, j)
check("stopped", end[0] == "done" and end[1]["reason"] == "stopped" and end[1]["turns"] == 3, end)
e = turn("Go on", session=sid, turns=3)
check("it goes on", last(e, "done")["turns"] == 4 and first(e, "read")["computed"] < 40, e[-1])
check("to stop what is idle is nothing", s.post(f"/gist/v1/sessions/{sid}/stop")[0] == 200)
e = turn("Go on", session=sid, turns=4)
check("nor does it stop the next", last(e, "done")["reason"] != "stopped", e[-1])

# Deleted while it answers; and a client that leaves.
for name, j in events("On and on", session=sid, turns=5, **LONG):
    if name == "text" and stopped:
        stopped = None
        check("deleted", s.ask("DELETE", f"/gist/v1/sessions/{sid}")[2] == {"deleted": True})
    end = (name, j)
check("then it ends", end[1]["reason"] == "stopped", end)
check("deleted it is gone", s.ask("GET", f"/gist/v1/sessions/{sid}")[0] == 404)
sid = None
for name, j in events("On and on", **LONG):
    if name == "session":
        sid = j["id"]
    if name == "text":
        break
until("who leaves ends it", lambda: s.ask("GET", f"/gist/v1/sessions/{sid}")[0] != 200)
check("who leaves has no session", s.ask("GET", f"/gist/v1/sessions/{sid}")[0] == 404)

# As many as there may be: the one that was used longest ago makes place (--live-sessions 2).
ids = [first(turn(f"Number {i}"), "session")["id"] for i in range(3)]
check("two are left", {x["id"] for x in s.ask("GET", "/gist/v1/sessions")[2]["sessions"]} == set(ids[1:]), ids)
done()
