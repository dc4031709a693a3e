#!/usr/bin/env python3
"""bench/gap.py - what of its memory a compressor keeps: perplexity from outside, by `gistctl score`.

    bench/gap.py [--ratios 4,8,16] [--methods select,fine-kv] [--adapter NAME]... FILE...

Asks the daemon that GISTD_SOCKET names. Texts are read in windows of --segments segments of 512 tokens, up to
--windows of each file, from its start; all segments but the first are scored, what came before in the window is
there as the compressor keeps it. A row's share is that of the gap between remembering nothing (--compressor none) and
full attention which it closes. An adapter's row has the method that it was made for; adapters are
loaded by the daemon (gistd --adapter).

Shares vary between texts more than between compressors: compare rows of one run only. "lowest to highest"
are the files' own shares.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEGMENT = 512
# More than text of any language that the tokenizer knows has.
BYTES_PER_TOKEN = 8
MARGIN = 16


def options():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog=__doc__.split("\n", 2)[2])
    p.add_argument("--ratios", default="4,8,16", help="tokens a gist stands for (%(default)s)")
    p.add_argument("--methods", default="select,fine-kv", help="without an adapter (%(default)s)")
    p.add_argument("--adapter", action="append", default=[], metavar="NAME",
                   help="of those that the daemon has loaded; again for more")
    p.add_argument("--windows", type=int, default=4, help="of each file, at most (%(default)s)")
    p.add_argument("--segments", type=int, default=4, help="of a window (%(default)s)")
    p.add_argument("--skip", type=int, default=0, help="bytes of each file to leave out first (%(default)s)")
    p.add_argument("--gistctl", default=os.path.join(ROOT, "build/release/gistctl"))
    p.add_argument("--json", action="store_true", help="one object a row instead of a table")
    p.add_argument("files", nargs="+", metavar="FILE")
    o = p.parse_args()
    if o.segments < 2:
        p.error(f"--segments: found {o.segments}, expected 2 or more: the first is not scored")
    return o


def window(o):
    return SEGMENT * o.segments


def gistctl(o, *args, stdin=None):
    done = subprocess.run([o.gistctl, *args], input=stdin, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench/gap.py: gistctl {' '.join(args)} failed")
    return done.stdout


def cut(o, path, ret_path):
    """Its windows as a text of their own, with a few tokens more: the last of a text may be cut otherwise."""
    with open(path, "rb") as f:
        f.seek(o.skip)
        text = f.read(o.windows * window(o) * BYTES_PER_TOKEN).decode("utf-8", "ignore").encode()
    ids = gistctl(o, "tokenize", stdin=text).split()
    n_windows = min(o.windows, len(ids) // window(o))
    if n_windows == 0:
        raise SystemExit(f"bench/gap.py: {path} has no window of {window(o)} tokens to score")
    with open(ret_path, "wb") as f:
        f.write(gistctl(o, "detokenize", stdin=b" ".join(ids[:n_windows * window(o) + MARGIN])))
    return n_windows


def window_nlls(o, path, n_windows, memory):
    """The mean over what is scored of each window."""
    size = window(o)
    scored = gistctl(o, "score", *memory, "--segment", str(SEGMENT), "--window", str(size), path, "--json")
    logprobs = json.loads(scored)["logprobs"]
    starts = range(0, n_windows * size, size)
    return [-statistics.fmean(logprobs[at + SEGMENT:at + size]) for at in starts]


def rows_of(o):
    """(name, ratio, options of gistctl): both ends of the gap come first."""
    rows = [("segment only", None, ["--compressor", "none"]), ("full", None, ["--compressor", "full"])]
    ratios = [r for r in o.ratios.split(",") if r]
    for method in filter(None, o.methods.split(",")):
        rows += [(method, r, ["--compressor", method, "--ratio", r]) for r in ratios]
    for adapter in o.adapter:
        rows += [(f"adapter {adapter}", r, ["--adapter", adapter, "--ratio", r]) for r in ratios]
    return rows


def pooled(files):
    return statistics.fmean(x for windows in files for x in windows)


def share(x, none, full):
    return (none - x) / (none - full) if none != full else float("nan")


def print_row(o, row, nlls, ends):
    """nlls, and both ends': (files, windows)."""
    name, ratio, _ = row
    mine, none, full = pooled(nlls), *map(pooled, ends)
    closed = share(mine, none, full)
    each = sorted(share(*map(statistics.fmean, three)) for three in zip(nlls, *ends))
    if o.json:
        print(json.dumps({"method": name, "ratio": ratio and int(ratio), "nll": mine, "share": closed,
                          "share_of_files": each}), flush=True)
    else:
        print(f"| {name} | {ratio or '-'} | {mine:.4f} | {closed:.1%} | {each[0]:.0%} to {each[-1]:.0%} |",
              flush=True)


def print_head(o, n_windows):
    if not o.json:
        print(f"{len(o.files)} files, {n_windows} windows of {o.segments} segments of {SEGMENT} tokens, "
              f"segments 2 to {o.segments} scored.\n\n"
              "| memory of earlier segments | ratio | nll | of the gap | lowest to highest file |\n"
              "|---|---|---|---|---|", flush=True)


def measure(o, folder):
    texts = [os.path.join(folder, str(i)) for i in range(len(o.files))]
    counts = [cut(o, path, text) for path, text in zip(o.files, texts)]
    rows = rows_of(o)

    def measured(row):
        return [window_nlls(o, text, n, row[2]) for text, n in zip(texts, counts)]

    ends = [measured(row) for row in rows[:2]]
    print_head(o, sum(counts))
    for row, nlls in zip(rows, ends):
        print_row(o, row, nlls, ends)
    for row in rows[2:]:
        print_row(o, row, measured(row), ends)


def main():
    o = options()
    with tempfile.TemporaryDirectory() as folder:
        measure(o, folder)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
