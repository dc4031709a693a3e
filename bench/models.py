"""The models that are measured: the default one, the same in other types, and one of 8B's shape.

Files lie in the cache folder beside the default model (scripts/fetch-model) and are made on first use:
the other types by llama.cpp's own llama-quantize, the large one with random weights by bench/big_model.
"""
import os
import shutil

from common import BUILD, ROOT, output_of, quietly, say

GB = 1 << 30
BIG_BYTES, BIG_ROOM, BIG_MEMORY = 5 * GB, 7 * GB, 9 * GB


class Model:
    def __init__(self, name, n_gen=48, prefills=(512, 2048), depths=(0, 2048, 6144), kv_bytes="256M",
                 kv_types=()):
        self.name, self.n_gen = name, n_gen
        self.prefills, self.depths, self.kv_bytes, self.kv_types = prefills, depths, kv_bytes, kv_types
        self.path = None


MODELS = (Model("Q4_1", kv_types=("q8_0",)), Model("Q4_0"), Model("Q4_K_M"), Model("Q8_0"),
          Model("F16"),
          # Few tokens: each takes a tenth of a second and more.
          Model("8B", n_gen=16, depths=(0, 2048), kv_bytes="1G"))


def default_path():
    return output_of(f"{ROOT}/scripts/fetch-model").strip()


def requantised(default, name):
    path = default.replace(".Q4_1.", f".{name}.")
    if not os.path.exists(path):
        say(f"making {path}")
        quantize = os.path.join(os.path.dirname(output_of(f"{ROOT}/bench/build-llama").strip()),
                                "llama-quantize")
        quietly(quantize, "--allow-requantize", default, path + ".part", name)
        os.rename(path + ".part", path)
    return path


def available_memory():
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def big(default):
    """None, with a word about it, where it does not fit."""
    path = os.path.join(os.path.dirname(default), "random-8B.Q4_K.gguf")
    if available_memory() < BIG_MEMORY:
        say(f"8B left out: it wants {BIG_MEMORY // GB} GiB of free memory")
        return None
    if not os.path.exists(path):
        if shutil.disk_usage(os.path.dirname(path)).free < BIG_ROOM:
            say(f"8B left out: it wants {BIG_ROOM // GB} GiB of free disk")
            return None
        say(f"making {path}")
        quietly(f"{BUILD}/bench/big_model", path + ".part")
        os.rename(path + ".part", path)
    return path


def chosen(of=None):
    """Those that BENCH_MODELS names, all without it, with their files. of: no others than these."""
    names = [m.name for m in MODELS]
    wanted = list(filter(None, os.environ.get("BENCH_MODELS", "").split(","))) or names
    for name in wanted:
        if name not in names:
            raise SystemExit(f"bench/run: BENCH_MODELS knows {', '.join(names)}, not '{name}'")
    default = default_path()
    for model in MODELS:
        if model.name not in wanted or (of and model.name not in of):
            continue
        if model.name == "Q4_1":
            model.path = default
        else:
            model.path = big(default) if model.name == "8B" else requantised(default, model.name)
        if model.path:
            yield model
