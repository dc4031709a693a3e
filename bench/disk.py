"""Pages to the disk and back beside fio: the same file, the same sizes, interleaved rounds.

fio has O_DIRECT and io_uring, and the better of two settings: a queue of 32, or one of 128 with registered
memory. It writes as we do, synced after each record. What goes through the store is published, found by its ids
and verified on top of that.
"""
import json
import os
import shutil
import statistics
import tempfile

from common import BUILD, ROOT, add, output_of, say, spread

RECORDS = 32
PAGES = 32                      # of a record
PAGE = 360 << 10
LEN = RECORDS * PAGES * PAGE
FLOOR, AIM = 0.8, 0.95

# title, bench/io's arguments before N, what fio did
ROWS = (("write, io_uring, O_DIRECT", ("write", "uring", "direct"), "write"),
        ("write, io_uring, registered memory", ("write", "uring", "registered"), "write"),
        ("write, io_uring, memory in 4 KiB pages", ("write", "uring", "small"), "write"),
        ("write, io_uring, page cache", ("write", "uring", "cached"), "write"),
        ("write, threads, O_DIRECT", ("write", "threads", "direct"), "write"),
        ("read, io_uring, O_DIRECT", ("read", "uring", "direct"), "read"),
        ("read, io_uring, registered memory", ("read", "uring", "registered"), "read"),
        ("read, io_uring, memory in 4 KiB pages", ("read", "uring", "small"), "read"),
        ("read, threads, O_DIRECT", ("read", "threads", "direct"), "read"),
        ("read, io_uring, page cache", ("read", "uring", "cached"), "read"),
        ("store: put", ("put", "uring"), "write"),
        ("store: get, right after put", ("get-warm", "uring"), "read"),
        ("store: get, not in the page cache", ("get-cold", "uring"), "read"))

FIO = {"queue of 32": ("--iodepth=32",), "queue of 128, registered": ("--iodepth=128", "--mem=mmap", "--fixedbufs=1")}


def fio(path, what, how):
    sync = (f"--fsync={PAGES}", "--end_fsync=1") if what == "write" else ()
    out = output_of("fio", "--name=pages", f"--filename={path}", f"--rw={what}", f"--bs={PAGE}", f"--size={LEN}",
                    "--direct=1", "--ioengine=io_uring", "--output-format=json", *FIO[how], *sync)
    return json.loads(out)["jobs"][0][what]["bw_bytes"] / 1e6


def fio_files(folder):
    """A new file a record, synced when it is closed: what a store has to do at least, without names and checksums."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    out = output_of("fio", "--name=files", f"--directory={folder}", "--rw=write", f"--bs={PAGE}", f"--nrfiles={RECORDS}",
                    f"--filesize={PAGES * PAGE}", "--openfiles=1", "--file_service_type=sequential",
                    "--create_on_open=1", "--fallocate=native", "--fsync_on_close=1", "--direct=1",
                    "--ioengine=io_uring", "--iodepth=32", "--output-format=json")
    shutil.rmtree(folder)
    return json.loads(out)["jobs"][0]["write"]["bw_bytes"] / 1e6


def ours(path, args):
    return json.loads(output_of(f"{BUILD}/bench/io", path, *args, str(RECORDS)))


def measure(folder, rounds):
    path, store = os.path.join(folder, "pages"), os.path.join(folder, "store")
    speeds, submits = {}, {}
    fio(path, "write", "queue of 32")  # its blocks are there from now on
    for n in range(rounds):
        say(f"io: round {n + 1} of {rounds}")
        for what in ("write", "read"):
            for how in FIO:
                add(speeds, f"fio {what} {how}", fio(path, what, how))
        add(speeds, "fio files", fio_files(os.path.join(folder, "files")))
        for title, args, _ in ROWS:
            if args[0] == "put":
                shutil.rmtree(store, ignore_errors=True)
            run = ours(store if args[0] in ("put", "get-cold", "get-warm") else path, args)
            add(speeds, title, run["mb_s"])
            add(submits, title, run["submit_ms"])
    for what in ("write", "read"):
        best = max(FIO, key=lambda how, w=what: statistics.median(speeds[f"fio {w} {how}"]))
        speeds[f"fio {what}"] = speeds[f"fio {what} {best}"]
    return speeds, submits


def bench_disk(rounds):
    base = os.environ.get("BENCH_FOLDER", os.path.join(ROOT, "build"))
    with tempfile.TemporaryDirectory(dir=base, prefix="bench-io-") as folder:
        speeds, submits = measure(folder, rounds)
    lines = [f"`BENCH_ONLY=io make bench`: {RECORDS} records of {PAGES} pages of 360 KiB ({LEN / 1e6:.0f} MB); MB/s, "
             f"median of {rounds} interleaved rounds (lowest to highest). fio: O_DIRECT, io_uring, the better of two "
             "settings.", "", "| | gistd | fio | ratio | in io_submit, ms |", "|---|---|---|---|---|"]
    for title, args, what in ROWS:
        mine, peer = statistics.median(speeds[title]), statistics.median(speeds[f"fio {what}"])
        inside = f"{statistics.median(submits[title]):.1f}" if args[0] in ("write", "read") else "-"
        lines.append(f"| {title} | {spread(speeds[title], 0)} | {spread(speeds[f'fio {what}'], 0)} | "
                     f"{mine / peer:.2f}x | {inside} |")
    files, put = statistics.median(speeds["fio files"]), statistics.median(speeds["store: put"])
    lines += ["", f"fio with a new file a record, synced when it is closed, writes {spread(speeds['fio files'], 0)} MB/s: the "
              f"store's put is {put / files:.2f}x of that."]
    lines += ["", f"Floor {FLOOR}x of fio, aim {AIM}x. Writes are synced after each record, fio's too; the store's are new "
              "files, published whole. Time in io_submit is the caller's, the scheduler's in the daemon. Our memory is in "
              "huge pages, as the pool is, where a row does not say otherwise; fio's is in pages of 4 KiB."]
    return lines
