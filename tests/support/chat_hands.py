"""chat_hands.py GISTCTL - `gistctl chat` under a person's hands: on a terminal, with a daemon that serves a tiny model.

Would catch: a paste that becomes several turns, or is cut; keys that are lost or echoed into an answer when they are
typed ahead; a line that is lost when the window changes its size; a command that does something else than it says; a
terminal that is left without echo.
"""
import os
import re
import subprocess
import sys
import tempfile

from terminal import Terminal

gistctl = sys.argv[1]
PROMPT = "> "
ENV = {"TERM": "xterm", "LC_ALL": "C"}


def chat(*options):
    return Terminal(gistctl, "chat", "-n", "6", *options, env=ENV)


def answer(t):
    """What was printed up to the times behind the next answer, and how many tokens were read for it."""
    before = t.expect("; wrote ")
    t.expect("]")
    return before, int(re.findall(r"\[read (\d+) tokens", before)[-1])


def history(folder):
    with open(os.path.join(folder, "gistd/chat_history"), encoding="utf-8") as f:
        return f.read()


def leave(t):
    t.expect(PROMPT)
    t.type("\x04")
    assert t.exit_code() == 0, t.all


def says_what_to_do():
    t = chat()
    first = t.expect("\n")
    assert "/help" in first and "Ctrl-D" in first and "Enter" in first, first
    t.expect(PROMPT)
    assert b"\x1b[?2004h" in t.all, "it does not ask for bracketed paste"
    t.type("/help\r")
    for command in ("/help", "/file", "/retry", "/memory", "/save", "/load", "/system", "/new", "/stats", "/quit"):
        t.expect("\n" + command)
    leave(t)
    assert b"\x1b[?2004l" in t.all, "bracketed paste is left on"


def pastes(folder):
    t = chat()
    t.expect(PROMPT)
    t.paste("first line\nsecond line\nthird line\n")
    t.expect("third line")
    t.type(" and more\r")
    answer(t)
    t.expect(PROMPT)
    assert b"[read" not in t.seen, "it was more than one turn"
    assert r"first\040line\012second\040line\012third\040line\040and\040more" in history(folder), history(folder)

    # Too high for the line editor: a mark, and all of it when it is said.
    t.paste("".join(f"{i} green bottles\n" for i in range(200)))
    t.expect("[pasted 1: 200 lines]")
    t.type(" How many?\r")
    _, n = answer(t)
    assert n > 600, f"of 200 lines {n} tokens were read"
    # A second one, and one in a line with it.
    t.expect(PROMPT)
    t.paste("a\n" * 20)
    t.expect("[pasted 1: 20 lines]")
    t.paste("b\n" * 30)
    t.expect("[pasted 2: 30 lines]")
    t.type("\r")
    _, n = answer(t)
    assert 100 <= n < 200, n
    # What is pasted while an answer is printed is one turn, too.
    t.expect(PROMPT)
    t.type("Why?\r")
    t.paste("one\ntwo\n")
    t.type("\r")
    answer(t)
    answer(t)
    t.type("\x04")
    assert t.exit_code() == 0
    assert t.all.count(b"; wrote ") == 5, t.all
    # Escape sequences in it are no keys, and don't reach the terminal.
    t = chat()
    t.expect(PROMPT)
    t.paste("quiet \x1b[2J please")
    t.expect("quiet [2J please")
    t.type("\x15")  # takes the line away
    t.type("\x04")
    assert t.exit_code() == 0


def typed_ahead(folder):
    t = chat()
    # At once, before there is a prompt; and behind each other.
    t.type("alpha question\rbeta question\r")
    answer(t)
    between, _ = answer(t)
    t.type("\x04")
    assert t.exit_code() == 0
    assert t.all.count(b"; wrote ") == 2, t.all
    said = history(folder)
    assert r"alpha\040question" in said and r"beta\040question" in said, said
    assert between.count("beta question") == 1, f"the second line was echoed where it was typed: {between!r}"


def resized(folder):
    t = chat()
    t.expect(PROMPT)
    t.type("half of")
    t.expect("half of")
    t.resize(30, 40)
    t.expect("half of")  # drawn again
    t.type(" a line\r")
    answer(t)
    leave(t)
    assert r"half\040of\040a\040line" in history(folder), history(folder)


