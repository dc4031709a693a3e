"""What long context costs, by compressor and ratio: KV bytes, decode speed, reading; beside llama.cpp.

At each depth all rows are measured before the next one (ours, llama.cpp, ours again, ...), because a
machine's speed drifts; what counts are ratios of medians of one run. Our daemons remember beginnings, so that
a context is read once and then grows; llama-bench reads it for every row and round. KV bytes are what the
daemon charges the session, and what llama.cpp says that its cache has for as many tokens.
"""
import os
import re
import statistics
import tempfile

import models
import ours
import peers
import plot
from common import BUILD, ROOT, THREADS, add, output_of, quietly, say

WINDOW = 8192
DEPTHS = (1024, 2048, 4096, 6144, 8192, 16384, 32768)
N_GEN = 48
ROOM = 64               # a full context and what is written have to fit the window
REPS = 2                # a peer's samples of each context that it reads
CHOOSE = 2048           # what is the peer's best setting here is its setting behind longer contexts
MIB = 1 << 20
KV_BYTES = "1G"
PLOT = "docs/memory_bench.svg"

# title, compressor and ratio, with an adapter or not: what reading costs, (1 + 1 / ratio) of the first row
READS = (("full", "full", 0, False), ("select, ratio 8", "select", 8, False),
         ("fine-kv, ratio 8", "fine-kv", 8, False), ("fine-kv with an adapter, ratio 8", "fine-kv", 8, True),
         ("fine-kv with an adapter, ratio 2", "fine-kv", 2, True))
READ_LENGTHS = (2048, 6144)

SPEED_FLOOR, READ_OVER, FLAT = 3.0, 0.10, 1.20


class Row:
    """args: bench/decode's, None for the peer's rows."""

    def __init__(self, name, kv, args=None, longest=DEPTHS[-1]):
        self.name, self.kv, self.args, self.longest = name, kv, args, longest
        self.speeds, self.bytes, self.bytes_end = {}, {}, {}     # by depth

    def depth(self, depth):
        return min(depth, WINDOW - ROOM) if self.longest == WINDOW else depth

    def depths(self):
        return [d for d in DEPTHS if d <= self.longest]

    def speed(self, depth):
        return statistics.median(self.speeds[depth])


def policy_args(compressor, ratio):
    return ["-C", compressor] + (["-R", str(ratio)] if ratio else [])


def our_rows():
    rows = [Row(f"full, {kv}", kv, policy_args("full", 0), WINDOW) for kv in ("f16", "q8_0")]
    return rows + [Row(f"{name}, ratio {ratio}", "f16", policy_args(name, ratio))
                   for ratio in (8, 32) for name in ("select", "fine-kv")]


def peer_rows():
    return [Row(f"llama.cpp full, {kv}", kv, None, WINDOW) for kv in ("f16", "q8_0")]


# --- decoding --------------------------------------------------------------------------------------

def measure_ours(rows, daemons, depth):
    for row in rows:
        if depth <= row.longest:
            found, = daemons[row.kv].measured("-d", str(row.depth(depth)), "-n", str(N_GEN), *row.args)
            add(row.speeds, depth, found["tokens"] * 1e9 / found["ns"])
            row.bytes[depth], row.bytes_end[depth] = found["kv_bytes"], found["kv_bytes_end"]


def settings(peer, row, depth):
    if row.kv != "f16":
        return [s for s in peer.settings if s.flash]     # a quantised V wants flash attention
    best = peer.best((row.kv, CHOOSE))
    return [s for s in peer.settings if depth <= CHOOSE or s.name == best[2]]


def measure_peer(peer, model, row, depth):
    for setting in settings(peer, row, depth):
        found, _, _ = peer.bench(model, setting, "-p", "0", "-n", str(N_GEN), "-d", str(row.depth(depth)),
                                 "-r", str(REPS), kv=row.kv)
        for speed in found[-1]["samples_ts"]:
            peer.keep((row.kv, depth), setting, speed)
    row.speeds[depth] = peer.best((row.kv, depth))[1]


def count_peer_bytes(peer, model, row):
    """From a line like: llama_kv_cache: size =  180.00 MiB (  8192 cells,  30 layers, ..."""
    text = quietly(peer.batched, "-m", model.path, "-c", str(WINDOW), "-ctk", row.kv, "-ctv", row.kv, "-fa",
                   "on", "-npp", "8", "-ntg", "1", "-npl", "1", "-v")
    size = re.search(r"size = *([0-9.]+) MiB \( *(\d+) cells", text)
    if not size:
        raise SystemExit(f"bench/run: {peer.batched} does not say how large its cache is")
    cell = float(size.group(1)) * MIB / int(size.group(2))
    row.bytes = {depth: round(cell * row.depth(depth)) for depth in row.depths()}


def measure_decoding(model, peer, rounds):
    mine, theirs = our_rows(), peer_rows()
    for row in theirs:
        count_peer_bytes(peer, model, row)
    with tempfile.TemporaryDirectory() as f16, tempfile.TemporaryDirectory() as q8:
        daemons = {}
        try:
            for kv, folder in (("f16", f16), ("q8_0", q8)):
                daemons[kv] = ours.Daemon(model.path, folder, KV_BYTES, kv, ("--prefix-cache", "yes"))
            for i in range(rounds):
                for depth in DEPTHS:
                    say(f"memory, round {i + 1} of {rounds}: behind {depth} tokens")
                    measure_ours(mine, daemons, depth)
                    for row in theirs:
                        if depth <= row.longest:
                            measure_peer(peer, model, row, depth)
                        measure_ours(mine, daemons, depth)
        finally:
            for daemon in daemons.values():
                daemon.stop()
    return mine, theirs


