"""cdp.py - for tests and screenshots: a headless Chromium, driven over its DevTools protocol by a pair of pipes. usable()
says what is missing."""
import atexit
import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time

WAIT_S = 120


def usable():
    """"" or a sentence."""
    return "" if shutil.which("chromium") else "there is no chromium (scripts/setup test)"


class Page:
    """A browser with one page. What it complained about is in .complaints, whom it asked in .asked."""

    def __init__(self, width=1280, height=800, scale=1, dark=False):
        self.tmp = tempfile.mkdtemp()
        self.process = None
        atexit.register(self.close)  # also where a check has thrown
        args = ["chromium", "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.tmp}", "--no-first-run",
                "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking"]
        if os.getuid() == 0:
            args.append("--no-sandbox")  # its sandbox wants another user than root
        # It reads commands from descriptor 3 and writes to 4.
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for fd in pair]
        self.process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
                                        preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[3], 4)))
        self.to, self.of = os.fdopen(ends[1], "wb", 0), os.fdopen(ends[2], "rb", 0)
        for fd in (ends[0], ends[3]):
            os.close(fd)
        self.n, self.rest, self.complaints, self.asked = 0, b"", [], []
        self.on_paused = None
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.size(width, height, scale)
        self.scheme(dark)

    def close(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.tmp, ignore_errors=True)

    @staticmethod
    def until(what, test, seconds=WAIT_S):
        end = time.monotonic() + seconds
        while True:
            seen = test()
            if seen:
                return seen
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.05)

    def send(self, message):
        self.to.write(json.dumps(message).encode() + b"\0")

    def next(self):
        while b"\0" not in self.rest:
            got = os.read(self.of.fileno(), 1 << 20)
            if not got:
                raise RuntimeError("the browser has ended")
            self.rest += got
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.n += 1
        message = {"id": self.n, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.send(message)
        mine = self.n
        while True:
            m = self.next()
            if m.get("id") == mine:
                if "error" in m:
                    raise RuntimeError(f"{method}: {m['error']}")
                return m["result"]
            if "method" in m:
                self.event(m["method"], m["params"])

    def event(self, method, p):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(p["exceptionDetails"].get("exception", {}).get("description", str(p)))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.complaints.append(f"{p['entry']['text']} {p['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.asked.append(p["request"]["url"])
        elif method == "Fetch.requestPaused" and self.on_paused:
            self.on_paused(p)

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)

    def scheme(self, dark):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.wait("the page is there", "document.readyState === 'complete'")

    def reload(self):
        """Again, and nothing of the page that was there before is taken for the new one."""
        self.js("window.old = true")
        self.call("Page.reload")
        self.wait("the page is there again", "!window.old && document.readyState === 'complete'")

    def js(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r:
            raise RuntimeError(f"{expression}: {r['exceptionDetails']}")
        return r["result"].get("value")

    def wait(self, what, expression, seconds=WAIT_S):
        return self.until(what, lambda: self.js(f"!!({expression})"), seconds)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def key(self, key, code=0, modifiers=0, text=None):
        p = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown", **p, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **p)

    def enter(self):
        self.key("Enter", 13, text="\r")

    def drop(self, name, text):
        """Drops a file on the window, as a person would."""
        self.js(f"""{{ const d = new DataTransfer(); d.items.add(new File([{json.dumps(text)}], {json.dumps(name)}));
            for (const t of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(t, {{ dataTransfer: d, bubbles: true, cancelable: true }})); }}""")

    def shot(self, path):
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with open(path, "wb") as f:
            f.write(png)
