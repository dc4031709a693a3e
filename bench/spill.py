"""What an answer loses when another session's context is written to the disk meanwhile.

One client writes an answer behind 512 tokens; another reads texts that nobody has read before, one after the other, so
that each of their segments goes to the store. The same with --store none, in turns: the other's reading takes its
share of the machine in both.
"""
import os
import random
import statistics
import subprocess
import tempfile
import threading

import models
from common import BUILD, add, say, spread
from ours import Daemon

N_GEN = int(os.environ.get("BENCH_SPILL_TOKENS", "256"))
WORDS = "the of and to in is was for on that by with as at from his it an were are which this be or had".split()
FLOOR = 0.95


def text(seed):
    """Some 1500 tokens."""
    r = random.Random(seed)
    return " ".join(r.choice(WORDS) for _ in range(1500))


def read_texts(daemon, folder, ended, seed):
    path, n = os.path.join(folder, "text"), 0
    while not ended.is_set():
        with open(path, "w", encoding="utf-8") as f:
            f.write(text(seed + n))
        n += 1
        subprocess.run([f"{BUILD}/gistctl", "ask", "-n", "1", "-f", path, "Go on."], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, GISTD_SOCKET=daemon.socket))


def measure(model, store, seed, samples):
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        more = ("--store", os.path.join(folder, "store") if store else "none")
        daemon = Daemon(model, folder, "512M", more=more)
        ended = threading.Event()
        other = threading.Thread(target=read_texts, args=(daemon, folder, ended, seed))
        try:
            daemon.decode("-p", "64")
            other.start()
            add(samples, store, daemon.decode("-d", "512", "-n", str(N_GEN))[0])
        finally:
            ended.set()
            other.join()
            daemon.stop()


def bench_spill(rounds):
    samples = {}
    for i in range(rounds):
        say(f"spill: round {i + 1} of {rounds}")
        for store in (False, True):
            measure(models.default_path(), store, 1000 * i, samples)
    ratio = statistics.median(a / b for a, b in zip(samples[True], samples[False]))
    return [f"An answer of {N_GEN} tokens while another client reads: {spread(samples[True], 1)} tokens/s where what that one reads is "
            f"written to the store, {spread(samples[False], 1)} with --store none: {ratio:.2f}x, at least {FLOOR}x asked."]
