"""gistd beside its peers on one model after the other, and which floors that meets.

Rounds are interleaved (ours, peer, peer, ours...), because a machine's speed drifts; what counts are
ratios of medians of one run. A test is ("prefill", tokens), ("decode", depth), ("sessions", how many),
("kv", type, depth), or one of ("load",), ("first",), ("memory",), where less is better.
"""
import json
import os
import statistics

import ours
import peers
from common import BUILD, THREADS, output_of, say, spread
from ours import N_SESSIONS, SESSION_PROMPT, SESSION_TOKENS, SHORT_PROMPT

STORE = os.path.join(BUILD, "bench", "speed.json")
LESS = (("load",), ("first",), ("memory",))


def tests_of(model):
    tests = [("prefill", n) for n in model.prefills] + [("decode", d) for d in model.depths]
    return tests + [("sessions", N_SESSIONS)]


def kv_tests(model):
    return [("kv", kind, model.depths[-1]) for kind in model.kv_types if ours.has_kv_type(kind)]


def row_title(test):
    kind = test[0]
    if kind == "prefill":
        return f"prefill {test[1]}, tokens/s", 0
    if kind == "decode":
        return f"decode at {test[1]}, tokens/s", 1
    if kind == "sessions":
        return f"{test[1]} sessions decoding, tokens/s in all", 1
    if kind == "kv":
        return f"decode at {test[2]}, KV {test[1]}, tokens/s", 1
    return {"load": ("start to ready, s", 2), "memory": ("peak resident, MiB", 0),
            "first": (f"start to first token of {SHORT_PROMPT}, s", 2)}[kind]


def ratio(test, mine, best):
    """How many times better we are."""
    a, b = statistics.median(mine[test]), best[0]
    return b / a if test in LESS else a / b


def model_table(tests, mine, all_peers):
    lines = ["| | gistd | " + " | ".join(f"{p.name} | ratio" for p in all_peers) + " |",
             "|---|---|" + "---|---|" * len(all_peers)]
    for test in tests:
        title, digits = row_title(test)
        row = [title, spread(mine[test], digits)]
        for peer in all_peers:
            best = peer.best(test)
            if best:
                row += [f"{spread(best[1], digits)} {best[2]}", f"{ratio(test, mine, best):.2f}x"]
            else:
                row += ["-", "-"]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def model_notes(model, step_bytes, gb_s):
    small = [f"Ratios above 1 are in our favour. Peers at the best of their settings, row by row: "
             f"flash attention (fa) or not, weights repacked at start (rtr) or not; long contexts only "
             f"with what was best in shorter ones. A setting that was below {peers.FAR_BEHIND:.0%} of the fastest peer's best in the first round was not tried "
             f"again; a dash: no such test, or more than {peers.LIMIT_S:.0f} s to read the context.",
             f"{N_SESSIONS} sessions: each behind {SESSION_PROMPT} tokens of its own, {SESSION_TOKENS} "
             f"tokens written; peers by llama-batched-bench. Start to ready: gistd until READY=1, "
             f"llama-bench until the end of a run that reads one token; to first token: until one is "
             f"written, and the end of a run that reads {SHORT_PROMPT}; the file is in the page cache. "
             f"Memory: gistd with --kv-bytes {model.kv_bytes}, peers at their deepest context."]
    return small + [f"A decode step reads {step_bytes / 1e6:.0f} MB of weights; {THREADS} threads read "
                    f"{gb_s:.1f} GB/s here (bench/peaks, median of the rounds)."]


def memory_gb_s():
    return json.loads(output_of(f"{BUILD}/bench/peaks", "-m", str(THREADS)))["gb_s"]


