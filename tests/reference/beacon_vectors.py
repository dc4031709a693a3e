#!/usr/bin/env python3
"""beacon_vectors.py CODE DATA - what Activation Beacon's own code computes for the tiny models: DATA/beacon_*.

CODE is the folder research/Long_LLM/activation_beacon of the repository FlagOpen/FlagEmbedding (arXiv 2401.03462);
its modelling code runs as it is, in f32 with plain attention, loading a checkpoint by from_pretrained. The
base weights are those of tiny_NAME.gguf, the beacon's are random. None of that code is copied here.

For each of MODELS:
    beacon_NAME.safetensors   the beacon's tensors as the project's save_pretrained names them, and one tensor of
                              the base model; a whole checkpoint has all of those
    beacon_NAME.config.json   its config.json
    beacon_NAME_RUN.ref       the runs below: ids, log-probabilities and some rows of logits (reffile.py's format)

Each run is one call with all ids, and is computed a second time by `read`, a plain implementation in f64 (numpy);
both must agree, for appends of odd sizes and of one token too, and so must greedy generation. How ids come in
changes nothing but with sinks (see `read`): there the run of odd appends is recorded too, as RUN_odd.

Needs torch 2.3, transformers 4.41, accelerate, safetensors, gguf, numpy < 2.
"""
import importlib
import json
import os
import sys
import tempfile
import types

import numpy as np
import reffile
import torch
from gist_vectors import Model, attend
from safetensors.torch import load_file, save_file

WINDOW, N_TOKENS = 64, 330                 # five whole windows, and ten tokens of a sixth
# name, package of the project's code, type of the beacon's tensors
MODELS = (("smollm2", "llama", "Llama", torch.bfloat16), ("qwen2", "qwen2", "Qwen2", torch.float32))
# name, ratios of the windows in turn, sinks; those without a name are only compared
RUNS = (("r2", (2,), 0), ("r4", (4,), 0), ("r8", (8,), 0), ("r4_sink", (4,), 1),
        (None, (2,), 3), (None, (2, 4, 8), 0))
ROWS = [1, WINDOW - 1, WINDOW, 2 * WINDOW, 3 * WINDOW + 30, 5 * WINDOW - 1, N_TOKENS - 1]
ODD = (1, 63, 100, 7, 2, 1, 1, 93, 62)
APPENDS = (("one call", (N_TOKENS,)), ("odd appends", ODD), ("single tokens", (1,) * N_TOKENS),
           ("all of the first window at once", (67, 100, 7, 2, 1, 1, 93, 59)))
TOLERANCE = 2e-4                           # of logits of 5 and more, f32 from f64
LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj"}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


# --- the reading ----------------------------------------------------------------------------------

