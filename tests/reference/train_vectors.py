#!/usr/bin/env python3
"""train_vectors.py DATA - losses and gradients of the tiny models by the torch twin: DATA/train_*.vec.

    venv/bin/python tests/reference/train_vectors.py tests/data            # check, then write
    venv/bin/python tests/reference/train_vectors.py --check tests/data    # check only

Everything is computed in f64 from values that are exact in f32. Before a file is written, the forward pass is held to
gist_*_gists.ref (numpy, gist_vectors.py) and to beacon_*.ref (Activation Beacon's own code), and the gradients of
each tensor to finite differences. Packages: tests/requirements-train.txt.

A .vec file is a safetensors file, all tensors F32 (ids and offsets too). Inputs:

    ids                  (sequences, T)
    loss_mask            (sequences, T)   1: the token counts as a target (token t is the target of row t - 1)
    adapter.NAME         what is trained, by the names of docs/adapter.md
    ae.NAME              ae only: slot.k.weight, slot.v.weight, embedding (a row for each of `ratios`). The decoder's
                         block (ae.block.NAME in gradients) is the base's last layer

What is not there is the base model's at first: in train_smollm2_all_full.vec o, gate, up and down, whose gradients of
layer 0 are recorded. Projections have the base model's biases, but in train_qwen2_bias.vec, where biases are trained too. Then there is
metadata: model (the GGUF file's name), method, mask, embedding (as docs/adapter.md), projections (those of
train/recipe.def that are trained; absent: qkv), segment (L), sinks, ratios,
weight.lm, weight.ae, weight.distill, tie.gamma (absent: no token weights), tie.sinks (first tokens of the sequence
that "segment only" sees, too), distill.k, runs (a number). Run N = 0, 1, ... of `runs` takes sequence
`run.N.sequence` at ratio `run.N.ratio`, all from the same parameters; metadata

    run.N.loss           the weighted sum, 17 digits
    run.N.loss.lm, .ae, .distill   its parts, unweighted, where they are

and tensors

    run.N.rows           (n) rows (positions of raw tokens) that carry loss, ascending
    run.N.logprobs       (n) log P of the token after each
    run.N.tie            (n) token weights, where they are
    run.N.teacher.ids, run.N.teacher.logp   (n, k) the teacher's, largest first, where they are
    run.N.grad.NAME      d loss / d adapter.NAME, of every trained tensor; run.N.grad.ae.NAME of the decoder's
    run.N.grad.base.NAME where metadata has train-base: of the base's weight of that name in the GGUF file, rows of q and k
                         as docs/adapter.md has them. Of a matrix G (n_out, n_in) it is .u, G u with u_j = cos(j), and
                         .v, v G with v_i = cos(i + 1)

train_smollm2_steps20.vec instead has 20 steps, a sequence each (batch of one): metadata steps, lr (peak), warmup,
floor, beta1, beta2, eps, weight_decay, clip, and step.N.ratio, step.N.loss, step.N.lr, step.N.norm (of the gradient,
before clipping), and tensors final.NAME, the adapter's after the last step. All tensors decay.

The same in f32 differs from this by: losses 2e-6, a tensor's gradient 2e-5 of its norm (coarse-rec; others 8e-6),
losses of the 20 steps 5e-6, final parameters 4e-7.
"""
import argparse

import numpy as np
import reffile
import torch

import train_losses as losses
from train_model import PROJECTIONS, Adapter, Base, read, read_tensors, write_tensors

SEGMENT, SINKS, K = 64, 4, 8
RATIOS = (4, 8, 16, 32)


def f32(x):
    return np.asarray(x, np.float32)


def make_adapter(base, rng, rank=0, bias=False, own="qkv"):
    """rank 0: whole projections. Random, but near the base model's."""
    w = {"gist.embedding": rng.normal(0, float(base.embd.std()), (1, base.n_embd))}
    for i in range(base.n_layer):
        for p in own:
            m = base.layer(i, f"{PROJECTIONS[p]}.weight").numpy()
            if rank:
                w[f"layers.{i}.{p}.a"] = rng.normal(0, 1, (rank, m.shape[1])) / np.sqrt(m.shape[1])
                w[f"layers.{i}.{p}.b"] = rng.normal(0, m.std() * 3, (m.shape[0], rank))
            else:
                w[f"layers.{i}.{p}.weight"] = m + rng.normal(0, m.std() / 2, m.shape)
            if bias:
                w[f"layers.{i}.{p}.bias"] = rng.normal(0, 0.5, m.shape[0])
    return {name: f32(x) for name, x in w.items()}


