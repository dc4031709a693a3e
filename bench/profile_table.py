"""The page's part on where a step's time goes, beside what the machine can do at most."""

# A table's products of int8 run on these peaks; floats (F16, BF16 weights, attention) on those of f32, and
# avx512bf16's products of F16 and BF16 weights on that of bf16.
INT8_ISA = {"avx2": "avx2", "avxvnni": "avxvnni", "avx512": "avx512", "avx512bf16": "avx512"}
F32_ISA = {"avx2": "avx2", "avxvnni": "avx2", "avx512": "avx512", "avx512bf16": "avx512"}
UNITS = {"memory": "memory read, GB/s", "f32": "f32 multiply-add, GFLOP/s", "int8": "int8 dot product, GOP/s",
         "bf16": "bf16 dot product, GFLOP/s"}


def find(peaks, kind, isa, threads):
    for p in peaks:
        if (p["kind"], p["isa"], p["threads"]) == (kind, isa, threads):
            return p.get("gb_s", p.get("gop_s"))
    return None


def peak_lines(peaks):
    threads = sorted({p["threads"] for p in peaks})
    lines = ["| `bench/peaks` | " + " | ".join(f"{t} thread{'s' if t > 1 else ''}" for t in threads) + " |",
             "|---|" + "---|" * len(threads)]
    for kind, isa in dict.fromkeys((p["kind"], p["isa"]) for p in peaks):
        values = [find(peaks, kind, isa, t) for t in threads]
        lines.append(f"| {UNITS[kind]}{', ' + isa if isa else ''} | " +
                     " | ".join(f"{v:.1f}" if v < 100 else f"{v:.0f}" for v in values) + " |")
    return lines


def share(value, peak):
    return f" ({value / peak:.0%})" if peak else ""


def rows(step, memory, products, f32, is_decode):
    """Decoding is held against memory, reading a prompt against arithmetic."""
    for kind in sorted(step["kinds"], key=lambda k: k["kind"] == "waiting"):
        us, achieved = kind["us"], ""
        if kind["bytes"] and us > 0:
            gb_s, gop_s = kind["bytes"] / us / 1e3, 2 * kind["macs"] / us / 1e3
            floats = kind["kind"] == "attention"
            achieved = (f"{gb_s:.1f} GB/s{share(gb_s, memory)}" if is_decode else
                        f"{gop_s:.0f} {'GFLOP' if floats else 'GOP'}/s"
                        f"{share(gop_s, f32 if floats else products)}")
        yield kind["kind"], us, us / step["us"], achieved


def profile_lines(name, profile, peaks):
    threads, cpu = profile["threads"], profile["cpu"]
    memory = find(peaks, "memory", "", threads)
    int8 = find(peaks, "int8", INT8_ISA.get(cpu), threads)
    f32 = find(peaks, "f32", F32_ISA.get(cpu), threads)
    products = int8
    if name in ("F16", "BF16") and cpu == "avx512bf16":
        products = find(peaks, "bf16", "avx512", threads)
    elif name in ("F16", "BF16", "F32"):
        products = f32
    decode, prefill = profile["decode"], profile["prefill"]
    lines = [f"{name}, {cpu}, {threads} threads: a decode step at {decode['depth']} tokens takes "
             f"{decode['us'] / 1e3:.2f} ms, a batch of {prefill['tokens']} tokens "
             f"{prefill['us'] / 1e3:.0f} ms.", "",
             "| kernel | decode, us | share | achieved | prefill, us | share | achieved |",
             "|---|---|---|---|---|---|---|"]
    for d, p in zip(rows(decode, memory, products, f32, True),
                    rows(prefill, memory, products, f32, False)):
        lines.append(f"| {d[0]} | {d[1]:.0f} | {d[2]:.1%} | {d[3]} | {p[1]:.0f} | {p[2]:.1%} | {p[3]} |")
    return lines


def lines(peaks, profiles):
    out = ["`BENCH_ONLY=profile make bench`: this machine's peaks, the best of some runs, and the fastest of some "
           "steps of each model (`bench/profile`). A kernel's time is summed over the threads and divided "
           "by their number; waiting is what is left of the step: barriers, the embedding, a core that "
           "others use. In brackets: of the peak of all threads.", ""]
    out += peak_lines(peaks["peaks"])
    for name, profile in profiles:
        out += ["", *profile_lines(name, profile, peaks["peaks"])]
    return out
