#!/usr/bin/env python3
"""Records a text's ids and log-probabilities in a GGUF model, by transformers in f32.

    python3 tests/reference/score_vectors.py MODEL.gguf TEXT OUT.ref [--window 2048] [--threads 2]

The first token of a window has no probability (NaN). Prints the perplexity.
"""
import argparse
import math

import numpy as np
import torch

import ggufmodel
import reffile


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("model")
    ap.add_argument("text")
    ap.add_argument("out")
    ap.add_argument("--window", type=int, default=2048)
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)

    tok = ggufmodel.load_tokenizer(args.model)
    text = open(args.text, encoding="utf-8", newline="").read()
    ids = tok.encode(text, add_special_tokens=False).ids
    if tok.decode(ids, skip_special_tokens=False) != text:
        raise SystemExit(f"{args.text}: its ids do not decode to it")
    model = ggufmodel.load_model(args.model)

    logprobs = np.full(len(ids), np.nan, np.float32)
    for at in range(0, len(ids), args.window):
        part = torch.tensor(ids[at:at + args.window])
        with torch.no_grad():
            logits = model(part[None]).logits[0]
        # In f64: a sum of 49,152 exponentials in f32 would be the largest error of the record.
        for i in range(len(part) - 1):
            row = logits[i].double()
            logprobs[at + i + 1] = (row[part[i + 1]] - row.logsumexp(0)).item()
        nll = -float(np.nanmean(logprobs[:at + len(part)], dtype=np.float64))
        print(f"{at + len(part)} of {len(ids)} tokens, ppl {math.exp(nll):.5f}", flush=True)
    reffile.write(args.out, ids, logprobs, args.window, model.config.vocab_size)
    print(ggufmodel.versions())


if __name__ == "__main__":
    main()
