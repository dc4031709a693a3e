"""The first token of a long session after a restart, beside llama-server's slots saved and restored by hand.

Ours does nothing to have it: what was read lies on disk, and the next daemon finds it by the prompt's own tokens.
llama-server is told to save its slot, and after its restart to restore it, before it is asked. Both read the same
token ids once, are ended, start again and are asked for the same ids and one token more; what counts is the time
from asking (theirs: from asking for the restore) to that token. All of it is done in turns, since a machine's
speed drifts.

  warm     a second after all was written, ended by SIGTERM and started again at once: the store has read back into the
           page cache what it wrote past it, as llama-server's file is there
  kill -9  the same by SIGKILL, as soon as nothing is left to be written
  cold     by SIGTERM, and the page cache is dropped (root; else left out)

And where restoring beats computing: tokens are computed at so many a second, and each takes so many bytes of keys and
values, or a ratio-th of them as gists; a disk that reads faster than the product is the faster way.

  BENCH_RESTART_TOKENS=N   (4096)
  BENCH_RESTART_COLD=0     leaves the page cache alone: others may be using the machine
  BENCH_RESTART_DIR=DIR    where the stores and slots lie: on the disk that is meant (the cache folder)
"""
import http.client
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time

import models
import ours
import peers
from common import THREADS, add, say, spread

TOKENS = int(os.environ.get("BENCH_RESTART_TOKENS", "4096"))
ROWS = (("computed", "read, nothing was kept"), ("warm", "after a restart"), ("kill", "after kill -9"),
        ("cold", "after a restart, page cache dropped"))
POLICIES = (("full", ()), ("fine-kv, ratio 8", ("-C", "fine-kv", "-R", "8")))
RATIOS = (1, 4, 8, 32)
MB = 1e6
WAIT_S = 300
QUIET_S = 1


def drop_caches():
    """False: only root may."""
    if os.environ.get("BENCH_RESTART_COLD", "1") == "0":
        return False
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3\n")
    except OSError:
        return False
    return True


def folder():
    return os.environ.get("BENCH_RESTART_DIR") or os.path.dirname(models.default_path())


# --- ours -------------------------------------------------------------------------------------------

class Ours:
    """A daemon whose store outlives it."""

    def __init__(self, model, where):
        self.model, self.where, self.daemon = model, where, None

    def start(self):
        self.daemon = ours.Daemon(self.model, self.where, "1G", more=())

    def status(self):
        return json.loads(self.daemon.run("gistctl", "status", "--json"))

    def ask(self, policy):
        return json.loads(self.daemon.run("bench/restart", "-n", str(TOKENS), *policy))

    def wait_written(self):
        end = time.monotonic() + WAIT_S
        while self.status()["store"]["pending"] > 0:
            if time.monotonic() > end:
                raise SystemExit("bench/restart: what was read is not on disk after minutes")
            time.sleep(0.01)
        time.sleep(QUIET_S)

    def end(self, how=signal.SIGTERM):
        self.daemon.process.send_signal(how)
        self.daemon.process.wait()

    def forget(self):
        self.daemon.run("gistctl", "cache", "forget", "--yes")


def check(answer, first, how):
    """All checks are on in the daemon; these are ours. The last token is always read: logits are not kept."""
    if answer["restored"] < TOKENS - 16 or answer["computed"] > 16:
        raise SystemExit(f"bench/restart: {how}: {answer}")
    if answer["token"] != first["token"]:
        raise SystemExit(f"bench/restart: {how}: another token than before: {answer}, {first}")


def measure_ours(model, policy, samples, about):
    with tempfile.TemporaryDirectory(dir=folder()) as where:
        o = Ours(model, where)
        o.start()
        first = o.ask(policy)
        add(samples, "computed", first["first_ns"] / 1e6)
        o.wait_written()
        about["bytes"] = o.status()["store"]["bytes"]
        for row, how, drops in (("warm", signal.SIGTERM, False), ("kill", signal.SIGKILL, False),
                                ("cold", signal.SIGTERM, True)):
            o.end(how)
            if drops and not drop_caches():
                o.start()
                continue
            o.start()
            answer = o.ask(policy)
            check(answer, first, row)
            add(samples, row, answer["first_ns"] / 1e6)
            store = o.status()["store"]
            if row == "warm" and store["read_ns"] > 0:
                add(about.setdefault("speeds", {}), "read", store["read_bytes"] * 1e3 / store["read_ns"])
            o.wait_written()
        o.end()


# --- llama-server -----------------------------------------------------------------------------------

class Server:
    def __init__(self, program, model, where):
        self.where = where
        self.argv = [program, "-m", model, "-c", str(TOKENS + 512), "-t", str(THREADS), "-np", "1", "--slot-save-path",
                     where, "--host", "127.0.0.1", "--no-webui"]
        self.process = self.port = None

    def start(self):
        with open(os.path.join(self.where, "log"), "wb") as log:
            for port in range(18080 + os.getpid() % 1000, 19999):
                self.process = subprocess.Popen([*self.argv, "--port", str(port)], stdout=log, stderr=log,
                                                stdin=subprocess.DEVNULL)
                self.port = port
                if self.ready():
                    return
        raise SystemExit("bench/restart: llama-server finds no port")

    def ready(self):
        end = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if self.request("GET", "/health", None)[0] == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def request(self, method, path, body):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        c.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = c.getresponse()
        text = answer.read()
        c.close()
        return answer.status, text

    def post(self, path, body):
        status, text = self.request("POST", path, body)
        if status != 200:
            raise SystemExit(f"bench/restart: llama-server {path}: {status} {text[:500]}")
        return json.loads(text)

    def complete(self, ids):
        return self.post("/completion", {"prompt": ids, "n_predict": 1, "cache_prompt": True, "id_slot": 0,
                                         "temperature": 0})

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def restored(server, ids):
    start = time.monotonic()
    server.post("/slots/0?action=restore", {"filename": "slot"})
    answer = server.complete(ids)
    ms = (time.monotonic() - start) * 1e3
    evaluated = answer["timings"]["prompt_n"]
    if evaluated > 16:
        raise SystemExit(f"bench/restart: llama-server evaluated {evaluated} tokens after its restore")
    return ms