def measure(model, rounds):
    """The tests, our samples, the peers with theirs, and the memory's speed in each round."""
    all_peers, memory = peers.find(), []
    mine, tests, kv = {}, tests_of(model), kv_tests(model)

    def fastest(test):
        found = [best[0] for best in (p.best(test) for p in all_peers) if best]
        return max(found) if found else 0

    for i in range(rounds):
        say(f"{model.name}, round {i + 1} of {rounds}: gistd")
        memory.append(memory_gb_s())
        ours.measure(model, model.n_gen, tests, mine)
        for test in kv:
            ours.measure_kv(model, model.n_gen, test, mine)
        for peer in all_peers:
            say(f"{model.name}, round {i + 1} of {rounds}: {peer.name}")
            peer.measure(model, model.n_gen, tests + kv, fastest)
    return tests + kv + list(LESS), mine, all_peers, statistics.median(memory)


def bench_model(model, rounds):
    """The lines for the page; what floors need is stored for summary()."""
    step_bytes = int(output_of(f"{BUILD}/bench/profile", "-b", model.path))
    tests, mine, all_peers, gb_s = measure(model, rounds)
    stored = {}
    for test in tests:
        found = {p.name: ratio(test, mine, best) for p in all_peers if (best := p.best(test))}
        if found:
            stored["/".join(map(str, test))] = found
    at_once = statistics.median(mine[("decode", 0)]) * step_bytes / 1e9
    store(model.name, {"ratios": stored, "memory_share": at_once / gb_s})
    head = [f"`BENCH_MODELS={model.name} make bench`: {os.path.basename(model.path)}, {THREADS} threads, "
            f"KV f16, {model.n_gen} tokens written, median of {rounds} interleaved rounds (lowest to "
            f"highest).", ""]
    notes = model_notes(model, step_bytes, gb_s)
    return head + model_table(tests, mine, all_peers) + [""] + notes


# --- floors ----------------------------------------------------------------------------------------

# title, tests, the peer it is against (None: the best one), floor, aim
FLOORS = (("prefill 512", "prefill/512", None, 1.0, 1.5), ("prefill 2048", "prefill/2048", None, 1.0, 1.5),
          ("decode, empty context", "decode/0", None, 1.3, 2.0),
          ("decode at 2048", "decode/2048", None, 1.5, 3.0),
          ("decode at 6144", "decode/6144", None, 1.5, 3.0),
          (f"{N_SESSIONS} sessions decoding, sum", f"sessions/{N_SESSIONS}", "llama.cpp", 2.0, 4.0))
MEMORY_FLOOR, MEMORY_AIM = 0.60, 0.85


def stored_models():
    if not os.path.exists(STORE):
        return {}
    with open(STORE) as f:
        return json.load(f)


def store(name, what):
    models = stored_models()
    models[name] = what
    os.makedirs(os.path.dirname(STORE), exist_ok=True)
    with open(STORE, "w") as f:
        json.dump(models, f, indent=1)


def floor_cell(found, against, floor):
    ratios = [r for name, r in found.items() if against in (None, name)]
    if not ratios:
        return "-"
    worst = f"{min(ratios):.2f}x"
    return worst if min(ratios) >= floor else f"**{worst}**"


def summary(order):
    """Every model that was measured in this build folder, in the order given."""
    models = {name: m for name in order if (m := stored_models().get(name))}
    lines = ["Floors of `make bench`, ratios of medians against the best peer (sessions: llama.cpp); bold is "
             "below the floor.", "",
             "| | floor | aim | " + " | ".join(models) + " |", "|---|---|---|" + "---|" * len(models)]
    for title, test, against, floor, aim in FLOORS:
        cells = [floor_cell(m["ratios"].get(test, {}), against, floor) for m in models.values()]
        lines.append(f"| {title} | {floor}x | {aim}x | " + " | ".join(cells) + " |")
    shares = [(m["memory_share"], f"{m['memory_share']:.0%}") for m in models.values()]
    lines.append(f"| decode, empty context: of memory bandwidth | {MEMORY_FLOOR:.0%} | {MEMORY_AIM:.0%} | " +
                 " | ".join(text if share >= MEMORY_FLOOR else f"**{text}**" for share, text in shares) +
                 " |")
    return lines
