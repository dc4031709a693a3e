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
    def __init__(self, *argv, env=None, rows=24, columns=80, on_output=None):
        """on_output(bytes): told of all that is printed, when it comes."""
        self.on_output = on_output
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The window has its size before the program looks.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(argv[0], argv, {**os.environ, **(env or {})})
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