def measure_server(program, model, ids, samples, about):
    with tempfile.TemporaryDirectory(dir=folder()) as where:
        s = Server(program, model, where)
        s.start()
        start = time.monotonic()
        s.complete(ids)
        add(samples, "computed", (time.monotonic() - start) * 1e3)
        start = time.monotonic()
        saved = s.post("/slots/0?action=save", {"filename": "slot"})
        add(about.setdefault("save", {}), "ms", (time.monotonic() - start) * 1e3)
        about["bytes"] = saved["n_written"]
        for row in ("warm", "cold"):
            s.end()
            dropped = row != "cold" or drop_caches()
            s.start()
            if dropped:
                add(samples, row, restored(s, ids))
        s.end()


# --- tables -----------------------------------------------------------------------------------------

def first_tokens(rounds):
    model = models.default_path()
    program = os.path.join(os.path.dirname(peers.find()[0].program), "llama-server")
    with tempfile.TemporaryDirectory(dir=folder()) as where:
        o = Ours(model, where)
        o.start()
        ids = json.loads(o.daemon.run("bench/restart", "-n", str(TOKENS), "-i"))
        o.end()
    samples = [{} for _ in POLICIES]
    about = [{} for _ in POLICIES]
    theirs, about_them = {}, {}
    for i in range(rounds):
        for k, (name, policy) in enumerate(POLICIES):
            say(f"restart, round {i + 1}: gistd, {name}")
            measure_ours(model, policy, samples[k], about[k])
        say(f"restart, round {i + 1}: llama-server")
        measure_server(program, model, ids, theirs, about_them)
    return samples, about, theirs, about_them


def table(samples, about, theirs, about_them, rounds):
    lines = [f"`BENCH_ONLY=restart make bench`: the first token behind {TOKENS} tokens, in milliseconds; "
             f"{os.path.basename(models.default_path())}, KV f16, {THREADS} threads; median of {rounds} interleaved "
             "rounds (lowest to highest).", "",
             "| | " + " | ".join(f"gistd, {name}" for name, _ in POLICIES) + " | llama-server | ratio |",
             "|---|" + "---|" * (len(POLICIES) + 2)]
    for row, title in ROWS:
        cells = [spread(s[row], 0) if row in s else "-" for s in samples]
        peer = spread(theirs[row], 0) if row in theirs else "-"
        ratio = "-"
        if row in theirs and row in samples[0]:
            ratio = f"{statistics.median(theirs[row]) / statistics.median(samples[0][row]):.2f}x"
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {peer} | {ratio} |")
    lines.append("| on disk, MB | " + " | ".join(f"{a['bytes'] / MB:.1f}" for a in about) +
                 f" | {about_them['bytes'] / MB:.1f} | |")
    lines += ["", "gistd keeps by itself and checks every page; llama-server saves when it is told to, here in "
              f"{spread(about_them['save']['ms'], 0)} ms, and is told to restore: the time has both requests. It checks "
              "nothing, and has no row for kill -9: what was not saved by then is gone. The ratio is of the first "
              "column; above 1 is in our favour."]
    if not all("cold" in s for s in [*samples, theirs]):
        lines.append("Not measured with the page cache dropped: that takes root, and BENCH_RESTART_COLD=1.")
    return lines


def break_even():
    """MB/s at which reading takes as long as computing, for each model."""
    lines = ["", "Where restoring beats computing: the disk speed, in MB/s, above which it does, by the formula tokens/s "
             "x bytes a token / ratio, with both measured here (reading 2,048 tokens).", "",
             "| model | tokens/s | bytes a token | " + " | ".join(f"ratio {r}" for r in RATIOS) + " |",
             "|---|---|---|" + "---|" * len(RATIOS)]
    for model in models.chosen():
        with tempfile.TemporaryDirectory(dir=folder()) as where:
            daemon = ours.Daemon(model.path, where, model.kv_bytes, more=("--store", "none", "--prefix-cache", "no"))
            try:
                daemon.decode("-p", "64")
                speed, = daemon.decode("-p", "2048")
                status = json.loads(daemon.run("gistctl", "status", "--json"))
            finally:
                daemon.stop()
        n = status["page_bytes"] / status["page_tokens"]
        lines.append(f"| {model.name} | {speed:.0f} | {n:.0f} | " +
                     " | ".join(f"{speed * n / r / MB:.1f}" for r in RATIOS) + " |")
    return lines


def measured_points(samples, about):
    """What this disk gave, beside what computing took."""
    lines = ["", "Measured, this disk:", ""]
    for (name, _), s, a in zip(POLICIES, samples, about):
        took, computed = statistics.median(s["warm"]), statistics.median(s["computed"])
        speed = a.get("speeds", {}).get("read")
        lines.append(f"- {name}: {a['bytes'] / MB:.1f} MB came back in {took:.0f} ms with the first token" +
                     (f" (the store's own reads: {statistics.median(speed):.0f} MB/s)" if speed else "") +
                     f", computing took {computed:.0f} ms: {computed / took:.1f}x.")
    return lines


def bench_restart(rounds):
    samples, about, theirs, about_them = first_tokens(rounds)
    return (table(samples, about, theirs, about_them, rounds) + break_even() + measured_points(samples, about))
