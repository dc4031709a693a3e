"""http_again.py URL [SECONDS] - turns that go on without their client, and who comes back to them (POST /gist/v1/chat with
`detachable`, GET /gist/v1/answers/ID/TURNS). SECONDS: the server waits for nobody any longer (--answer-wait)."""
import sys

from http_client import Server, check, daemon_status, done, first, until

s = Server(sys.argv[1])
ONE, TWO = ({"Authorization": f"Bearer {k}"} for k in ("0123456789abcdef", "fedcba9876543210"))
LONG = dict(ignore_eos=True, max_tokens=1000000)


def turn(text, **more):
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "detachable": True, **more}
    return s.stream("POST", "/gist/v1/chat", body, ONE)


def leave(text, behind="text", **more):
    """A turn whose client hears one such event and is gone: the id of the session, and what was said."""
    sid, said = None, ""
    for name, j in turn(text, **more):
        sid = j["id"] if name == "session" else sid
        said += j["text"] if name == "text" else ""
        if name == behind:
            return sid, said


def back(sid, turns):
    return s.stream("GET", f"/gist/v1/answers/{sid}/{turns}", None, ONE)


def ask(method, path, headers=ONE, body=None):
    return s.ask(method, f"/gist/v1/{path}", body, headers)


def is_idle():
    return daemon_status()["requests_running"] == 0


def said_in(evs):
    return "".join(j["text"] for e, j in evs if e == "text")


def lost(what, sid, turns):
    until(what, lambda: ask("GET", f"answers/{sid}/{turns}")[0] == 404)
    st, _, j = ask("GET", f"answers/{sid}/{turns}")
    check(what, st == 404 and j["error"]["code"] == "session_gone", (st, j))


if len(sys.argv) > 2:
    # Who does not come back in time has no answer, and nobody computes it any more.
    sid, _ = leave("On and on", **LONG)
    until("there is no session", lambda: ask("GET", f"sessions/{sid}")[0] == 404)
    until("nothing runs", is_idle)
    lost(f"after {sys.argv[2]} s", sid, 0)
    done()

# In the middle of an answer: all of it comes once more, and it goes on.
sid, said = leave("On and on", **LONG)
evs, stopped, longer = [], None, 0
for name, j in back(sid, 0):
    evs.append((name, j))
    longer += name == "text"
    if longer == 3 and not stopped:
        st, _, busy = ask("GET", f"answers/{sid}/0")
        check("one hears it at a time", st == 429 and "another connection" in busy["error"]["message"], (st, busy))
        stopped = ask("POST", f"sessions/{sid}/stop")
check("the order", [e for e, _ in evs if e in ("session", "read", "done")] == ["session", "read", "done"], evs[:3])
check("the session", first(evs, "session")["id"] == sid and first(evs, "session")["turns"] == 0, evs[0])
check("from its beginning", said and first(evs, "text")["text"].startswith(said), (said, evs[:4]))
check("it goes on, and is stopped", evs[-1][0] == "done" and evs[-1][1]["reason"] == "stopped" and evs[-1][1]["turns"] == 1, evs[-1])

# It ends while nobody listens; who comes back, also twice, has all of it.
_, said = leave("And then?", session=sid, turns=1, max_tokens=40, ignore_eos=True)
until("it ends", lambda: ask("GET", f"sessions/{sid}")[2]["turns"] == 2)
one, two = list(back(sid, 1)), list(back(sid, 1))
check("its end", one[-1][0] == "done" and (one[-1][1]["reason"], one[-1][1]["turns"], one[-1][1]["tokens"]) == ("length", 2, 40), one[-1])
check("what it stood on", one[-1][1]["gistd"]["raw"] > 0, one[-1])
check("all of it", said_in(one).startswith(said) and len(said_in(one)) > len(said), (said, one))
check("twice", [x for x in one if x[0] != "memory"] == [x for x in two if x[0] != "memory"], (one, two))
evs = list(turn("Go on", session=sid, turns=2, max_tokens=2))
check("the session goes on", first(evs, "read")["computed"] < 40 and evs[-1][1]["turns"] == 3, evs)
lost("an answer of before", sid, 1)
check("the last one is there", said_in(list(back(sid, 2))) == said_in(evs))

# While it is read; what is left of it is read all the same.
leave(" ".join(f"{i} and" for i in range(3000)), "session", answer=False, session=sid, turns=3)
evs = list(back(sid, 3))
check("read", [e for e, _ in evs if e in ("session", "read", "text")] == ["session", "read"] and evs[-1][1]["reason"] == "read", evs[-1])
check("what it left is read", first(evs, "read")["computed"] > 3000, evs)

# Stopped, and deleted, while nobody listens.
leave("On and on", session=sid, turns=4, **LONG)
until("stopped", lambda: ask("POST", f"sessions/{sid}/stop")[0] == 200 and not ask("GET", f"sessions/{sid}")[2]["busy"])
evs = list(back(sid, 4))
check("it was stopped", evs[-1][1]["reason"] == "stopped" and evs[-1][1]["turns"] == 5, evs[-1])
_, said = leave("On and on", session=sid, turns=5, **LONG)
check("deleted", ask("DELETE", f"sessions/{sid}")[2] == {"deleted": True})
lost("what is deleted", sid, 5)
until("nobody computes it", is_idle)
evs = list(turn("Short", max_tokens=2))
sid = first(evs, "session")["id"]
check("deleted when it has ended", ask("DELETE", f"sessions/{sid}")[2] == {"deleted": True})
lost("what had ended is gone, too", sid, 0)

# Of whom it is not; and what is none.
sid, _ = leave("On and on", **LONG)
check("another's key", ask("GET", f"answers/{sid}/0", TWO)[0] == 404)
check("no key", ask("GET", f"answers/{sid}/0", {})[0] == 401)
check("another page", ask("GET", f"answers/{sid}/0", {**ONE, "Origin": "https://evil.example"})[0] == 403)
check("other turns", ask("GET", f"answers/{sid}/1")[0] == 404)
for path in ("x", f"{sid}", f"{sid}/", f"{sid}/-1", f"{sid}/0x", f"{sid}/99999999999999999999", "/0"):
    st, _, j = ask("GET", f"answers/{path}")
    check(f"no answer {path!r}", st == 404 and j["error"]["message"], (st, j))
st, _, _ = s.ask("HEAD", f"/gist/v1/answers/{sid}/0", headers=ONE)
check("its head takes nothing", st == 405, st)
check("it is there for its own", said_in([next(x for x in back(sid, 0) if x[0] == "text")]))
ask("DELETE", f"sessions/{sid}")
sid, _ = leave("On and on", detachable=False, **LONG)
lost("who did not ask for it", sid, 0)

# There are as many as sessions may be open (--live-sessions 3): one that was left before makes place.
ids = [first(list(turn(f"Number {i}", max_tokens=2)), "session")["id"] for i in range(4)]
def there():
    return sum(ask("GET", f"answers/{sid}/0")[0] == 200 for sid in ids)
until("three of four", lambda: there() == 3)
check("and no more", there() <= 3)

# The server ends with one that nobody hears.
leave("On and on", **LONG)
done()
