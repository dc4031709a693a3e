"""http_page.py URL HTTP_PID - the page in a headless Chromium: what a person does, and what somebody hostile would."""
import base64
import json
import os
import signal
import sys
import urllib.parse

from cdp import Page
from gate import Gate
from http_client import check, done

gate = Gate(urllib.parse.urlparse(sys.argv[1]).port)
url = f"http://127.0.0.1:{gate.port}"
p = Page()
NAME = '<img src=x onerror="window.hacked=1">'
TEXT = "The otter sleeps at nine. " * 60 + "<script>window.hacked=1</script>"
SAY = "document.activeElement.id === 'say' || document.getElementById('say').focus()"


def say(text):
    p.js(SAY)
    p.type(text)
    p.enter()


def idle():
    p.wait("the turn ends", "document.getElementById('stop').hidden && !document.querySelector('.going')")


def texts(selector):
    return p.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)")


def press(text, within="body"):
    """A button by what it says."""
    p.js(f"""{{ const b = [...document.querySelector({json.dumps(within)}).querySelectorAll("button")]
        .find(e => e.textContent === {json.dumps(text)}); if (!b) throw new Error("no button"); b.click(); }}""")


def answers():
    """The next turns are answered by us: events as the server would write them."""
    p.call("Fetch.enable", patterns=[{"urlPattern": "*/gist/v1/chat"}])


def go_on(e, method="Fetch.continueRequest", **params):
    """What becomes of a request that was paused; nobody waits for the answer to that, in the middle of another call."""
    p.send({"id": 10 ** 6, "sessionId": p.session, "method": method, "params": {"requestId": e["requestId"], **params}})


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


def fulfil(body, status=200, kind="text/event-stream"):
    def on_paused(e):
        p.on_paused = None
        go_on(e, "Fetch.fulfillRequest", responseCode=status, responseHeaders=[{"name": "Content-Type", "value": kind}],
              body=base64_of(body))
    p.on_paused = on_paused


def endless():
    """The next turns are the model's own, but for the end of the text: each goes on until it is stopped. More than one, since
    the page may find that its session is gone, and ask again."""
    def on_paused(e):
        body = json.dumps({**json.loads(e["request"]["postData"]), "ignore_eos": True, "max_tokens": 1 << 29})
        go_on(e, postData=base64_of(body))
    p.on_paused = on_paused
    answers()


def sse(*events):
    return "".join(f"event: {name}\ndata: {json.dumps(j, ensure_ascii=False)}\n\n" for name, j in events)


GISTD = {"computed": 9, "shared": 0, "restored": 0, "raw": 9, "gist_tokens": 0, "gists": 0, "ratio": 4, "hydrated": 0, "missed": 0}


def answered(text):
    return sse(("session", {"id": "a" * 32, "turns": 0, "model": "m"}),
               ("read", {"tokens": 9, "computed": 9, "shared": 0, "restored": 0, "ms": 1}), ("text", {"text": text, "tokens": 3}),
               ("done", {"reason": "end", "turns": 1, "tokens": 3, "ms": 1, "gistd": GISTD}))


p.go(url)
p.wait("the daemon is known", "document.getElementById('model').textContent.includes('window')")
check("it says what to do", "Drop a text here" in texts(".empty h2")[0], texts(".empty h2"))
check("the box has the focus", p.js("document.activeElement.id") == "say")

# A question, by the keyboard.
endless()
say("Why is the sky blue?")
p.wait("an answer", "document.querySelector('.turn.assistant')")
p.wait("some of it", "document.querySelector('.turn.assistant .text').textContent.length > 20")
check("Stop is there", p.js("!document.getElementById('stop').hidden"))
p.key("Escape", 27)
idle()
p.call("Fetch.disable")
check("Escape stops", "Stopped" in texts(".turn.assistant .foot"), texts(".turn.assistant .foot"))
check("the picture", p.js("document.querySelectorAll('#map .slot.raw').length") > 0)
check("in words", "raw" in p.js("document.getElementById('map').getAttribute('aria-label')"))
check("what it stands on", p.js("!document.getElementById('stands').hidden"))
check("the chat has its name", texts(".chat .go span")[0] == "Why is the sky blue?", texts(".chat .go span"))