def read(m, adapter, ids, ratios, sinks, appends):
    """Logits after each id.

    Windows of WINDOW tokens, each with the next of `ratios`. After each r tokens stands a gist: an embedding of
    its own, projections to q, k and v of its own, all else the base model's. Every row, raw or gist, takes one
    position and sees [sinks | gists of the windows before | the rows of its window so far, itself too]. Of a
    full window the gists' keys and values are kept.

    Sinks are the first rows, raw or gist, of the first window where it comes in one append. The project's code
    takes them anew after each append until that window is full, each time those of the append, and they stand
    before the window even while that is open: only then does it matter how ids come in.
    """
    empty = np.zeros((0, m.n_kv, m.hd))
    sink, kept, own = ([[empty, empty] for _ in range(m.n_layer)] for _ in range(3))
    cuts = sorted({*range(0, len(ids), WINDOW), *np.cumsum(appends).tolist()})
    window, logits = np.zeros(0, bool), []                     # which of the open window's rows are gists
    for start, end in zip(cuts, cuts[1:]):
        ratio, x, is_gist = ratios[start // WINDOW % len(ratios)], [], []
        for i in range(start, end):
            x.append(m["token_embd.weight"][ids[i]])
            is_gist.append(False)
            if (i % WINDOW + 1) % ratio == 0:
                x.append(adapter["gist.embedding"][0])
                is_gist.append(True)
        x, is_gist = np.array(x), np.array(is_gist)
        window = np.concatenate((window, is_gist))
        for i in range(m.n_layer):
            q, k, v = (np.where(is_gist[:, None, None], gist, raw)
                       for gist, raw in zip(m.qkv(i, x, adapter), m.qkv(i, x)))
            keys, values = (np.concatenate(parts) for parts in zip(sink[i], kept[i], own[i], (k, v)))
            positions = np.arange(len(keys))
            out, _ = attend(m, q, positions[-len(x):], keys, np.repeat(positions[:, None], m.n_kv, 1),
                            values, positions[None] <= positions[-len(x):, None])
            x = m.ffn(i, x + out.reshape(len(x), -1) @ m.layer(i, "attn_output.weight").T)
            own[i] = [np.concatenate(parts) for parts in zip(own[i], (k, v))]
            if start < WINDOW:
                sink[i] = [k[:sinks], v[:sinks]]
            if end % WINDOW == 0:
                kept[i] = [np.concatenate((a, b[window])) for a, b in zip(kept[i], own[i])]
                own[i] = [empty, empty]
        if end % WINDOW == 0:
            window = window[:0]
        logits.append(m.logits(x[~is_gist]))
    return np.concatenate(logits)


# --- the checkpoint -------------------------------------------------------------------------------

def base_weights(m):
    """The tiny model's tensors by the names of Hugging Face's files."""
    out = {}
    for name, w in m.w.items():
        if name not in WHOLE:
            _, layer, module, kind = name.split(".")
            out[f"model.layers.{layer}.{LAYER[module]}.{kind}"] = w
        else:
            out[WHOLE[name]] = w
    return {name: torch.from_numpy(w.astype(np.float32)).contiguous() for name, w in out.items()}


def beacon_weights(m, dtype, gen):
    """Random ones, and the same by the names of docs/adapter.md."""
    def noise(x, scale):
        x = torch.from_numpy(np.asarray(x))
        return (x + scale * torch.randn(x.shape, generator=gen)).to(dtype)

    embd = m["token_embd.weight"]
    tensors = {"model.beacon_embed_tokens.weight": noise(np.zeros((1, m.n_embd)), float(embd.std()))}
    names = {"gist.embedding": "model.beacon_embed_tokens.weight"}
    for i in range(m.n_layer):
        for p in "qkv":
            for kind in ("weight", "bias"):
                w = m.layer(i, f"attn_{p}.{kind}")
                if w is not None:
                    name = f"model.layers.{i}.self_attn.beacon_{p}_proj.{kind}"
                    tensors[name] = noise(w, float(w.std()) / 2)
                    names[f"layers.{i}.{p}.{kind}"] = name
    return tensors, {ours: tensors[theirs].double().numpy() for ours, theirs in names.items()}


def make_config(cls, m):
    embd = m["token_embd.weight"]
    return cls(vocab_size=len(embd), hidden_size=m.n_embd,
               intermediate_size=len(m.layer(0, "ffn_up.weight")), num_hidden_layers=m.n_layer,
               num_attention_heads=m.n_head, num_key_value_heads=m.n_kv, rms_norm_eps=float(m.eps),
               max_position_embeddings=2048, rope_theta=float(round(m.freq[1] ** (-m.hd / 2))),
               tie_word_embeddings=m["output.weight"] is None, bos_token_id=1, eos_token_id=2,
               beacon_window=WINDOW, beacon_stride=WINDOW, beacon_attn="full-coverage",
               beacon_attend_prev=True, beacon_sink_size=0, beacon_ratio=[2, 4, 8],
               beacon_ratio_mix="adapt-1024", beacon_param=["q", "k", "v"], beacon_pos="interleave",
               beacon_embed_init="eos")


def load(code, package, name, m, beacon):
    """The project's model with these weights, and what it writes in turn: names of tensors, config."""
    if "beacon" not in sys.modules:        # its src/__init__.py imports far more than models need
        sys.modules["beacon"] = types.ModuleType("beacon")
        sys.modules["beacon"].__path__ = [os.path.join(code, "src")]
    classes = importlib.import_module(f"beacon.{package}")
    weights = base_weights(m)
    weights.update((n, w.float()) for n, w in beacon.items())
    with tempfile.TemporaryDirectory() as tmp:
        make_config(getattr(classes, f"{name}Config"), m).save_pretrained(tmp)
        save_file(weights, f"{tmp}/model.safetensors", {"format": "pt"})
        model = getattr(classes, f"{name}ForCausalLM").from_pretrained(
            tmp, torch_dtype=torch.float32, attn_implementation="eager").eval()
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        saved = load_file(f"{tmp}/model.safetensors")
        with open(f"{tmp}/config.json") as f:
            config = json.load(f)
    model.config.torch_dtype = torch.float32       # saving made it a string
    assert saved.keys() == weights.keys(), saved.keys() ^ weights.keys()
    assert all(torch.equal(saved[n], weights[n]) for n in weights)
    config.pop("_name_or_path", None)
    return model, weights, config


# --- the project's code ---------------------------------------------------------------------------

def run(model, ids, ratios, sinks, appends):
    """Logits after each id: those that a call returns, which are the last window's, and those before."""
    memory, rows, native = model.memory, [], model._native_forward

    def recording(**kwargs):
        out = native(**kwargs)
        raw = memory._beacon_indices[-out.logits.shape[1]:] == 0
        rows.append(out.logits[0, raw].double().numpy())
        return out

    memory.set(verbose=False, beacon_ratio=list(ratios), beacon_ratio_mix="sequence", beacon_sink_size=sinks)
    memory.reset()
    model._native_forward, start = recording, 0
    try:
        for n in appends:
            out = model(input_ids=torch.from_numpy(ids[None, start:start + n]))
            assert np.array_equal(out.logits[0].double().numpy(), rows[-1]), "the last window's rows"
            start += n
    finally:
        model._native_forward = native
    assert start == len(ids)
    rows = np.concatenate(rows)
    n_full, n_open = divmod(len(ids), WINDOW)
    by = [ratios[i % len(ratios)] for i in range(n_full + 1)]
    kept = (sum(WINDOW // r for r in by[:-1]), n_open + n_open // by[-1])
    assert memory.get_memory_size()[1:] == kept, memory.get_memory_size()
    return rows


def generate(model, m, adapter, ids, ratios, n):
    """Greedy generation from a prompt; by our reading each id must be the best one."""
    model.memory.set(verbose=False, beacon_ratio=list(ratios), beacon_sink_size=0)
    model.memory.reset()
    model.generation_config.eos_token_id = None
    out = model.generate(input_ids=torch.from_numpy(ids[None]), do_sample=False, max_new_tokens=n,
                         pad_token_id=0)[0].numpy()
    assert len(out) == len(ids) + n
    best = read(m, adapter, out, ratios, 0, (len(out),)).argmax(-1)
    return int((best[len(ids) - 1:-1] == out[len(ids):]).sum())


def logprobs_of(logits, ids):
    top = logits.max(-1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    out = np.full(len(ids), np.nan)
    out[1:] = [logits[i, ids[i + 1]] - log_sum[i] for i in range(len(ids) - 1)]
    return out


def main(code, data):
    torch.set_num_threads(1)
    assert sum(ODD) == N_TOKENS
    for number, (name, package, class_name, dtype) in enumerate(MODELS):
        m = Model(f"{data}/tiny_{name}.gguf")
        gen = torch.Generator().manual_seed(2401 + number)
        beacon, adapter = beacon_weights(m, dtype, gen)
        model, weights, config = load(code, package, class_name, m, beacon)
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
        some = "model.norm.weight"
        save_file({**beacon, some: weights[some].to(dtype)}, f"{data}/beacon_{name}.safetensors",
                  {"format": "pt"})
        with open(f"{data}/beacon_{name}.config.json", "w") as f:
            json.dump(config, f, indent=2, sort_keys=True)
            f.write("\n")

        n_vocab = config["vocab_size"]
        ids = torch.randint(0, n_vocab, (N_TOKENS,), generator=gen).numpy()
        for label, ratios, sinks in RUNS:
            for what, appends in APPENDS:
                logits = run(model, ids, ratios, sinks, appends)
                if len(appends) == 1:
                    one_call = logits
                off = np.abs(logits - read(m, adapter, ids, ratios, sinks, appends)).max()
                other = np.abs(logits - one_call).max()
                print(f"{name}, ratios {ratios}, {sinks} sinks, {what}: {off:.1e} from our reading, "
                      f"{other:.1e} from one call")
                assert off < TOLERANCE and (other < TOLERANCE or (sinks and appends[0] < WINDOW))
                if label and (len(appends) == 1 or (appends == ODD and other >= TOLERANCE)):
                    run_name = label if len(appends) == 1 else f"{label}_odd"
                    reffile.write(f"{data}/beacon_{name}_{run_name}.ref", ids, logprobs_of(logits, ids),
                                  N_TOKENS, n_vocab, ROWS, logits[ROWS])
        for ratios in ((2,), (8,)):
            n_same = generate(model, m, adapter, ids[:100], ratios, 80)
            print(f"{name} ratio {ratios}: {n_same} of 80 generated tokens are our reading's best")
            assert n_same == 80


if __name__ == "__main__":
    with torch.no_grad():
        main(*sys.argv[1:])
