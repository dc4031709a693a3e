#!/usr/bin/env python3
"""Compares next-token distributions: an f32 reference, the engine, llama.cpp.

    python3 tests/reference/kl.py MODEL.gguf [--text FILE | --random N] [--windows 0,5] ...

The reference is transformers in f32 on the dequantised weights of MODEL. The engine's logits come
from build/release/tests/tool_logits (`make build/release/tests/tool_logits`), llama.cpp's from the
Python package llama-cpp-python with its defaults (n_batch 512, f16 KV, flash attention as it
chooses). Windows do not overlap and each is read from nothing. Prints a Markdown table:

    ppl        exp of the mean negative log-probability of the tokens that came
    mean KL    sum over the vocabulary of p_ref (log p_ref - log p), mean over positions
    99 % KL    its 99th percentile
    top-1      how often the most probable token is the reference's
    |d lp|     mean distance of the log-probability of the token that came
"""
import argparse
import hashlib
import math
import os
import subprocess
import tempfile

import numpy as np
import torch

import ggufmodel

ROWS = 128            # positions compared at a time


class Engine:
    """tool_logits on all ids at once; its output is taken window by window."""

    def __init__(self, args, ids, n_vocab, kv, segment):
        self.name = f"gistd, {args.cpu}, {kv} KV, segments of {segment}"
        self.n_vocab = n_vocab
        with tempfile.NamedTemporaryFile(delete=False) as f:
            f.write(np.concatenate(ids).astype("<u4").tobytes())
        self.path = f.name
        self.child = subprocess.Popen(
            [args.tool, args.model, f.name, str(args.window), args.cpu, kv, str(segment),
             str(args.threads)], stdout=subprocess.PIPE)

    def logits(self, ids):
        want = 4 * len(ids) * self.n_vocab
        data = self.child.stdout.read(want)
        if len(data) != want:
            raise SystemExit(f"{self.name}: no more output, exit {self.child.wait()}")
        return torch.from_numpy(np.frombuffer(bytearray(data), "<f4").reshape(len(ids), -1))

    def close(self):
        self.child.stdout.close()
        self.child.wait()
        os.unlink(self.path)


class LlamaCpp:
    def __init__(self, args):
        import llama_cpp

        self.name = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
        self.llm = llama_cpp.Llama(args.model, n_ctx=args.window, n_threads=args.threads,
                                   n_threads_batch=args.threads, logits_all=True, verbose=False)

    def logits(self, ids):
        self.llm.reset()
        self.llm.eval(ids.tolist())
        return torch.from_numpy(np.array(self.llm.scores[:len(ids)]))

    def close(self):
        pass


class Reference:
    def __init__(self, args, model):
        self.name, self.model, self.keep = "reference (transformers, f32)", model, args.keep
        self.path = args.model

    def logits(self, ids):
        path = None
        if self.keep:
            path = os.path.join(self.keep, hashlib.sha256(self.path.encode() + ids.tobytes()).hexdigest() + ".npy")
            if os.path.exists(path):
                return torch.from_numpy(np.load(path))
        with torch.no_grad():
            logits = self.model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
        if path:
            np.save(path, logits.numpy())
        return logits


class Sums:
    def __init__(self, name):
        self.name, self.kl, self.same, self.lp, self.apart = name, [], 0, [], []

    def add(self, ref, logits, ids):
        """One window. The last position has a distribution but no token that came."""
        for at in range(0, len(ids), ROWS):
            p = torch.log_softmax(ref[at:at + ROWS].double(), -1)
            q = torch.log_softmax(logits[at:at + ROWS].double(), -1)
            self.kl += (p.exp() * (p - q)).sum(-1).tolist()
            self.same += int((p.argmax(-1) == q.argmax(-1)).sum())
            came = torch.from_numpy(ids[at + 1:at + 1 + ROWS].astype(np.int64))[:, None]
            lp, lq = (x[:len(came)].gather(1, came)[:, 0] for x in (p, q))
            self.lp += lq.tolist()
            self.apart += (lq - lp).abs().tolist()

    def row(self, ppl_ref):
        ppl = math.exp(-np.mean(self.lp))
        return (f"| {self.name} | {ppl:.4f} | {100 * (ppl / ppl_ref - 1):+.3f} % "
                f"| {np.mean(self.kl):.2e} | {np.quantile(self.kl, 0.99):.2e} "
                f"| {100 * self.same / len(self.kl):.2f} % | {np.mean(self.apart):.4f} |")


def text_windows(args, n_vocab):
    if args.random:
        gen = np.random.default_rng(1)
        return [gen.integers(0, n_vocab, args.random).astype(np.uint32)]
    text = open(args.text, encoding="utf-8", newline="").read()
    ids = np.array(ggufmodel.load_tokenizer(args.model).encode(text).ids, np.uint32)
    all_windows = [ids[i:i + args.window] for i in range(0, len(ids), args.window)]
    if not args.windows:
        return all_windows
    return [all_windows[int(w)] for w in args.windows.split(",")]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("--text", default="tests/data/score.txt")
    ap.add_argument("--random", type=int, help="instead of a text, so many random ids")
    ap.add_argument("--window", type=int, default=2048)
    ap.add_argument("--windows", help="which windows, by number; all by default")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--cpu", default="auto")
    ap.add_argument("--kv", default="f16,f32", help="the engine's kinds of KV")
    ap.add_argument("--segment", default="512")
    ap.add_argument("--tool", default="build/release/tests/tool_logits")
    ap.add_argument("--no-llama-cpp", action="store_true")
    ap.add_argument("--keep", help="a folder to keep the reference's logits in (0.4 GB a window)")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    model = ggufmodel.load_model(args.model)
    n_vocab = model.config.vocab_size
    windows = text_windows(args, n_vocab)
    reference = Reference(args, model)
    others = [Engine(args, windows, n_vocab, kv, int(seg))
              for kv in filter(None, args.kv.split(",")) for seg in args.segment.split(",")]
    if not args.no_llama_cpp:
        others.append(LlamaCpp(args))
    sums = [Sums(x.name) for x in [reference, *others]]
    for ids in windows:
        ref = reference.logits(ids)
        for s, x in zip(sums, [None, *others]):
            s.add(ref, x.logits(ids) if x else ref, ids)
    for x in others:
        x.close()

    print(f"{os.path.basename(args.model)}, {sum(map(len, windows))} tokens in windows of "
          f"{args.window}\n")
    print("| | ppl | of the reference | mean KL | 99 % KL | top-1 | \\|d lp\\| |")
    print("|---|---|---|---|---|---|---|")
    ppl_ref = math.exp(-np.mean(sums[0].lp))
    for s in sums:
        print(s.row(ppl_ref))


if __name__ == "__main__":
    main()