# Shift+Enter is a line; a document is dropped, and read before anything is asked.
p.js(SAY)
p.type("one")
p.key("Enter", 13, modifiers=8, text="\r")
p.type("two")
check("two lines", p.js("document.getElementById('say').value") == "one\ntwo")
p.js("document.getElementById('say').value = ''")
press("New chat")
p.drop(NAME, TEXT)
p.wait("it is read", "document.querySelector('.doc .state')?.textContent.includes('read in')")
check("its name is text", texts(".doc .name") == [NAME], texts(".doc .name"))
check("no element is made of it", p.js("document.querySelectorAll('img, main script').length") == 0)
check("columns", p.js("document.querySelectorAll('#map .slot').length") > 0)
before = len([u for u in p.asked if u.endswith("/chat")])
p.drop("picture.png", "\0\x01\x02")
p.wait("it is refused", "!document.getElementById('notice').hidden")
check("in words", "no text file" in texts("#notice")[0], texts("#notice"))
check("and not sent", len([u for u in p.asked if u.endswith("/chat")]) == before)
p.js("""{ const d = new DataTransfer(); d.setData("text/plain", "A long paste. ".repeat(200));
    document.getElementById("say").dispatchEvent(new ClipboardEvent("paste", { clipboardData: d, bubbles: true, cancelable: true })); }""")
p.wait("a long paste is a document", "[...document.querySelectorAll('.doc .state')].filter(e => e.textContent.includes('read in')).length === 2")

# An answer of a hostile model is text, however it looks.
answers()
evil = '</div><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\n```\n<b>code</b>\n```\n[a](javascript:alert(1))'
fulfil(answered(evil))
press("New chat")
say("<b>Be evil</b>")
p.wait("it answers", "document.querySelector('.turn.assistant pre')")
idle()
seen = texts(".turn.assistant .text")[0]
check("all of it is text", "</div><img src=x" in seen and "<b>code</b>" in seen and "javascript:" in seen, seen)
check("nothing of it is more", p.js("document.querySelectorAll('img, main script, main a, main b').length") == 0)
check("nothing of it ran", p.js("window.hacked === undefined"))
check("nor of the question", texts(".turn.user .text")[0] == "<b>Be evil</b>")

# Line separators are text, too, not the end of what the server says.
fulfil(answered("one\u2028two\u2029three"))
say("And in lines?")
p.wait("it answers", "document.querySelectorAll('.turn.assistant').length === 2")
idle()
check("separators are text", texts(".turn.assistant .text")[1:] == ["one\u2028two\u2029three"] and not texts(".trouble"), texts(".turn.assistant"))
p.js("[...document.querySelectorAll('.chat.on .act')][1].click()")
press("Delete", ".chat.on")
fulfil(answered("Indeed."))
press("New chat")
say("Be good")
p.wait("it answers", "document.querySelectorAll('.turn.assistant').length === 1 && document.querySelector('.turn.assistant .text').textContent === 'Indeed.'")
idle()

# Errors, in words that help; what was written is not lost.
p.complaints.clear()
fulfil(json.dumps({"error": {"code": "service_unavailable", "message": "no gistd. Start the daemon"}}), 503, "application/json")
say("Are you there?")
p.wait("trouble", "document.querySelector('.trouble')")
check("what to do", "The daemon is not there." in texts(".trouble")[0] and "Start the daemon" in texts(".trouble")[0], texts(".trouble"))
fulfil(answered("Yes."))
press("Try again", ".trouble")
p.wait("it is asked again", "!document.querySelector('.trouble') && document.querySelectorAll('.turn.assistant').length === 2")
idle()
check("once", texts(".turn.user .text")[-1] == "Are you there?" and len(texts(".turn.user")) == 2, texts(".turn.user"))