def commands(folder):
    text = os.path.join(folder, "a text.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write("".join(f"Bottle {i} is green.\n" for i in range(100)))
    t = chat()
    t.expect(PROMPT)
    t.type("/retry\r")
    t.expect("there is no answer yet")
    t.type("/file\r")
    t.expect("say which: /file PATH")
    t.type("/file /nowhere\r")
    t.expect("cannot read /nowhere")
    t.type(f"/file '{text}'\r")
    n = int(re.findall(r"(\d+) tokens so far", t.expect("Now ask about the text."))[-1])
    assert n > 300, n
    t.type("Which one is green?\r")
    _, n = answer(t)
    assert n < 100, f"{n} tokens were read: the file was read twice"
    assert b"; seed " not in t.all, "the first answer was drawn already"
    t.type("/retry\r")
    _, n = answer(t)
    assert n < 100, f"{n} tokens were read for /retry"
    assert t.all.count(b"; seed ") == 1, "the same answer again"
    t.type("/memory\r")
    t.expect("All of them are there as they are.")
    t.expect("It has no name")
    t.type("/save\r")
    t.expect("say under which name")
    t.type("/save bottles\r")
    t.expect('Kept as "bottles"')
    t.type("And now?\r")
    answer(t)
    t.type("/new\r")
    t.expect("The one before is kept")
    t.type("Anew?\r")
    _, n = answer(t)
    t.type("/save bottles\r")
    t.expect("already")
    t.expect("/load bottles")
    t.type("/load bottles\r")
    n = int(re.findall(r'with "bottles", (\d+)', t.expect(" tokens; kept again"))[-1])
    assert n > 300, n
    t.type("/load nothing\r")
    t.expect('no saved session "nothing"')
    t.type("/memory\r")
    t.expect('Kept on disk as "bottles"')
    t.type("/system Answer in rhymes.\r")
    t.expect("A new conversation.")
    t.type("/system\r")
    t.expect("Answer in rhymes.\r\n")
    t.type("/nonsense\r")
    t.expect("there is no command /nonsense")
    t.type("/stats now\r")
    t.expect("/stats takes nothing behind it")
    t.type(" /etc/passwd has what?\r")  # a space: for the model
    answer(t)
    t.type("/quit\r")
    assert t.exit_code() == 0, t.all


def left_as_it_was():
    """A shell runs it, so that the terminal is there when it has ended."""
    t = Terminal("sh", "-c", f"stty -a >/dev/null; '{gistctl}' chat -n 2; echo done; read x", env=ENV)
    t.expect(PROMPT)
    t.type("\x04")
    t.expect("done")
    assert t.echoes(), "the terminal is left without echo"
    t.type("\r")
    assert t.exit_code() == 0


def piped():
    def run(text, *options):
        return subprocess.run([gistctl, "chat", "-n", "4", "--stats", *options], input=text, capture_output=True,
                              check=False, timeout=180)

    unix, dos = run(b"Why?\nHow?\n"), run(b"Why?\r\nHow?\r\n")
    assert unix.returncode == 0 and unix.stdout == dos.stdout and unix.stderr.count(b"; wrote ") == 2, unix
    # A text's line that begins with a slash is a turn, and not a command.
    slash = run(b"/quit\n/nonsense\nWhy?\n")
    assert slash.returncode == 0 and slash.stderr.count(b"; wrote ") == 3, slash
    nul = run(b"Why?\nHow\0many?\nWhat?\n")
    assert nul.returncode == 1 and b"NUL" in nul.stderr and nul.stderr.count(b"; wrote ") == 1, nul
    objects = run(b"Why?\nHow?\n", "--json")
    assert objects.returncode == 0 and len(objects.stdout.splitlines()) == 2, objects
    assert b"\x1b" not in unix.stdout + unix.stderr


with tempfile.TemporaryDirectory() as tmp:
    os.environ["XDG_STATE_HOME"] = tmp
    says_what_to_do()
    pastes(tmp)
    typed_ahead(tmp)
    resized(tmp)
    commands(tmp)
    left_as_it_was()
    piped()
