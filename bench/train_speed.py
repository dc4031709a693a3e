#!/usr/bin/env python3
"""bench/train_speed.py - training steps of gist-train beside the same steps in torch (tests/reference/train_twin.py).

Both read the same recipe, corpus and model, with as many threads, one sequence a step; rounds are interleaved. What
counts is the ratio of the medians of tokens/s of all steps but each run's first, which compiles and warms up.
Prints a table in Markdown.

    venv/bin/python bench/train_speed.py [--rounds 3] [--steps 5] [--ratio 8] [--precision f32] ...

--corpus FILE   a corpus file of the model; without, one is made of this repository's sources
--options TEXT  more of a recipe, such as "rank = 16" (may be repeated)
BUILD           the folder with gist-train (build/release)
TRAIN_PYTHON    a Python that has tests/requirements-train.txt; this one
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # the module beside this file
from common import BUILD, ROOT, THREADS, add, quietly, say, spread

TWIN = f"{ROOT}/tests/reference/train_twin.py"


def run(argv, folder):
    """Peak resident MiB."""
    path = os.path.join(folder, "output")
    with open(path, "w") as out:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(p.pid, 0)
    if status != 0:
        with open(path, errors="replace") as out:
            raise SystemExit(f"bench/train_speed.py: {' '.join(argv)} failed:\n{out.read()[-2000:]}")
    return usage.ru_maxrss / 1024


def step_seconds(log):
    """Of all steps but the first."""
    with open(log) as f:
        lines = [json.loads(line) for line in f]
    lines = [line for line in lines if "step" in line and "loss" in line]
    return [line["seconds"] for line in lines[1:]], [line["loss"] for line in lines]


def measure(a, folder, recipe, argv, who, precision, samples):
    log = os.path.join(folder, "log")
    if os.path.exists(log):
        os.remove(log)
    memory = run([*argv, "--config", recipe, "--log", log, "--precision", precision], folder)
    seconds, losses = step_seconds(log)
    for s in seconds:
        add(samples, (who, precision), a.sequence / s)
    add(samples, (who, precision, "memory"), memory)
    samples[who, precision, "losses"] = losses
    say(f"{who} {precision}: {a.sequence / statistics.median(seconds):.0f} tokens/s, {memory:.0f} MiB, "
        f"losses {' '.join(f'{x:.3f}' for x in losses)}")


def write_recipe(a, folder):
    corpus = a.corpus
    if not corpus:
        corpus = os.path.join(folder, "corpus")
        quietly(f"{BUILD}/gist-train", "corpus", "--model", a.model, corpus, f"{ROOT}/engine", f"{ROOT}/docs")
    path = os.path.join(folder, "recipe")
    with open(path, "w") as f:
        print(f"model = {os.path.abspath(a.model)}\ncorpus = {os.path.abspath(corpus)}\nsequence = {a.sequence}\n"
              f"segment = {a.segment}\nratios = {a.ratio}\nsteps = {a.steps}\nbatch = 1\nwarmup = 1\n"
              f"threads = {a.threads}\neval-every = 0\nsave-every = 0", file=f)
        print("\n".join(a.options), file=f)
    return path


def differ(samples, precision):
    """The most that the two losses of a step do: that both took the same steps."""
    return max(abs(x - y) for x, y in zip(*(samples[who, precision, "losses"] for who in ("gist-train", "torch"))))


def table(a, samples):
    lines = ["| products | gist-train, tokens/s | torch, tokens/s | ratio | gist-train, MiB | torch, MiB | "
             "losses differ by |", "|---|---|---|---|---|---|---|"]
    for precision in a.precision:
        ours, theirs = (samples[who, precision] for who in ("gist-train", "torch"))
        lines.append(f"| {precision} | {spread(ours, 0)} | {spread(theirs, 0)} | "
                     f"{statistics.median(ours) / statistics.median(theirs):.2f}x | "
                     f"{max(samples['gist-train', precision, 'memory']):.0f} | "
                     f"{max(samples['torch', precision, 'memory']):.0f} | {differ(samples, precision):.1e} |")
    return lines


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default=os.environ.get("GISTD_TEST_MODEL"))
    p.add_argument("--corpus")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--ratio", type=int, default=8)
    p.add_argument("--sequence", type=int, default=2048)
    p.add_argument("--segment", type=int, default=512)
    p.add_argument("--threads", type=int, default=THREADS)
    p.add_argument("--precision", action="append", choices=("f32", "bf16"))
    p.add_argument("--options", action="append", default=[])
    a = p.parse_args()
    a.precision = a.precision or ["f32", "bf16"]
    if not a.model:
        a.model = quietly(f"{ROOT}/scripts/fetch-model").strip().splitlines()[-1]
    samples, python = {}, os.environ.get("TRAIN_PYTHON", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(a, folder)
        for _ in range(a.rounds):
            for precision in a.precision:
                measure(a, folder, recipe, [f"{BUILD}/gist-train"], "gist-train", precision, samples)
                measure(a, folder, recipe, [python, TWIN], "torch", precision, samples)
    print(f"Sequences of {a.sequence} tokens in segments of {a.segment}, ratio {a.ratio}, {a.threads} threads; "
          f"{a.rounds} rounds of {a.steps} steps.\n")
    print("\n".join(table(a, samples)))


if __name__ == "__main__":
    main()
