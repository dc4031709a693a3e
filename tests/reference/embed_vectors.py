#!/usr/bin/env python3
"""Records embeddings of GGUF models, by transformers in f32.

    python3 tests/reference/embed_vectors.py MODEL.gguf OUT.emb --ids tests/data/tiny_qwen2.ref
    python3 tests/reference/embed_vectors.py MODEL.gguf OUT.emb --texts TEXTS [--threads 2]

Of --ids, a recorded reference: its first 1, 2, 17, 100 and 256 ids. Of --texts: each line. Of each the hidden state
behind the final norm of the last token, and the mean of all tokens', neither normalised. All little-endian:

    magic      8 bytes "GISTEMB1"
    n, n_embd  u32, u32
    then n times
      n_ids    u32
      ids      u32 (n_ids)
      mean     f32 (n_embd)
      last     f32 (n_embd)

--check compares OUT with what would be written, and writes nothing.
"""
import argparse
import struct

import numpy as np
import torch

import ggufmodel
import reffile

LENGTHS = (1, 2, 17, 100, 256)


def lists_of(args):
    if args.ids:
        ids = reffile.read(args.ids)[0]
        return [ids[:n].tolist() for n in LENGTHS]
    tok = ggufmodel.load_tokenizer(args.model)
    lines = open(args.texts, encoding="utf-8").read().split("\n")
    return [tok.encode(x, add_special_tokens=False).ids for x in lines if x]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("out")
    what = ap.add_mutually_exclusive_group(required=True)
    what.add_argument("--ids")
    what.add_argument("--texts")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--check", action="store_true")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    model = ggufmodel.load_model(args.model)
    out, worst = b"", 0.0
    lists = lists_of(args)
    for ids in lists:
        with torch.no_grad():
            # model.model is the decoder without its head: its output stands behind the final norm.
            h = model.model(torch.tensor(ids)[None]).last_hidden_state[0]
        mean = h.double().mean(0).numpy().astype("<f4")
        last = h[-1].numpy().astype("<f4")
        out += struct.pack("<I", len(ids)) + np.asarray(ids, "<u4").tobytes() + mean.tobytes() + last.tobytes()
        worst = max(worst, float(np.abs(h).max()))
    data = b"GISTEMB1" + struct.pack("<2I", len(lists), len(last)) + out
    if args.check:
        had = np.frombuffer(open(args.out, "rb").read()[16:], "<f4")
        now = np.frombuffer(data[16:], "<f4")
        print(f"largest difference {np.nanmax(np.abs(had - now)):.2e}")
    else:
        open(args.out, "wb").write(data)
    print(f"{len(lists)} of {args.model}, values up to {worst:.2f}; {ggufmodel.versions()}")


if __name__ == "__main__":
    main()
