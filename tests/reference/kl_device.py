#!/usr/bin/env python3
"""Compares next-token distributions of a device with the CPU's, both with an f64 reference.

    python3 tests/reference/kl_device.py [--device cuda-shim] [--tokens 64] [--steps 8,64] [--models FILE,FILE]

The reference is written out here: Llama's layers in f64 over the dequantised weights, for models without rope
factors (SmolLM2). Logits are those of build/release/tests/tool_logits (`make build/release/tests/tool_logits shim`),
once on the CPU and once on the device, for each number of tokens a step: up to 8 are multiplied as they are, more
by the library. Exits with 1 when the device's mean divergence from the reference is more than 1e-4 above the CPU's.
Needs the packages numpy, gguf and tokenizers; by cuda-shim a token of the default model takes seconds.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

MOST_ABOVE = 1e-4


def field(r, key, default=None):
    f = r.get_field(key)
    return default if f is None else f.contents()


class Model:
    def __init__(self, path):
        self.r = r = gguf.GGUFReader(path)
        if field(r, "general.architecture") != "llama" or any(t.name == "rope_freqs.weight" for t in r.tensors):
            sys.exit(f"kl_device: {path}: a Llama without rope factors is known here alone")
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
                  .reshape([int(n) for n in reversed(t.shape)]) for t in r.tensors}
        self.heads, self.kv = field(r, "llama.attention.head_count"), field(r, "llama.attention.head_count_kv")
        self.eps, self.base = field(r, "llama.attention.layer_norm_rms_epsilon"), field(r, "llama.rope.freq_base", 10000.0)
        self.n_layer = field(r, "llama.block_count")

    def norm(self, x, w):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * w

    def turn(self, x):
        """(T, heads, hd), pairs beside each other, as GGUF files of this architecture have them."""
        hd = x.shape[-1]
        angle = np.arange(len(x))[:, None] * self.base ** (-np.arange(hd // 2) * 2.0 / hd)
        c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
        out[..., 1::2] = x[..., 0::2] * s + x[..., 1::2] * c
        return out

    def layer(self, x, at):
        w = {k[len(at):-len(".weight")]: v for k, v in self.w.items() if k.startswith(at)}
        h = self.norm(x, w["attn_norm"])
        q = self.turn((h @ w["attn_q"].T).reshape(len(x), self.heads, -1))
        k = self.turn((h @ w["attn_k"].T).reshape(len(x), self.kv, -1)).repeat(self.heads // self.kv, 1)
        v = (h @ w["attn_v"].T).reshape(len(x), self.kv, -1).repeat(self.heads // self.kv, 1)
        s = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1]) + np.triu(np.full((len(x), len(x)), -np.inf), 1)
        p = np.exp(s - s.max(-1, keepdims=True))
        att = np.einsum("hts,shd->thd", p / p.sum(-1, keepdims=True), v).reshape(len(x), -1)
        x = x + att @ w["attn_output"].T
        h = self.norm(x, w["ffn_norm"])
        gate = h @ w["ffn_gate"].T
        return x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T

    def logits(self, ids):
        x = self.w["token_embd.weight"][ids]
        for i in range(self.n_layer):
            x = self.layer(x, f"blk.{i}.")
        return self.norm(x, self.w["output_norm.weight"]) @ self.w.get("output.weight", self.w["token_embd.weight"]).T

    def ids(self, text, n):
        tokens = field(self.r, "tokenizer.ggml.tokens")
        merges = [tuple(m.split(" ")) for m in field(self.r, "tokenizer.ggml.merges")]
        tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
        return np.array(tok.encode(text).ids[:n], np.uint32)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def engine(args, path, ids, backend, step):
    with tempfile.NamedTemporaryFile() as f:
        f.write(ids.astype("<u4").tobytes())
        f.flush()
        env = dict(os.environ, GISTD_TEST_BACKEND=backend, BUILD=args.build)
        out = subprocess.run([f"{args.build}/tests/tool_logits", path, f.name, str(len(ids)), "auto", "f16", "512", "2", str(step)],
                             stdout=subprocess.PIPE, env=env, check=True).stdout
    return np.frombuffer(out, "<f4").reshape(len(ids), -1).astype(np.float64)


def compare(args, path):
    model = Model(path)
    ids = model.ids(open(args.text, encoding="utf-8", newline="").read(), args.tokens)
    p = log_softmax(model.logits(ids))
    worst = 0.0
    for step in map(int, args.steps.split(",")):
        lps = [log_softmax(engine(args, path, ids, backend, step)) for backend in ("cpu", args.device)]
        kls = [float((np.exp(p) * (p - q)).sum(-1).mean()) for q in lps]
        apart = float((np.exp(lps[0]) * (lps[0] - lps[1])).sum(-1).mean())
        print(f"| {os.path.basename(path)} | {step} | {kls[0]:.3e} | {kls[1]:.3e} | {kls[1] - kls[0]:+.1e} | {apart:.1e} |", flush=True)
        worst = max(worst, kls[1] - kls[0]) if kls[1] == kls[1] else float("inf")
    return worst


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--device", default="cuda-shim")
    ap.add_argument("--tokens", type=int, default=64)
    ap.add_argument("--steps", default="8,64")
    ap.add_argument("--text", default="tests/data/score.txt")
    ap.add_argument("--build", default="build/release")
    ap.add_argument("--models", help="the default one by default")
    args = ap.parse_args()
    paths = args.models.split(",") if args.models else [subprocess.check_output("scripts/fetch-model", text=True).strip()]
    print(f"{args.tokens} tokens of {args.text}, mean KL to f64\n")
    print(f"| model | tokens a step | cpu | {args.device} | above | {args.device} to cpu |\n|---|---|---|---|---|---|")
    return 1 if max(compare(args, p) for p in paths) > MOST_ABOVE else 0


if __name__ == "__main__":
    sys.exit(main())