# The server forgot the session: the page sends all of it, and nobody notices.
sent = []
fulfil(json.dumps({"error": {"code": "session_gone", "message": "gone"}}), 404, "application/json")
gone = p.on_paused
def twice(e):
    gone(e)
    sent.append(json.loads(e["request"]["postData"]))
    fulfil(answered("I remember."))
    after = p.on_paused
    def second(e2):
        sent.append(json.loads(e2["request"]["postData"]))
        after(e2)
    p.on_paused = second
p.on_paused = twice
say("And now?")
p.wait("it goes on", "document.querySelectorAll('.turn.assistant').length === 3")
idle()
check("first what is new", len(sent) == 2 and len(sent[0]["messages"]) == 1 and sent[0]["session"] == "a" * 32, sent)
check("then all of it", "session" not in sent[1] and [m["role"] for m in sent[1]["messages"]] ==
      ["user", "assistant", "user", "assistant", "user"], sent[1])
p.call("Fetch.disable")
p.complaints = [c for c in p.complaints if "404" not in c and "503" not in c]

# Chats: renamed, kept over a reload, gone on with, deleted.
n = len(texts(".chat"))
p.js("document.querySelector('.chat.on .act').click()")
p.wait("a name is asked for", "document.querySelector('.chat input')")
p.type("Evil & co")
p.enter()
check("renamed", texts(".chat.on .go span")[0] == "Evil & co", texts(".chat.on .go span"))
p.reload()
p.wait("it is back", "document.querySelectorAll('.chat').length > 0 && document.querySelectorAll('.turn.assistant').length === 3")
check("all of them", len(texts(".chat")) == n and "Evil & co" in texts(".chat.on .go span"), texts(".chat"))
answers()
endless()
say("Go on")
p.wait("it answers", "document.querySelectorAll('.turn.assistant').length === 4 && document.querySelectorAll('.turn.assistant')[3].textContent.length > 40")
press("Stop")
idle()
p.complaints = [c for c in p.complaints if "404" not in c]
p.js("[...document.querySelectorAll('.chat.on .act')][1].click()")
press("Delete", ".chat.on")
p.wait("deleted", f"document.querySelectorAll('.chat').length === {n - 1}")

# One that is deleted while it is answered does not come back, neither now nor with the page.
endless()
press("New chat")
say("Forget me")
p.wait("some of it", "document.querySelector('.turn.assistant .text')?.textContent.length > 20")
p.js("[...document.querySelectorAll('.chat.on .act')][1].click()")
press("Delete", ".chat.on")
idle()
p.call("Fetch.disable")
p.reload()
p.wait("the page is back", f"document.querySelectorAll('.chat').length >= {n - 1} && document.getElementById('model').textContent")
p.complaints = [c for c in p.complaints if "404" not in c]
check("what was deleted is gone", "Forget me" not in texts(".chat .go span"), texts(".chat .go span"))

# An answer outlives its page, which is loaded again, and its connection, which is lost; Stop ends it all the same.
ANSWER = "document.querySelector('.turn.assistant .text')"
endless()
press("New chat")
say("Tell me all of it")
p.wait("some of it", f"{ANSWER}?.textContent.length > 20")
before = texts(".turn.assistant .text")[0]
p.call("Fetch.disable")
p.reload()
p.wait("it goes on", f"{ANSWER}?.textContent.length > {len(before) + 20} && !document.getElementById('stop').hidden")
now = texts(".turn.assistant .text")[0]
check("it is the same answer", now.startswith(before), (before, now))
gate.cut()
p.wait("it goes on by another connection", f"{ANSWER}.textContent.length > {len(now) + 200}")
check("and is the same still", texts(".turn.assistant .text")[0].startswith(now) and not texts(".trouble"), texts(".trouble"))
press("Stop")
idle()
check("it was stopped", texts(".turn.assistant .foot") == ["Stopped"] and len(texts(".turn.assistant")) == 1, texts(".turn.assistant"))
answers()
sent = []
def one_more(e):
    p.on_paused = None
    sent.append(json.loads(e["request"]["postData"]))
    go_on(e)
