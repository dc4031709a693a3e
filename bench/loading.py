"""Weights: each way that they get into memory, and models that stream beside the disk and beside a model that stays.

bench/weights loads one model by each way and decodes with it. fio reads the image as a stream does at its best:
O_DIRECT, io_uring, a MiB at a time, a queue of 32.
"""
import json
import os
import statistics
import tempfile

import models
from common import BUILD, ROOT, add, output_of, say, spread

WAYS = (("pack", "packed from the GGUF file"), ("direct", "image, O_DIRECT into huge pages"),
        ("buffered", "image, through the page cache into huge pages"), ("mapped", "image, mapped"),
        ("mapped-huge", "image, mapped, huge pages asked for"))
BUDGETS = {"Q4_1": (8 << 20, 40 << 20, 60 << 20, 90 << 20), "8B": (1 << 30, 3 << 30)}
TOKENS = {"Q4_1": 100, "8B": 8}


def fio(folder):
    path = os.path.join(folder, next(f for f in os.listdir(folder) if f.endswith(".weights")))
    out = output_of("fio", "--name=image", f"--filename={path}", "--readonly", "--rw=read", "--bs=1M", "--direct=1",
                    "--ioengine=io_uring", "--iodepth=32", "--output-format=json")
    return json.loads(out)["jobs"][0]["read"]["bw_bytes"] / 1e6


def rows_of(*argv):
    return [json.loads(line) for line in output_of(f"{BUILD}/bench/weights", *argv).splitlines()]


def measure(model, folder, rounds):
    ways, streams, disk = {}, {}, []
    n, budgets = str(TOKENS[model.name]), BUDGETS[model.name]
    for i in range(rounds):
        say(f"weights: {model.name}, round {i + 1} of {rounds}")
        for row in rows_of("-n", n, model.path, folder):
            key = row["way"], row["cold"]
            for what in ("load_ns", "check_ns", "decode"):
                add(ways, (*key, what), row[what])
        disk.append(fio(folder))
        for row in rows_of("-n", n, *(a for b in budgets for a in ("-b", str(b))), model.path, folder):
            for what in ("memory", "streamed", "decode", "read_mb_s", "waited"):
                add(streams, (row["budget"], what), row[what])
    return ways, streams, disk


def lines_of(model, rounds, ways, streams, disk):
    mid = statistics.median
    lines = [f"**{model.name}**, median of {rounds} rounds (lowest to highest).", "",
             "| way | cold, ms | warm, ms | compared with its digests, ms | tokens/s |", "|---|---|---|---|---|"]
    for key, title in WAYS:
        check = ways[key, False, "check_ns"]
        lines.append(f"| {title} | " + " | ".join(
            spread([v / 1e6 for v in ways[key, cold, "load_ns"]], 0) for cold in (True, False)) +
            f" | {mid(check) / 1e6:.0f} | {spread(ways[key, False, 'decode'], 1)} |")
    resident = mid(ways["pack", False, "decode"])
    lines += ["", f"Streamed, beside fio's {mid(disk):.0f} MB/s from the image and {resident:.1f} tokens/s of all in memory:",
              "", "| weight-bytes | held, MB | passes a token, MB | tokens/s | of all in memory | read, MB/s | of fio | waits |",
              "|---|---|---|---|---|---|---|---|"]
    for budget in BUDGETS[model.name]:
        of = {what: mid(streams[budget, what]) for what in ("memory", "streamed", "decode", "read_mb_s", "waited")}
        lines.append(f"| {budget >> 20}M | {of['memory'] / 1e6:.1f} | {of['streamed'] / 1e6:.1f} | "
                     f"{spread(streams[budget, 'decode'], 2)} | {of['decode'] / resident:.2f}x | {of['read_mb_s']:.0f} | "
                     f"{of['read_mb_s'] / mid(disk):.2f}x | {100 * of['waited']:.0f} % |")
    return lines


def bench_weights(rounds):
    lines = ["`BENCH_ONLY=weights make bench` (`BENCH_MODELS`: Q4_1, 8B). Cold: not in the page cache; decode is the best "
             "token of a run, of a stream the mean."]
    base = os.environ.get("BENCH_FOLDER", os.path.join(ROOT, "build"))
    for model in models.chosen(BUDGETS):
        with tempfile.TemporaryDirectory(dir=base, prefix="bench-weights-") as folder:
            lines += ["", *lines_of(model, rounds, *measure(model, folder, rounds))]
    return lines
