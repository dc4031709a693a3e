"""loading.py GISTCTL SOCKET - gistctl before a daemon that loads its model and does not get it.

On a terminal `ask` shows how far it is, writes over that line and takes it away; into a pipe it says
nothing of it. `status` prints it at once and ends with 4. `ask` ends with what the daemon says in the end.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import threading

from terminal import Terminal

gistctl, path = sys.argv[1], sys.argv[2]
MAGIC = b"gistd\r\n\x1a"
LOADING, STOPPING = 5, 4
PERCENTS = 7, 43


def answer(status, percent, text):
    return struct.pack("<8sII3II224s", MAGIC, 1, status, 0, 0, 0, percent, text)


def serve(listener):
    while True:
        conn, _ = listener.accept()
        with conn:
            hello = conn.recv(64)
            assert hello[:8] == MAGIC and hello[10] & 1, hello
            try:
                for percent in PERCENTS:
                    conn.send(answer(LOADING, percent, b""))
                conn.send(answer(STOPPING, 0, b"the daemon could not load its model"))
            except BrokenPipeError:  # status, which goes when it has the first
                pass


def on_terminal(*argv):
    t = Terminal(*argv)
    return t.exit_code(), t.all


def check(what, ok, seen):
    if not ok:
        sys.exit(f"{what}: {seen!r}")


listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(path)
listener.listen(8)
threading.Thread(target=serve, args=(listener,), daemon=True).start()
os.environ["GISTD_SOCKET"] = path

code, seen = on_terminal(gistctl, "ask", "Why?")
lines = [b"\rgistd is loading the model: %d %%" % p for p in PERCENTS]
check("ask on a terminal", code == 3 and b"".join(lines) + b"\r\x1b[K" in seen, seen)
check("ask says how it ended", b"could not load" in seen.split(b"\x1b[K")[1], seen)

run = subprocess.run([gistctl, "ask", "Why?"], capture_output=True, stdin=subprocess.DEVNULL)
check("ask into a pipe", run.returncode == 3 and run.stdout == b"" and b"loading the model:" not in run.stderr, run)

run = subprocess.run([gistctl, "status"], capture_output=True)
check("status", run.returncode == 4 and run.stdout == b"gistd is loading the model: 7 %\n" and not run.stderr, run)
run = subprocess.run([gistctl, "status", "--json"], capture_output=True)
check("status --json", run.returncode == 4 and json.loads(run.stdout) == {"loading_percent": 7}, run)