def make_decoder(base, rng):
    n = base.n_kv * base.hd
    w = {f"slot.{p}.weight": rng.normal(0, 1, (n, base.n_layer * 2 * n)) / np.sqrt(n) for p in "kv"}
    w["embedding"] = rng.normal(0, float(base.embd.std()), (len(RATIOS), base.n_embd))
    return {name: f32(x) for name, x in w.items()}


class Case:
    """What a file's runs have in common."""

    def __init__(self, base, name, ratios, rng, method="fine-kv", mask="memory-only", embedding="last-token",
                 n=256, sequences=1, weights=None, gamma=None, tie_sinks=0, masked=False, ae=False, copies="", train_base=False, **how):
        self.base, self.name, self.ratios, self.gamma = base, name, ratios, gamma
        self.original = Base(base.path, torch.float64) if train_base else None
        self.tie_sinks, self.weights = tie_sinks, weights or {"lm": 1.0}
        self.meta = {"method": method, "mask": mask, "embedding": embedding}
        self.tensors = make_adapter(base, rng, **how)
        self.copies = {f"layers.{i}.{p}.weight": base.layer(i, f"{PROJECTIONS[p]}.weight").numpy()
                       for i in range(base.n_layer) for p in copies}
        self.ids = rng.integers(0, base.n_vocab, (sequences, n))
        self.mask = (rng.random((sequences, n)) < 0.6) if masked else np.ones((sequences, n))
        self.ae = make_decoder(base, rng) if ae else None

    def start(self):
        adapter = Adapter({**self.tensors, **self.copies}, self.meta, self.base)
        decoder = losses.Decoder(self.base, RATIOS, self.ae) if self.ae else None
        trained = {f"adapter.{name}": x for name, x in adapter.w.items()}
        trained.update({f"ae.{name}": x for name, x in decoder.w.items()} if decoder else {})
        if self.original:
            self.base.train()
            trained.update({f"base.{name}": x for name, x in self.base.w.items()})
        return adapter, decoder, trained

    def loss(self, adapter, decoder, sequence, ratio):
        ids, mask = (torch.from_numpy(x[sequence:sequence + 1]) for x in (self.ids, self.mask))
        return losses.sequence_loss(self.base, adapter, ids, mask, SEGMENT, ratio, SINKS, self.weights, self.gamma,
                                    self.tie_sinks, K, decoder, original=self.original)

    def head(self):
        meta = {"format": "gist-train-vectors", "model": self.base.path.rsplit("/", 1)[-1], **self.meta,
                "segment": SEGMENT, "sinks": SINKS, "ratios": " ".join(map(str, RATIOS)), "distill.k": K}
        n_own = len({name.split(".")[2] for name in [*self.tensors, *self.copies] if name.startswith("layers.")})
        if n_own != 3:
            meta["projections"] = {0: "none", 4: "qkvo", 7: "all"}[n_own]
        if self.original:
            meta["train-base"] = "yes"
        meta.update({f"weight.{name}": self.weights.get(name, 0.0) for name in ("lm", "ae", "distill")})
        if self.gamma is not None:
            meta.update({"tie.gamma": self.gamma, "tie.sinks": self.tie_sinks})
        tensors = {"ids": self.ids, "loss_mask": self.mask}
        tensors.update({f"adapter.{name}": x for name, x in self.tensors.items()})
        tensors.update({f"ae.{name}": x for name, x in (self.ae or {}).items()})
        return meta, tensors

    def write(self, path):
        meta, tensors = self.head()
        meta["runs"] = len(self.ratios)
        for i, ratio in enumerate(self.ratios):
            adapter, decoder, trained = self.start()
            loss, out = self.loss(adapter, decoder, i % len(self.ids), ratio)
            loss.backward()
            for x in trained.values():  # nothing depends on what gists are behind the last layer's attention
                x.grad = torch.zeros_like(x) if x.grad is None else x.grad
            check_gradients(self, i, ratio, trained, adapter, decoder)
            meta.update({f"run.{i}.ratio": ratio, f"run.{i}.sequence": i % len(self.ids),
                         f"run.{i}.loss": f"{float(loss.detach()):.17g}"})
            for name, x in out.items():
                if name in ("lm", "ae", "distill"):
                    meta[f"run.{i}.loss.{name}"] = f"{float(x.detach()):.17g}"
                else:
                    tensors[f"run.{i}.{name}"] = x
            for name, x in trained.items():
                name = name.removeprefix("adapter.")
                if name.startswith("base.") and x.dim() == 2:
                    n_out, n_in = x.shape
                    tensors[f"run.{i}.grad.{name}.u"] = x.grad @ torch.cos(torch.arange(n_in, dtype=x.dtype))
                    tensors[f"run.{i}.grad.{name}.v"] = torch.cos(1 + torch.arange(n_out, dtype=x.dtype)) @ x.grad
                elif not (name in self.copies and name.startswith("layers.1.")):
                    tensors[f"run.{i}.grad.{name}"] = x.grad
            print(f"  {self.name} ratio {ratio}: loss {float(loss.detach()):.6f}, {len(trained)} tensors")
        self.base.train(False)
        write_tensors(path, tensors, meta)


