"""A gistd of our own, and what it does in a second: measured through the daemon and libgist."""
import json
import os
import signal
import socket
import subprocess
import tempfile
import time

from common import BUILD, THREADS, add, output_of

READY_S = 600
SHORT_PROMPT = 16
N_SESSIONS = 8
SESSION_PROMPT, SESSION_TOKENS = 128, 32


def status_kib(pid, field):
    with open(f"/proc/{pid}/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise SystemExit(f"bench/run: /proc has no {field}")


def has_kv_type(name):
    """Whether the option --kv-type knows it."""
    text = output_of(f"{BUILD}/gistd", "--help")
    return name in text[text.index("--kv-type"):].split("\n  --", 2)[0]


class Daemon:
    """ready_s is the time from its start to READY=1, start the moment of it."""

    def __init__(self, model, folder, kv_bytes, kv_type="f16", more=("--prefix-cache", "no"), build=BUILD):
        self.build = build
        self.socket = os.path.join(folder, "gistd.sock")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(folder, "notify")
        notify.bind(path)
        notify.settimeout(READY_S)
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [f"{build}/gistd", "--model", model, "--socket", self.socket, "--kv-bytes", kv_bytes,
             "--kv-type", kv_type, "--threads", str(THREADS), "--log-level", "warning", *more],
            env=dict(os.environ, NOTIFY_SOCKET=path, GISTD_STORE=os.path.join(folder, "store"),
                     GISTD_WEIGHT_CACHE="none"),
            stdin=subprocess.DEVNULL)
        try:
            while b"READY=1" not in notify.recv(4096).split(b"\n"):
                pass
        except socket.timeout:
            self.stop()
            raise SystemExit(f"bench/run: gistd is not ready after {READY_S} s") from None
        self.ready_s = time.monotonic() - self.start
        notify.close()
        os.unlink(path)

    def run(self, *argv):
        return output_of(f"{self.build}/{argv[0]}", *argv[1:],
                         env=dict(os.environ, GISTD_SOCKET=self.socket))

    def measured(self, *args):
        """What bench/decode says of each thing that it was asked for."""
        return [json.loads(line) for line in self.run("bench/decode", *args).splitlines()]

    def decode(self, *args):
        """Tokens a second of each."""
        return [m["tokens"] * 1e9 / m["ns"] for m in self.measured(*args)]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def measure(model, n_gen, tests, samples):
    """One round of the tests (see bench/speed.py), each result added to its samples."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(model.path, folder, model.kv_bytes)
        try:
            daemon.decode("-f", str(SHORT_PROMPT))
            add(samples, ("first",), time.monotonic() - daemon.start)
            add(samples, ("load",), daemon.ready_s)
            daemon.decode("-p", "64")          # to warm up, as the peers do
            for test in tests:
                if test[0] == "prefill":
                    args = ["-p", str(test[1])]
                elif test[0] == "decode":
                    args = ["-d", str(test[1]), "-n", str(n_gen)]
                elif test[0] == "sessions":
                    args = ["-s", str(N_SESSIONS), "-c", str(SESSION_PROMPT), "-n",
                            str(SESSION_TOKENS)]
                else:
                    continue
                add(samples, test, daemon.decode(*args)[0])
            add(samples, ("memory",), status_kib(daemon.process.pid, "VmHWM") / 1024)
        finally:
            daemon.stop()


def measure_kv(model, n_gen, test, samples):
    """test is ("kv", type, depth): decoding with another type of KV than f16."""
    _, kv_type, depth = test
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(model.path, folder, model.kv_bytes, kv_type)
        try:
            add(samples, test, daemon.decode("-d", str(depth), "-n", str(n_gen))[0])
        finally:
            daemon.stop()