# --- reading ---------------------------------------------------------------------------------------

def measure_reading(model, rounds):
    """Seconds, by title and length."""
    samples = {}
    with tempfile.TemporaryDirectory() as folder:
        adapter = os.path.join(folder, "init.safetensors")
        quietly(os.path.abspath(f"{BUILD}/gist-adapter"), "init", "-m", model.path, adapter)
        daemon = ours.Daemon(model.path, folder, KV_BYTES, "f16",
                             ("--prefix-cache", "no", "--adapter", adapter))
        try:
            daemon.measured("-p", "64")
            for i in range(rounds):
                say(f"memory, round {i + 1} of {rounds}: reading")
                for n in READ_LENGTHS:
                    for title, compressor, ratio, adapted in READS:
                        args = policy_args(compressor, ratio) + (["-A", "init"] if adapted else [])
                        found, = daemon.measured("-p", str(n), *args)
                        add(samples, (title, n), found["ns"] / 1e9)
        finally:
            daemon.stop()
    return samples


# --- the page --------------------------------------------------------------------------------------

def title(depth):
    return f"{depth // 1024}K"


def table(rows, cell):
    lines = ["| | " + " | ".join(map(title, DEPTHS)) + " |", "|---|" + "---|" * len(DEPTHS)]
    for row in rows:
        cells = [cell(row, depth) if depth in row.depths() else "-" for depth in DEPTHS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return lines


def bold_unless(good, text):
    return text if good else f"**{text}**"


def target_lines(mine, theirs):
    """Decoding at 6K and ratio 8, and at 32K over 8K at ratio 32. Bold is not reached."""
    rows = {row.name: row for row in mine}
    lines = ["| | asked for | measured |", "|---|---|---|"]
    for name in ("select, ratio 8", "fine-kv, ratio 8"):
        for other in theirs:
            times = rows[name].speed(6144) / other.speed(6144)
            lines.append(f"| decode at 6K, {name}, of {other.name} | {SPEED_FLOOR:.0f}x | "
                         f"{bold_unless(times >= SPEED_FLOOR, f'{times:.2f}x')} |")
        part = theirs[0].bytes[6144] / rows[name].bytes[6144]
        lines.append(f"| KV bytes at 6K, {name}, of {theirs[0].name} | 1/8 | 1/{part:.2f} |")
    for name in ("select, ratio 32", "fine-kv, ratio 32"):
        times = rows[name].speed(8192) / rows[name].speed(32768)
        lines.append(f"| time a token, {name}, 32K over 8K | {FLAT:.2f}x | "
                     f"{bold_unless(times <= FLAT, f'{times:.2f}x')} |")
    return lines


def reading_lines(samples):
    lines = []
    for what, _, ratio, _ in READS[1:]:
        for n in READ_LENGTHS:
            times = statistics.median(samples[what, n]) / statistics.median(samples[READS[0][0], n])
            most = 1 + 1 / ratio + READ_OVER
            lines.append(f"| reading {n} tokens, {what}, over plain | {most:.3f}x | "
                         f"{bold_unless(times <= most, f'{times:.3f}x')} |")
    return lines


def without_amx():
    with open("/proc/cpuinfo") as f:
        return " This CPU has AMX, which llama.cpp is built without (bench/build-llama)." if "amx_tile" in f.read() else ""


def notes(peer):
    chosen = peer.best(("f16", CHOOSE))[2]
    return [f"Bold is not reached. Segments of 512, 4 sinks, no tail, random tokens, {N_GEN} written behind each context. "
            f"Behind whole segments the open one is empty: it takes up to 512 raw keys more (11.3 MiB in f16) until it is "
            f"compressed. Full rows at 8K stand at {WINDOW - ROOM} tokens, which leaves the window room for the answer. "
            f"llama.cpp: f16 with flash attention or without, whichever is faster (behind more than {CHOOSE} tokens as at "
            f"{CHOOSE}: {chosen}); q8_0 with it.{without_amx()} KV bytes: the pages that Stats charges to the session behind the "
            f"context and one token; of llama.cpp what it says a cell takes, times tokens. At 6K and ratio 8 these are 48 pages "
            f"of gists, one more for sinks, and the open segment's first, where 6144 tokens take 384.",
            f"Reading: no prefix cache; plain is --compressor full, the adapter that of gist-adapter init, asked for is "
            f"1 + 1/r and {READ_OVER:.0%}."]


def bench_memory(rounds):
    model = next(m for m in models.MODELS if m.name == "Q4_1")
    model.path = models.default_path()
    peer = peers.Peer("llama.cpp", output_of(f"{ROOT}/bench/build-llama").strip())
    samples = measure_reading(model, rounds)
    mine, theirs = measure_decoding(model, peer, rounds)
    rows = mine + theirs
    with open(os.path.join(ROOT, PLOT), "w") as f:
        f.write(plot.draw(rows))
    head = [f"`BENCH_ONLY=memory make bench`: {os.path.basename(model.path)}, {THREADS} threads, median of "
            f"{rounds} interleaved rounds.", "", f"![decode speed and KV memory against context length]({os.path.basename(PLOT)})", "",
            "Decode speed, tokens/s, behind so many tokens of text:", ""]
    middle = ["", "KV of the session, MiB:", ""]
    targets = target_lines(mine, theirs) + reading_lines(samples)
    return (head + table(rows, lambda row, d: f"{row.speed(d):.1f}") + middle +
            table(rows, lambda row, d: f"{row.bytes[d] / MIB:.1f}") + [""] +
            targets + [""] + notes(peer))
