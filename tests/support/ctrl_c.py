"""ctrl_c.py GISTCTL LIMIT_MS - Ctrl-C, as a person presses it: on a terminal.

`ask` ends within the limit with 130, in the answer and while the prompt is read; `chat` ends the answer
and not the conversation, and Ctrl-D ends that; the history has what was said.
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from terminal import WAIT_S, Terminal

gistctl, limit_s = sys.argv[1], int(sys.argv[2]) / 1000
LONG = "Write a long story about a knight, a dragon and a clever tailor."
# Whatever the model would say: so much of it that no machine is done before somebody presses a key.
STORY = 'root ::= line{200}\nline ::= word{100} "\\n"\nword ::= "a " | "the " | "knight "\n'
PERSON_S = 0.1   # nobody types sooner after what they saw; the line editor sets up its terminal meanwhile


class Person(Terminal):
    def type(self, text):
        time.sleep(PERSON_S)
        super().type(text)

    def hear(self, n):
        """Reads until so many bytes were printed that nobody has looked for yet."""
        end = time.monotonic() + WAIT_S
        while len(self.seen) < n:
            assert time.monotonic() < end, f"no {n} bytes: {self.seen!r}"
            assert self.read(1), f"it ended with {self.seen!r}"


def timed(fn):
    start = time.monotonic()
    result = fn()
    return result, time.monotonic() - start


def is_reading():
    sessions = json.loads(subprocess.check_output([gistctl, "sessions", "--json"]))
    return any(s["doing"] == "append" and s["n_tokens"] > 0 for s in sessions)


def ask_interrupted_in_answer(story):
    t = Person(gistctl, "ask", "-n", "0", "--grammar", story, LONG)
    t.hear(40)                           # it speaks
    t.type(b"\x03")
    code, s = timed(t.exit_code)
    assert code == 130, f"ask ended with {code}: {t.seen!r}"
    assert s < limit_s, f"ask ended {s * 1000:.0f} ms after Ctrl-C"
    print(f"ask, in the answer: {s * 1000:.1f} ms")


def ask_interrupted_in_prompt(folder):
    path = os.path.join(folder, "long")
    with open(path, "w") as f:
        f.write("The quick brown fox jumps over the lazy dog. " * 700)
    p = subprocess.Popen([gistctl, "ask", "-f", path, "Why?"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + WAIT_S
    while not is_reading():              # 7,000 tokens
        assert p.poll() is None, f"the prompt was refused: {p.stderr.read()!r}"
        assert time.monotonic() < end, "the prompt is not read"
    p.send_signal(signal.SIGINT)
    (out, _), s = timed(p.communicate)
    assert p.returncode == 130 and not out, f"ask ended with {p.returncode}, said {out!r}"
    assert s < limit_s, f"ask ended {s * 1000:.0f} ms after Ctrl-C in the prompt"
    print(f"ask, in the prompt: {s * 1000:.1f} ms")


def ask_shows_how_far_it_is(folder):
    """A bar with the time left; then how much was read and kept, which the same command goes on from."""
    path = os.path.join(folder, "book")
    with open(path, "w") as f:
        f.write("A quick brown fox jumps over a lazy dog, and another one. " * 3000)
    t = Person(gistctl, "ask", "--no-stdin", "-f", path, "Why?")
    t.expect(b"reading: ")
    t.expect(b" left")
    t.type(b"\x03")
    t.expect(b"[cancelled: ")
    read, kept = map(int, re.findall(r"(\d+) (?:of|$)", t.expect(b"are kept")))
    assert t.exit_code() == 130 and 0 < kept <= read
    t = Person(gistctl, "ask", "--no-stdin", "-f", path, "Why?")
    t.expect(b"reading: ")
    again = int(t.expect(b" of "))
    assert again >= kept, f"{kept} tokens were kept, it began at {again}"
    t.type(b"\x03")
    assert t.exit_code() == 130
    print(f"ask, with a bar: {kept} of {read} tokens kept")


def chat_goes_on(folder, story):
    os.environ["XDG_STATE_HOME"] = folder
    os.environ.update(TERM="xterm", LC_ALL="C")
    t = Person(gistctl, "chat", "-n", "0", "--grammar", story)
    t.expect(b"> ")
    t.type(LONG.encode() + b"\r")
    t.expect(b"tailor.")                 # the echo, then the answer
    t.hear(60)
    t.type(b"\x03")
    _, s = timed(lambda: t.expect(b"> "))
    assert s < limit_s + 0.1, f"chat took {s * 1000:.0f} ms after Ctrl-C"
    t.type(b"half a line")
    t.expect(b"half a line")
    t.type(b"\x03")                      # drops the line
    t.expect(b"> ")
    t.type("Now tell it again, with Grüße.\r".encode())
    t.expect("Grüße.".encode())
    t.hear(40)
    t.type(b"\x03")                      # a second time
    t.expect(b"> ")
    t.type(b"\x04")
    code = t.exit_code()
    assert code == 0, f"chat ended with {code}: {t.seen!r}"
    with open(os.path.join(folder, "gistd/chat_history"), encoding="utf-8") as f:
        kept = f.read()
    assert "dragon" in kept and "half" not in kept, kept
    assert os.stat(f.name).st_mode & 0o777 == 0o600, "others can read the history"
    print(f"chat: {s * 1000:.1f} ms")


with tempfile.TemporaryDirectory() as tmp:
    grammar = os.path.join(tmp, "story.gbnf")
    with open(grammar, "w") as out:
        out.write(STORY)
    ask_interrupted_in_answer(grammar)
    ask_interrupted_in_prompt(tmp)
    ask_shows_how_far_it_is(tmp)
    chat_goes_on(tmp, grammar)