p.on_paused = one_more
say("Thank you")
p.wait("it answers", "document.querySelectorAll('.turn.assistant').length === 2")
p.wait("some of it", "document.querySelectorAll('.turn.assistant .text')[1].textContent.length > 0 || !document.querySelector('.going')")
p.call("Fetch.disable")
p.js("document.getElementById('stop').click()")
idle()
check("the session goes on", len(sent) == 1 and sent[0]["turns"] == 1 and len(sent[0]["messages"]) == 1, sent)

# A page that comes back too late says so; one that asks again is answered.
p.js("""(async () => {
    const { put, list } = await import("/page/keep.js");
    const c = (await list())[0];
    c.messages[3] = { role: "assistant", text: "", state: "going" };
    c.live = { id: "b".repeat(32), turns: 1 };
    await put(c); })()""")
p.reload()
p.wait("it says so", "document.querySelector('.trouble')")
check("in words", "The answer is lost" in texts(".trouble")[0] and len(texts(".turn.assistant")) == 1, texts(".trouble"))
press("Try again", ".trouble")
p.wait("it answers", "!document.querySelector('.trouble') && document.querySelectorAll('.turn.assistant').length === 2")
p.js("document.getElementById('stop').click()")
idle()
p.complaints = [c for c in p.complaints if "404" not in c and "429" not in c and "net::ERR" not in c]

# A private chat: nothing of it is in the browser's store, in a title, or there when the page is loaded again.
KEPT = """new Promise(done => { indexedDB.open("gistd").onsuccess = e => { const all = e.target.result.transaction("chats").objectStore("chats").getAll();
    all.onsuccess = () => { e.target.result.close(); done(JSON.stringify(all.result)); }; }; })"""
press("New chat")
p.js("document.getElementById('private').click()")
check("it says what that means", "is private" in texts(".empty .private")[0] and "private" in texts(".chat.on .go .fine")[0], texts(".empty p"))
answers()
sent = []
p.on_paused = one_more
say("My secret is a walrus")
p.wait("it answers", "document.querySelector('.turn.assistant .text')?.textContent.length > 0 || document.querySelector('.turn.assistant .foot')")
p.js("document.getElementById('stop').click()")
idle()
p.call("Fetch.disable")
check("the daemon is told", sent[0]["gistd"] == {"private": True} and sent[0]["title"] == "private chat", sent)
check("it can't be changed any more", p.js("document.getElementById('private').checked && document.getElementById('private').disabled"))
p.js("document.querySelector('.chat.on .act').click()")
p.wait("a name is asked for", "document.querySelector('.chat input')")
p.type("About the walrus")
p.enter()
check("it has its name", texts(".chat.on .go span")[0] == "About the walrus", texts(".chat.on .go span"))
check("others are kept", "Evil" in p.js(KEPT) or "Tell me all of it" in p.js(KEPT))
check("it is not", "walrus" not in p.js(KEPT))
p.js("[...document.querySelectorAll('.chat .go')].find(e => !e.textContent.includes('walrus')).click()")
check("others are not private", not p.js("document.getElementById('private').checked"))
titles = lambda: p.js("fetch('/gist/v1/sessions').then(r => r.json()).then(j => JSON.stringify(j.sessions.map(s => s.title)))")
check("its session has no name of its own", "private chat" in titles() and "walrus" not in titles(), titles())
p.reload()
p.wait("the page is back", "document.querySelectorAll('.chat').length > 0 && document.getElementById('model').textContent")
check("it is gone", "walrus" not in "".join(texts(".chat")) and "walrus" not in p.js(KEPT), texts(".chat"))
p.until("and its session", lambda: "private chat" not in titles())
p.complaints = [c for c in p.complaints if "404" not in c]