def check_gradients(case, sequence, ratio, trained, adapter, decoder, h=1e-6):
    """Each tensor's gradient along a random direction against a central difference."""
    gen = torch.Generator().manual_seed(1)
    at = sequence % len(case.ids)
    for name, x in trained.items():
        d = torch.randn(x.shape, generator=gen, dtype=x.dtype)
        d *= 1 / d.norm()
        with torch.no_grad():
            sides = []
            for sign in (1, -1):
                x += sign * h * d
                sides.append(float(case.loss(adapter, decoder, at, ratio)[0]))
                x -= sign * h * d
        found, expected = float((x.grad * d).sum()), (sides[0] - sides[1]) / (2 * h)
        if abs(found - expected) > 1e-4 * float(x.grad.norm()) / np.sqrt(x.numel()) + 2e-8:
            raise SystemExit(f"{case.name}: gradient of {name}: found {found}, by differences {expected}")


def steps20(base, path, rng):
    """20 steps of AdamW."""
    hyper = {"steps": 20, "lr": 5e-3, "warmup": 4, "floor": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8,
             "weight_decay": 0.05, "clip": 0.5}
    case = Case(base, "steps20", (), rng, rank=3, sequences=hyper["steps"], n=192, masked=True)
    ratios = [int(rng.choice(RATIOS)) for _ in range(hyper["steps"])]
    meta, tensors = case.head()
    meta.update(hyper)
    adapter, _, trained = case.start()
    params = list(trained.values())
    opt = losses.optimiser(params, hyper["beta1"], hyper["beta2"], hyper["eps"], hyper["weight_decay"])
    for step, ratio in enumerate(ratios):
        lr = losses.learning_rate(step, hyper["steps"], hyper["lr"], hyper["warmup"], hyper["floor"])
        loss, _ = case.loss(adapter, None, step, ratio)
        loss.backward()
        norm = losses.adamw_step(opt, params, lr, hyper["clip"])
        for key, x in (("loss", float(loss.detach())), ("lr", lr), ("norm", norm)):
            meta[f"step.{step}.{key}"] = f"{x:.17g}"
        meta[f"step.{step}.ratio"] = ratio
    tensors.update({f"final.{name.removeprefix('adapter.')}": x for name, x in trained.items()})
    print(f"  steps20: loss {meta['step.0.loss']} to {meta['step.19.loss']}, last norm {norm:.3f}")
    write_tensors(path, tensors, meta)


# --- checks ---------------------------------------------------------------------------------------

@torch.no_grad()
def compare(base, adapter, ref, ratio, sinks):
    ids, expected, *_ = reffile.read(ref)
    ids = torch.from_numpy(ids.astype(np.int64))[None]
    x = read(base, adapter, ids, SEGMENT, ratio, sinks).x
    rows = losses.loss_rows(torch.ones(ids.shape), 0)
    found = losses.logprobs(base, x, rows, ids)[1].numpy()
    worst = float(np.abs(found - expected[1:]).max())
    print(f"  {ref.rsplit('/', 1)[-1]}: {worst:.1e}")
    return worst


