"""A program on a terminal of its own, as a person has it: what it prints is read here, keys are typed here.

Used by tests and by scripts that show the programs at work.
"""
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

WAIT_S = 180


class Terminal:
    def __init__(self, *argv, env=None, only_env=None, rows=24, columns=80, on_output=None):
        """env: beside our own variables; only_env: in their place. on_output(bytes): told of all that is printed, when it
        comes."""
        self.on_output = on_output
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The window has its size before the program looks.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(argv[0], argv, only_env or {**os.environ, **(env or {})})
        self.seen = b""  # printed, and not looked for yet
        self.all = b""

    def read(self, timeout):
        """False: the program has closed its terminal."""
        if select.select([self.fd], [], [], timeout)[0]:
            try:
                got = os.read(self.fd, 65536)
            except OSError:  # the other side is gone
                return False
            self.seen += got
            self.all += got
            if got and self.on_output:
                self.on_output(got)
            return bool(got)
        return True

    def expect(self, what, times=1):
        """Reads until `what` was printed so many times. Returns what stands before the last of them, and forgets it."""
        what = what.encode() if isinstance(what, str) else what
        end = time.monotonic() + WAIT_S
        while self.seen.count(what) < times:
            assert time.monotonic() < end, f"no {what!r} in {self.seen!r}"
            assert self.read(1), f"it ended before {what!r}: {self.seen!r}"
        at = -1
        for _ in range(times):
            at = self.seen.index(what, at + 1)
        before, self.seen = self.seen[:at], self.seen[at + len(what):]
        return before.decode(errors="replace")

    def type(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def paste(self, text):
        """As a terminal does that was asked for bracketed paste; line ends are the Enter key's."""
        self.type(b"\x1b[200~" + text.encode().replace(b"\n", b"\r") + b"\x1b[201~")

    def resize(self, rows, columns):
        """The kernel tells the program."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def exit_code(self):
        """Reads to the end."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            self.read(0.01)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                while self.read(0) and select.select([self.fd], [], [], 0)[0]:
                    pass
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError(f"it does not end; it said {self.seen!r}")


class Screen:
    """What a terminal shows of bytes that were printed: lines, as many as there were, without those that scrolled away.

    Knows what our programs and libedit print. Plain text: colours are left out.
    """

    def __init__(self, rows=24, columns=80):
        self.rows, self.columns = rows, columns
        self.lines, self.row, self.column = [[]], 0, 0
        self.rest = ""  # an escape sequence whose end is still to come

    def feed(self, text):
        text, self.rest = self.rest + text, ""
        i = 0
        while i < len(text):
            c = text[i]
            if c == "\x1b":
                n = self.escape(text[i:])
                if n == 0:
                    self.rest = text[i:]
                    return
                i += n
                continue
            self.put(c)
            i += 1

    def put(self, c):
        if c == "\r":
            self.column = 0
        elif c == "\n":
            self.row += 1
            while len(self.lines) <= self.row:
                self.lines.append([])
        elif c == "\b":
            self.column = max(0, self.column - 1)
        elif c == "\t":
            self.column = min(self.columns - 1, self.column // 8 * 8 + 8)
        elif c >= " ":
            if self.column == self.columns:
                self.column = 0
                self.put("\n")
            line = self.lines[self.row]
            line.extend(" " * (self.column + 1 - len(line)))
            line[self.column] = c
            self.column += 1

    def escape(self, text):
        """How long the sequence is that text begins with; 0: its end is not there yet."""
        if len(text) < 2:
            return 0
        if text[1] != "[":
            return 2
        end = 2
        while end < len(text) and not "@" <= text[end] <= "~":
            end += 1
        if end == len(text):
            return 0
        digits = text[2:end].split(";")[0]
        n = int(digits) if digits.isdigit() else 0
        line = self.lines[self.row]
        match text[end]:
            case "A":
                self.row = max(0, self.row - max(1, n))
            case "B":
                self.row = min(len(self.lines) - 1, self.row + max(1, n))
            case "C":
                self.column = min(self.columns - 1, self.column + max(1, n))
            case "D":
                self.column = max(0, self.column - max(1, n))
            case "G":
                self.column = max(0, n - 1)
            case "K" if n == 0:
                del line[self.column:]
            case "K" if n == 2:
                line.clear()
            case "J":
                del line[self.column:]
                del self.lines[self.row + 1:]
            case "P":
                del line[self.column:self.column + max(1, n)]
            case "@":
                line[self.column:self.column] = [" "] * max(1, n)
        return end + 1

    def text(self):
        return [("".join(line)).rstrip() for line in self.lines]

    def window(self):
        """The last lines that fit, as the terminal has them now."""
        return self.text()[-self.rows:]