# A daemon that has put its model away says so, and while it is loaded again.
gate.instead = (b"POST /gist/v1/chat", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + sse(("loading", {"percent": 40})).encode())
press("New chat")
say("Wake up")
p.wait("it says that the model is loaded", "document.querySelector('.turn.assistant .foot')?.textContent.includes('loaded again: 40 %')")
gate.cut()
p.wait("trouble", "document.querySelector('.trouble')")
p.complaints = [c for c in p.complaints if "net::ERR" not in c]
p.js("[...document.querySelectorAll('.chat.on .act')][1].click()")
press("Delete", ".chat.on")
p.wait("it says that the model is put away (gistd --idle)", "document.getElementById('model').textContent.includes('put away')")

# Themes, contrast, names of what can be pressed, a small screen.
CONTRAST = """(() => {
    const lum = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(x => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const probe = document.createElement("i"); document.body.append(probe);
    const of = v => { probe.style.color = `var(${v})`; return lum(getComputedStyle(probe).color); };
    const ratio = (a, b) => { const [x, y] = [of(a), of(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
    const low = [];
    for (const back of ["--paper", "--sheet", "--tint"])
        for (const [ink, least] of [["--ink", 7], ["--soft", 4.5], ["--bad", 4.5], ["--raw", 3], ["--gist", 3], ["--wet", 3], ["--focus", 3]])
            if (ratio(ink, back) < least) low.push(`${ink} on ${back}: ${ratio(ink, back).toFixed(2)}`);
    if (ratio("--on-button", "--button") < 4.5) low.push("button");
    probe.remove();
    return low.join(", "); })()"""
paper = "getComputedStyle(document.body).backgroundColor"
for dark in (False, True):
    p.scheme(dark)
    check(f"contrast, {'dark' if dark else 'light'}", p.js(CONTRAST) == "", p.js(CONTRAST))
was = p.js(paper)
press("Theme: system")
check("a switch", p.js(paper) != was and texts("#theme") == ["Theme: light"], texts("#theme"))
nodes = p.call("Accessibility.getFullAXTree")["nodes"]
nameless = [x for x in nodes if x.get("role", {}).get("value") in ("button", "textbox", "image", "progressbar", "log", "navigation", "complementary")
            and not x.get("ignored") and not x.get("name", {}).get("value")]
check("all that can be used has a name", not nameless, nameless)
order = []
p.js("document.activeElement.blur()")
for _ in range(40):
    p.key("Tab", 9)
    order.append(p.js("document.activeElement.id || document.activeElement.className"))
order = order[order.index("skip"):]
want = ["skip", "theme", "new", "log", "say", "attach", "map"]
check("the order of the focus", [x for i, x in enumerate(order) if x in want and x not in order[:i]] == want, order)
p.size(390, 844)
check("a small screen", p.js("document.documentElement.scrollWidth <= innerWidth && document.getElementById('say').getBoundingClientRect().bottom <= innerHeight"))
press("Memory")
check("its memory", p.js("getComputedStyle(document.getElementById('memory')).display !== 'none'"))
p.key("Escape", 27)
check("Escape closes it", p.js("getComputedStyle(document.getElementById('memory')).display === 'none'"))

# A browser that keeps nothing of pages throws where it is asked to.
denied = p.call("Page.addScriptToEvaluateOnNewDocument", source='''for (const name of ["localStorage", "sessionStorage", "indexedDB"])
    Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });''')["identifier"]
p.reload()
p.wait("it works without", "document.getElementById('model')?.textContent.includes('window') && document.querySelector('.empty')")
press("Theme: system")
press("Theme: light")
check("themes, too", texts("#theme") == ["Theme: dark"], texts("#theme"))
p.call("Page.removeScriptToEvaluateOnNewDocument", identifier=denied)

check("nobody else was asked", all(u.startswith(url) for u in p.asked), [u for u in p.asked if not u.startswith(url)])
check("no complaint", p.complaints == [], p.complaints)
os.kill(int(sys.argv[2]), signal.SIGKILL)
p.wait("a server that is gone is noticed", "document.getElementById('notice').textContent.includes('gist-http does not answer')")
p.close()
done()
