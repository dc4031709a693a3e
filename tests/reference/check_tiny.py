#!/usr/bin/env python3
"""Asks llama.cpp and a second look by transformers about the tiny models.

    python3 tests/reference/check_tiny.py tests/data              llama.cpp against the vectors
    python3 tests/reference/check_tiny.py --mistakes tests/data   what each mistake would do

The first reads the GGUF files by a program that had no part in making them (f32 KV). The second
runs the models with one thing wrong at a time and prints how far the logits move: the tolerance of
tests/test_reference.c has to stay well below the smallest.
"""
import argparse
import glob
import os

import numpy as np
import torch

import reffile


def by_llama_cpp(path, ids):
    import llama_cpp

    llm = llama_cpp.Llama(path, n_ctx=512, n_batch=512, logits_all=True, verbose=False,
                          type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)
    llm.eval(ids.tolist())
    return np.array(llm.scores[:len(ids)])


def check(path):
    ids, logprobs, _, _, pos, rows = reffile.read(path.replace(".gguf", ".ref"))
    logits = by_llama_cpp(path, ids).astype(np.float64)
    ours = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ours = ours[np.arange(len(ids) - 1), ids[1:]]
    print(f"{os.path.basename(path)}: llama.cpp's logits within {np.abs(logits[pos] - rows).max():.1e}"
          f", log-probabilities within {np.abs(ours - logprobs[1:]).max():.1e}")


# --- one mistake at a time: each is a function that spoils a model, or returns False --------------

def epsilon(model):
    for m in model.modules():
        if hasattr(m, "variance_epsilon"):
            m.variance_epsilon = 1e-6 if m.variance_epsilon > 5e-6 else 1e-5


def no_rope_scaling(model):
    rope = model.model.rotary_emb
    plain = rope.original_inv_freq.clone()
    if torch.equal(plain, rope.inv_freq):
        return False
    rope.inv_freq = plain


def scaling_without_middle(model):
    rope = model.model.rotary_emb
    ratio = rope.original_inv_freq / rope.inv_freq
    if ratio.max() < 2:
        return False
    rope.inv_freq = rope.original_inv_freq / torch.where(ratio < 1.01, 1.0, 8.0)


def rope_base(model):
    rope = model.model.rotary_emb
    i = torch.arange(len(rope.inv_freq)) / len(rope.inv_freq)
    rope.inv_freq = rope.inv_freq * 0.5 ** i


def neighbours_for_halves(model):
    for layer in model.model.layers:
        a = layer.self_attn
        for proj in (a.q_proj, a.k_proj):
            d = a.head_dim
            rows = torch.arange(proj.weight.shape[0]).view(-1, d // 2, 2).transpose(1, 2).flatten()
            proj.weight.copy_(proj.weight[rows])
            if proj.bias is not None:
                proj.bias.copy_(proj.bias[rows])


def heads_in_other_groups(model):
    for layer in model.model.layers:
        a = layer.self_attn
        d = a.head_dim
        n_kv = a.k_proj.weight.shape[0] // d
        if n_kv == 1:
            return False
        heads = torch.arange(a.q_proj.weight.shape[0]).view(n_kv, -1, d).transpose(0, 1).flatten()
        a.q_proj.weight.copy_(a.q_proj.weight[heads])
        a.o_proj.weight.copy_(a.o_proj.weight[:, heads])


def without_bias(which):
    def spoil(model):
        proj = getattr(model.model.layers[-1].self_attn, which)
        if proj.bias is None:
            return False
        proj.bias.zero_()
    spoil.__name__ = f"last layer without the bias of {which}"
    return spoil


def without_norm(which):
    def spoil(model):
        norm = model.model.norm if which == "norm" else getattr(model.model.layers[-1], which)
        norm.weight.fill_(norm.weight.mean())
    spoil.__name__ = f"{which} without its weights"
    return spoil


def gelu(model):
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.GELU()


def scale_of_scores(model):
    for layer in model.model.layers:
        layer.self_attn.scaling *= 1.01


def last_token_unseen(model):
    """A mask that is one key short for every query but the first."""
    def hook(module, args, kwargs):
        n = kwargs["hidden_states"].shape[1]
        seen = torch.ones(n, n, dtype=torch.bool).tril(-1)
        seen[0, 0] = True
        kwargs["attention_mask"] = torch.where(seen, 0.0, float("-inf"))[None, None]
        return args, kwargs
    model.model.layers[0].self_attn.register_forward_pre_hook(hook, with_kwargs=True)


MISTAKES = [epsilon, no_rope_scaling, scaling_without_middle, rope_base, neighbours_for_halves,
            heads_in_other_groups, without_bias("q_proj"), without_bias("k_proj"),
            without_bias("v_proj"), without_norm("input_layernorm"),
            without_norm("post_attention_layernorm"), without_norm("norm"), gelu, scale_of_scores,
            last_token_unseen]


def mistakes(path):
    import ggufmodel

    ids, _, _, _, pos, rows = reffile.read(path.replace(".gguf", ".ref"))
    ids = torch.from_numpy(ids.astype(np.int64))
    for spoil in [None, *MISTAKES]:
        model = ggufmodel.load_model(path)
        with torch.no_grad():
            if spoil and spoil(model) is False:
                continue
            d = (model(ids[None]).logits[0][pos.tolist()] - torch.from_numpy(rows.copy())).abs().max()
        name = spoil.__name__.replace("_", " ") if spoil else "no mistake"
        print(f"{os.path.basename(path)}: {name}: {d:.1e}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--mistakes", action="store_true")
    ap.add_argument("folder")
    args = ap.parse_args()
    torch.set_num_threads(1)
    for path in sorted(glob.glob(os.path.join(args.folder, "tiny_*.gguf"))):
        (mistakes if args.mistakes else check)(path)


if __name__ == "__main__":
    main()