def check_forward(data, base, name):
    """Against numpy, and against Activation Beacon's code (in f32)."""
    tensors, meta = read_tensors(f"{data}/gist_{name}.safetensors")
    if compare(base, Adapter(tensors, meta, base), f"{data}/gist_{name}_gists.ref", 8, 4) > 2e-6:
        raise SystemExit(f"{name}: forward differs from numpy's")
    if name not in ("smollm2", "qwen2"):
        return
    tensors = {}
    for theirs, x in read_tensors(f"{data}/beacon_{name}.safetensors")[0].items():
        parts = theirs.split(".")
        if "beacon_embed" in theirs:
            tensors["gist.embedding"] = x.reshape(1, -1)
        elif "beacon_" in theirs:
            tensors[f"layers.{parts[2]}.{parts[4][7]}.{parts[5]}"] = x
    adapter = Adapter(tensors, {"mask": "in-segment", "embedding": "own"}, base)
    for run, ratio, sinks in (("r2", 2, 0), ("r4", 4, 0), ("r8", 8, 0), ("r4_sink", 4, 1)):
        if compare(base, adapter, f"{data}/beacon_{name}_{run}.ref", ratio, sinks) > 1e-4:
            raise SystemExit(f"{name}: forward differs from Activation Beacon's")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--check", action="store_true")
    a.add_argument("--only", default="", metavar="PART", help="of a file's name: no other one is written")
    a.add_argument("data")
    a = a.parse_args()
    torch.set_num_threads(1)
    bases = {name: Base(f"{a.data}/tiny_{name}.gguf", torch.float64) for name in ("llama31", "smollm2", "qwen2")}
    for name, base in bases.items():
        check_forward(a.data, base, name)
    if a.check:
        return
    llama, smol, qwen = bases.values()
    cases = [  # a new one goes to the end: its place is the seed
        (llama, "full", (4, 16), dict(embedding="own", n=192)),
        (llama, "rank3", (8, 32), dict(rank=3)),
        (smol, "rank3", (4, 16), dict(rank=3, masked=True)),
        (qwen, "full", (8, 32), dict()),
        (qwen, "rank3", (4, 8), dict(rank=3)),
        (qwen, "bias", (4,), dict(rank=3, bias=True)),
        (smol, "in_segment", (4, 16), dict(rank=3, mask="in-segment")),
        (qwen, "in_segment", (8, 8), dict(rank=3, mask="in-segment", embedding="own", sequences=2)),
        (smol, "coarse_kv", (4, 16), dict(rank=3, method="coarse-kv")),
        (qwen, "coarse_kv", (8, 32), dict(rank=3, method="coarse-kv", embedding="own")),
        (smol, "coarse_rec", (4, 16), dict(rank=3, method="coarse-rec")),
        (llama, "coarse_rec", (8, 32), dict(rank=3, method="coarse-rec")),
        (smol, "tie", (4, 16), dict(rank=3, gamma=2.0, masked=True)),
        (smol, "tie_sinks", (8,), dict(rank=3, gamma=2.0, tie_sinks=SINKS)),
        (qwen, "distill", (4, 16), dict(rank=3, weights={"lm": 0.3, "distill": 0.7}, n=192)),
        (smol, "ae", (4, 16), dict(rank=3, weights={"lm": 1.0, "ae": 0.5}, ae=True, n=192)),
        (qwen, "coarse_rec_ae", (8,), dict(rank=3, weights={"lm": 1.0, "ae": 0.5}, ae=True, n=192,
                                           method="coarse-rec")),
    ]
    everything = tuple(PROJECTIONS)
    cases += [
        (smol, "all_full", (8,), dict(n=192, copies=everything[3:])),
        (llama, "all_rank3", (4,), dict(rank=3, own=everything, masked=True)),
        (qwen, "all_in_segment", (4,), dict(rank=3, own=everything, mask="in-segment", embedding="own", n=192)),
        (smol, "all_coarse_rec", (8,), dict(rank=3, own=everything, method="coarse-rec", n=192)),
        (qwen, "qkvo_coarse_kv", (8,), dict(rank=3, own=everything[:4], method="coarse-kv", n=192)),
        (smol, "base_fine", (4,), dict(rank=3, train_base=True, masked=True, n=192)),
        (llama, "base_in_segment", (8,), dict(rank=3, own=everything, train_base=True, mask="in-segment", n=192)),
        (qwen, "base_coarse_rec", (8,), dict(own="", train_base=True, method="coarse-rec", embedding="own", n=192)),
        (qwen, "base_losses", (8,), dict(rank=3, train_base=True, gamma=2.0, ae=True, n=192,
                                         weights={"lm": 0.6, "distill": 0.7, "ae": 0.5})),
        (smol, "coarse_rec_losses", (8,), dict(rank=3, method="coarse-rec", gamma=2.0, n=192,
                                               weights={"lm": 0.6, "distill": 0.7})),
    ]
    for i, (base, name, ratios, how) in enumerate(cases):
        if a.only and a.only not in name:
            continue
        model = [m for m, b in bases.items() if b is base][0]
        print(f"train_{model}_{name}.vec")
        Case(base, name, ratios, np.random.default_rng(100 + i), **how).write(f"{a.data}/train_{model}_{name}.vec")
    if a.only in "steps20":
        steps20(smol, f"{a.data}/train_smollm2_steps20.vec", np.random.default_rng(99))


if __name__ == "__main__":
    main()
