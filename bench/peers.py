"""Programs with llama-bench's options, each at the best of its settings.

A setting is flash attention on or off and, where the program can (-rtr), weights repacked at start or
not. Most of a round is contexts that slow settings read, so not all are tried everywhere: the short tests
take all of them; the next longer one of a kind what was best in the short one, with and without flash
attention; the longest what was best in that. And what is far behind the fastest peer's fastest setting of
the same test in the first round is not tried again.
"""
import json
import os
import re
import statistics
import subprocess
import tempfile
import time

from common import ROOT, THREADS, add, output_of, quietly, say
from ours import N_SESSIONS, SESSION_PROMPT, SESSION_TOKENS, SHORT_PROMPT

FAR_BEHIND = 0.7
SHORT = 512     # tokens of context that say nothing about flash attention yet
# Seconds. A context that takes longer to read is not asked for.
LIMIT_S = float(os.environ.get("BENCH_LIMIT_S", "180"))


class Setting:
    def __init__(self, flash, repack):
        self.flash, self.repack = flash, repack
        self.name = " ".join(filter(None, ("fa" if flash else "no fa", repack and "rtr")))


class Peer:
    def __init__(self, name, program):
        self.name, self.program = name, program
        batched = os.path.join(os.path.dirname(program), "llama-batched-bench")
        self.batched = batched if os.access(batched, os.X_OK) else None
        usage = subprocess.run([program, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, check=False).stdout
        self.has_depth = "--n-depth" in usage
        self.no_warmup = ["--no-warmup"] if "--no-warmup" in usage else ["-w", "0"]
        repacks = (False, True) if "-rtr" in usage else (False,)
        self.settings = [Setting(flash, repack) for flash in (True, False) for repack in repacks]
        self.samples = {}       # test to setting to its values

    def bench(self, model, setting, *args, kv="f16"):
        """llama-bench's results, its seconds, and its peak of resident memory in KiB."""
        argv = [self.program, "-m", model.path, "-t", str(THREADS), "-ctk", kv, "-ctv", kv, "-r", "1",
                "-o", "json", "-fa", "1" if setting.flash else "0", *args]
        if setting.repack:
            argv += ["-rtr", "1"]
        with tempfile.TemporaryFile("w+") as out:
            start = time.monotonic()
            process = subprocess.Popen(argv, stdout=out, stderr=subprocess.DEVNULL,
                                       stdin=subprocess.DEVNULL)
            _, code, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
            process.returncode = os.waitstatus_to_exitcode(code)
            if process.returncode != 0:
                raise SystemExit(f"bench/run: {' '.join(argv)} ended with {process.returncode}")
            out.seek(0)
            # Some builds print lines of their own around the array.
            text = out.read()
            results, _ = json.JSONDecoder().raw_decode(text, text.index("[\n"))
            return results, seconds, usage.ru_maxrss

    def prefill(self, model, setting, n):
        # A few tokens first, to warm up; their own warm-up reads all n twice.
        results, _, _ = self.bench(model, setting, "-p", f"64,{n}", "-n", "0", *self.no_warmup)
        return results[-1]["samples_ts"][-1]

    def decode(self, model, setting, depth, n_gen, kv="f16"):
        """Tokens a second behind a context, and MiB. Programs without -d have -gp P,N, which also
        counts only the N tokens written behind the P read."""
        if self.has_depth or depth == 0:
            args = ["-p", "0", "-n", str(n_gen)] + (["-d", str(depth)] if depth else [])
        else:
            args = ["-p", "0", "-n", "0", "-gp", f"{depth},{n_gen}"]
        results, _, rss = self.bench(model, setting, *args, kv=kv)
        return results[-1]["samples_ts"][-1], rss / 1024

    def sessions(self, model, setting):
        """Tokens a second of all sessions together, from the last columns of a row like
        |  PP |  TG |  B |  N_KV |  T_PP s |  S_PP t/s |  T_TG s |  S_TG t/s |  T s |  S t/s |"""
        argv = [self.batched, "-m", model.path, "-t", str(THREADS), "-c", "2048", "-npp",
                str(SESSION_PROMPT), "-ntg", str(SESSION_TOKENS), "-npl", str(N_SESSIONS), "-fa",
                "on" if setting.flash else "off"] + (["-rtr"] if setting.repack else [])
        text = quietly(*argv)
        row = re.search(rf"^\|\s*{SESSION_PROMPT} \|.*$", text, re.M)
        if not row:
            raise SystemExit(f"bench/run: {' '.join(argv)} printed no table:\n{text[-2000:]}")
        return float(row.group().split("|")[8])

    # --- what to try, and what came of it --------------------------------------------------------

    def best(self, test):
        """(median, values, the setting) of the fastest; None when there is no sample."""
        tried = self.samples.get(test)
        if not tried:
            return None
        if test[0] in ("load", "first", "memory"):
            return min(((statistics.median(v), v, s) for s, v in tried.items()), key=lambda t: t[0])
        return max(((statistics.median(v), v, s) for s, v in tried.items()), key=lambda t: t[0])

    def worth(self, test, setting, fastest):
        tried = self.samples.get(test, {}).get(setting.name)
        return not tried or statistics.median(tried) >= FAR_BEHIND * fastest

    def guide(self, test, tests):
        """The next shorter test of the kind; for sessions and other KV, the deepest context."""
        kind = test[0] if test[0] == "prefill" else "decode"
        before = tests[:tests.index(test)]
        shorter = [t for t in before if t[0] == kind]
        return shorter[-1] if shorter else None

    def candidates(self, test, tests):
        guide = self.guide(test, tests)
        best = guide and self.best(guide)
        if not best:
            return self.settings
        chosen = next(s for s in self.settings if s.name == best[2])
        if guide[1] > SHORT:
            return [chosen]
        return [s for s in self.settings if s.repack == chosen.repack]

    def too_long(self, n):
        """Whether reading n tokens would take too long, as far as is known."""
        shorter = [t for t in self.samples if t[0] == "prefill" and t[1] <= n]
        speeds = [self.best(t)[0] for t in shorter]
        return bool(speeds) and n / max(speeds) > LIMIT_S

    def measure_one(self, model, setting, test, n_gen):
        if test[0] == "prefill":
            return self.prefill(model, setting, test[1])
        if test[0] == "decode":
            speed, mib = self.decode(model, setting, test[1], n_gen)
            if test[1] == model.depths[-1]:
                self.keep(("memory",), setting, mib)
            return speed
        if test[0] == "kv":
            return self.decode(model, setting, test[2], n_gen, test[1])[0]
        return self.sessions(model, setting)

    def keep(self, test, setting, value):
        add(self.samples.setdefault(test, {}), setting.name, value)

    def measure(self, model, n_gen, tests, fastest):
        """One round; fastest(test) is what any peer reached before."""
        for test in tests:
            depth = test[-1] if test[0] != "sessions" else SESSION_PROMPT * N_SESSIONS
            if (test[0] == "sessions" and not self.batched) or self.too_long(depth):
                continue
            # Sessions have a floor against each peer's own best.
            top = (self.best(test) or (0,))[0] if test[0] == "sessions" else fastest(test)
            for setting in self.candidates(test, tests):
                if test[0] == "kv" and not setting.flash:
                    continue    # they need flash attention for a quantised V
                if self.worth(test, setting, top):
                    say(f"  {self.name}: {' '.join(map(str, test))}, {setting.name}")
                    self.keep(test, setting, self.measure_one(model, setting, test, n_gen))
        plain = self.settings[0]
        for test, n in ((("load",), 1), (("first",), SHORT_PROMPT)):
            _, seconds, _ = self.bench(model, plain, "-p", str(n), "-n", "0", *self.no_warmup)
            self.keep(test, plain, seconds)


def find():
    """The first is llama.cpp, built on first use; others come from BENCH_PEERS."""
    peers = [Peer("llama.cpp", output_of(f"{ROOT}/bench/build-llama").strip())]
    for path in filter(None, os.environ.get("BENCH_PEERS", "").split(",")):
        name, _, program = path.rpartition("=")
        program = os.path.abspath(program)
        folders = [f for f in program.split("/")[:-1] if f not in ("bin", "build", "")]
        peers.append(Peer(name or (folders[-1] if folders else program), program))
    return peers
