"""on_terminal.py WANT ANSWER COMMAND... - runs a command on a terminal, waits until it has printed WANT, types ANSWER
and Enter; when it prints WANT again, Ctrl-D until it ends. Prints all that it said. Its exit code is the command's.
"""
import os
import sys
import time

from terminal import Terminal

WAIT_S = 120
PERSON_S = 0.2  # nobody types sooner after what they saw; a line editor sets up its terminal meanwhile

want, answer, *argv = sys.argv[1:]
t = Terminal(*argv)
typed, end = False, time.monotonic() + WAIT_S
while time.monotonic() < end:
    before = len(t.all)
    if not t.read(PERSON_S):
        break
    if len(t.all) > before:
        continue
    if not typed and want.encode() in t.all:
        t.type(answer + "\r")
        typed = True
    elif t.all.count(want.encode()) > 1:
        t.type("\x04")
sys.stdout.buffer.write(t.all)
sys.stdout.flush()
if time.monotonic() >= end:
    os.kill(t.pid, 9)
sys.exit(t.exit_code())
