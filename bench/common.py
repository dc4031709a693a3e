"""What the modules of bench/run share: where things are, running a program, median and spread."""
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build/release"))

N_CPUS = len(os.sched_getaffinity(0))
THREADS = int(os.environ.get("BENCH_THREADS", N_CPUS))


def say(*args):
    print(*args, file=sys.stderr, flush=True)


def output_of(*argv, **more):
    return subprocess.run(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True,
                          text=True, **more).stdout


def quietly(*argv):
    """What it prints is only shown when it fails. In a folder that goes: some leave logs where they are."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              stdin=subprocess.DEVNULL, errors="replace", check=False, cwd=folder)
    if done.returncode != 0:
        raise SystemExit(f"bench/run: {' '.join(argv)} ended with {done.returncode}:\n"
                         f"{done.stdout[-2000:]}")
    return done.stdout


def add(samples, key, value):
    samples.setdefault(key, []).append(value)


def spread(values, digits):
    """'median (lowest to highest)', or the only one."""
    mid = f"{statistics.median(values):.{digits}f}"
    return mid if len(values) == 1 else (f"{mid} ({min(values):.{digits}f} to "
                                         f"{max(values):.{digits}f})")
