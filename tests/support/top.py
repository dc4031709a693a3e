"""top.py TERM ROWS COLUMNS KEYS COMMAND... - runs a command on a terminal of that kind and size until it has drawn
"tokens/s" twice, makes the terminal smaller in between, and sends KEYS ("^C": Ctrl-C). Fails unless the command ends by
itself with 0, no line was longer than the terminal, and the terminal was left as it was found. KEYS "gone": the terminal goes away instead, under a command that outlives
the signal for that (nohup), and its exit code is not looked at.
"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

WAIT_S = 120
term, rows, columns, keys, *argv = sys.argv[1:]


def resize(fd, r, c):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", r, c, 0, 0))


master, slave = pty.openpty()
resize(master, int(rows), int(columns))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in 0, 1, 2:
        os.dup2(slave, fd)
    os.environ["TERM"] = term
    if keys == "gone":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.close(master)
    for name in "LINES", "COLUMNS":
        os.environ.pop(name, None)
    os.execv(argv[0], argv)


def read_until(enough, seen=b""):
    end = time.monotonic() + WAIT_S
    while not enough(seen):
        if time.monotonic() > end:
            sys.exit(f"it did not draw what was waited for: {seen!r}")
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 65536)
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit(f"it ended too early: {seen!r}")
    return seen


seen = read_until(lambda s: b"tokens/s" in s and b"session" in s)
resize(master, 6, 40)
os.kill(pid, signal.SIGWINCH)
# What is drawn on the smaller screen begins anew.
more = read_until(lambda s: b"gistd" in s)
if keys == "gone":
    os.close(slave)
    os.close(master)
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit(0)
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    sys.exit("it did not end")
os.write(master, b"\x03" if keys == "^C" else keys.encode())
end = time.monotonic() + WAIT_S
while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    if time.monotonic() > end:
        os.kill(pid, signal.SIGKILL)
        sys.exit("it did not end")
    if select.select([master], [], [], 0.1)[0]:
        more += os.read(master, 65536)
code = os.waitstatus_to_exitcode(status)
if code:
    sys.exit(f"it ended with {code}: {seen + more!r}")
if termios.tcgetattr(slave) != before:
    sys.exit("the terminal is not as it was")
