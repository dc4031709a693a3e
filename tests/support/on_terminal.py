"""on_terminal.py WANT ANSWER COMMAND... - runs a command on a terminal, waits until it has printed WANT, types ANSWER
and Enter; when it prints WANT again, Ctrl-D until it ends. Prints all that it said. Its exit code is the command's.
"""
import os
import pty
import select
import sys
import time

WAIT_S = 120
PERSON_S = 0.2  # nobody types sooner after what they saw; a line editor sets up its terminal meanwhile

want, answer, *argv = sys.argv[1:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
seen, typed, end = b"", False, time.monotonic() + WAIT_S
while time.monotonic() < end:
    if select.select([fd], [], [], PERSON_S)[0]:
        try:
            got = os.read(fd, 65536)
        except OSError:  # the other side is gone
            break
        if not got:
            break
        seen += got
    elif not typed and want.encode() in seen:
        os.write(fd, answer.encode() + b"\r")
        typed = True
    elif seen.count(want.encode()) > 1:
        os.write(fd, b"\x04")
sys.stdout.buffer.write(seen)
sys.stdout.flush()
if time.monotonic() >= end:
    os.kill(pid, 9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
