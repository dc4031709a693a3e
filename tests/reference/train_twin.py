#!/usr/bin/env python3
"""train_twin.py - the trainer once more, in torch: the same recipe, corpus file and adapter file as gist-train's.

    venv/bin/python tests/reference/train_twin.py --config RECIPE [--OPTION VALUE ...] [--device cuda] [--at-once N]

Options are those of train/recipe.def, the recipe file has its format. Written from docs/memory.md, docs/adapter.md and
the paper; gradients are autograd's. Packages: tests/requirements-train.txt.

    train_model.py     the base model, adapters, the pass over segments with gists
    train_losses.py    language modelling, token weights (TIE), autoencoding (AE), distillation; the optimiser
    train_corpus.py    reads a corpus file and draws sequences from it
    train_vectors.py   checks all that, and writes tests/data/train_*.vec (format: its head)
    train_twin.py      the loop

One step, for a sequence of T tokens x in S segments of L tokens, ratio r, s sinks:

    rows     raw tokens go through the frozen base. Gists' projections are the adapter's, those of `projections`; their
             input is its embedding, with embedding last-token added to that of the last token of the snippet. What they
             see: docs/memory.md
    memory   of each segment but the last: sinks (segment 0), gists, tokens that no gist stands for
    LM       mean of -w_t log P(x_{t+1} | ...) over the rows t that carry loss: t + 1 < T, loss_mask[t + 1], and
             t >= L, but for gists that stand in the segment (in-segment): the first segment depends on them too
    TIE      w = n softmax(min(log P(x_{t+1} | all before) - log P(x_{t+1} | its segment), gamma)) over these n
             rows, by the base; a row's segment is the row's own, behind the sinks. Without: w = 1
    distill  mean over these rows of sum_k p_k (log p_k - log q_k): p and q the probabilities of the base's k most
             probable tokens, by the base with full attention and by the gist model, and of all other tokens together
    AE       mean over gists and tokens of their snippets of -log P(x_j | g, [ae]_r, x_<j): one block of the base's
             shape, at first its last layer. Rows are [ae]_r, x_1, ..., x_{r-1} at positions 1, ..., r. The slot at
             position 0 is a key and a value only: linear maps of the memory entry's [k, v of layer 0, k, v of
             layer 1, ...], k unrotated, at first those of the last layer. Output by the base's norm and matrix.
             Not part of the adapter
    loss     the sum of loss-lm LM, loss-distill distill and loss-ae AE; of a batch the mean over its sequences
    step     the gradient clipped to norm `clip`, AdamW with all tensors decaying

Sequences of a step that drew one ratio go through together, --at-once N of them at most.
"""
import argparse
import json
import os
import re
import time

import numpy as np
import torch

import train_losses as losses
from train_corpus import GOLDEN, MASK64, Corpus, Stream, mix
from train_model import PROJECTIONS, Adapter, Base, read, read_tensors, write_tensors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# --- the recipe -------------------------------------------------------------------------------------

def convert(kind, text):
    if kind in ("COUNT", "BIG"):
        return int(text)
    if kind == "REAL":
        return float(text)
    if kind == "YES":
        return {"yes": True, "no": False}[text]
    if kind == "LIST":
        return sorted(int(x) for x in re.split(r"[ ,]+", text.strip()) if x)
    if kind == "WEIGHTS":
        return {k: float(v) for k, v in (x.split("=") for x in re.split(r"[ ,]+", text.strip()) if x)}
    return text


def known_options():
    """{name: (kind, default, choices)} of train/recipe.def."""
    with open(f"{ROOT}/train/recipe.def") as f:
        found = re.findall(r'^OPTION\(\w+, "([\w-]+)", (\w+), "[^"]*", "([^"]*)", [^"]*"([^"]*)",', f.read(), re.M)
    return {name: (kind, default, choices.split("|")) for name, kind, default, choices in found}


def load_recipe(path, flags):
    """flags: [(name, text)]. Returns {name: value}."""
    options, pairs = known_options(), []
    if path:
        with open(path) as f:
            for n, line in enumerate(f, 1):
                if line.strip() and not line.lstrip().startswith("#"):
                    key, equals, value = line.partition("=")
                    if not equals:
                        raise SystemExit(f"{path}:{n}: found no `key = value`")
                    pairs.append((key.strip(), value.strip()))
    recipe = {name: convert(kind, default) for name, (kind, default, _) in options.items()}
    for name, text in pairs + flags:
        if name not in options:
            raise SystemExit(f"there is no option {name}")
        kind, _, choices = options[name]
        try:
            recipe[name] = convert(kind, text)
        except (ValueError, KeyError):
            raise SystemExit(f"{name}: found {text!r}, which is no {kind.lower()}") from None
        if kind == "CHOICE" and text not in choices:
            raise SystemExit(f"{name}: found {text!r}, allowed are {', '.join(choices)}")
    return recipe


def recipe_text(recipe):
    return "\n".join(f"{k} = {v}" for k, v in recipe.items())


# --- adapters ---------------------------------------------------------------------------------------

def new_tensors(base, projections, rank, seed):
    """A copy of the base's projections, or B A beside it: A uniform in +-1 / sqrt(n_in) (as torch initialises a
    linear layer), B zeros; the draws are gist-train's."""
    state, w = seed, {"gist.embedding": np.zeros((1, base.n_embd), np.float32)}
    own = list(PROJECTIONS)[:{"none": 0, "qkv": 3, "qkvo": 4, "all": 7}[projections]]
    for i in range(base.n_layer):
        for p in own:
            m = base.layer(i, f"{PROJECTIONS[p]}.weight").float().cpu().numpy()
            if not rank:
                w[f"layers.{i}.{p}.weight"] = m
                continue
            z = np.empty(rank * m.shape[1])
            for j in range(len(z)):
                state = (state + GOLDEN) & MASK64
                z[j] = (mix(state) >> 11) * 2.0 ** -52 - 1
            w[f"layers.{i}.{p}.a"] = (z.astype(np.float32) * np.float32(m.shape[1] ** -0.5)).reshape(rank, -1)
            w[f"layers.{i}.{p}.b"] = np.zeros((m.shape[0], rank), np.float32)
    return w


def open_adapter(base, recipe):
    meta = {"format": "gist-adapter", "version": "1", "base_model": base.digest(), "base_name": base.name,
            "method": recipe["method"], "mask": recipe["mask"], "embedding": "last-token",
            "segment": recipe["segment"], "ratios": " ".join(map(str, recipe["ratios"])), "sinks": recipe["sinks"]}
    tensors = new_tensors(base, recipe["projections"], recipe["rank"], recipe["seed"])
    if recipe["init"]:
        found, theirs = read_tensors(recipe["init"])
        for key in ("method", "mask"):
            if theirs.get(key) != meta[key]:
                raise SystemExit(f"{recipe['init']}: found {key} {theirs.get(key)}, the recipe asks for {meta[key]}")
        meta["embedding"] = theirs["embedding"]
        if not found.keys() <= tensors.keys() or any(tensors[k].shape != x.shape for k, x in found.items()):
            raise SystemExit(f"{recipe['init']}: its tensors are not those of rank {recipe['rank']}")
        tensors.update(found)
    return Adapter(tensors, meta, base)


def save_adapter(adapter, path, notes):
    types = {name: "F32" if name == "gist.embedding" else "BF16" for name in adapter.w}
    write_tensors(f"{path}.part", adapter.w, {**adapter.meta, "training": notes}, types)
    os.replace(f"{path}.part", path)


# --- evaluation -------------------------------------------------------------------------------------

class Evaluation:
    """Mean negative log-likelihood of the tokens behind the first segment of the longest held-out documents'
    beginnings: with full attention, with no memory but the sinks, and by gists."""

    def __init__(self, base, recipe, run):
        corpus, self.base, self.recipe, self.run = Corpus(recipe["heldout"]), base, recipe, run
        n, n_docs, self.documents = recipe["sequence"], recipe["eval-docs"], []
        long = [i for i, d in enumerate(corpus.documents) if d["n_tokens"] >= n and d["n_loss"] == d["n_tokens"]]
        for seen, i in enumerate(long):  # spread over the corpus
            if seen * n_docs // len(long) >= len(self.documents) and len(self.documents) < n_docs:
                first = corpus.document(i)[0]
                ids = torch.from_numpy(corpus.ids[first:first + n].astype(np.int64))
                self.documents.append(ids[None].to(base.device))
        if not self.documents:
            raise SystemExit(f"{recipe['heldout']}: no document has {n} tokens")
        segment, sinks = recipe["segment"], recipe["sinks"]
        self.fixed = {"full": self.mean(base.plain),
                      "none": self.mean(lambda ids: losses.segments_alone(base, ids, segment, sinks))}

    @torch.no_grad()
    def mean(self, last_rows):
        found = []
        for ids in self.documents:
            with self.run.autocast():
                rows = losses.loss_rows(torch.ones_like(ids), self.recipe["segment"] - 1)
                found.append(-float(losses.logprobs(self.base, last_rows(ids), rows, ids)[1].double().mean()))
        return sum(found) / len(found)

    def of(self, adapter):
        r = self.recipe
        gists = lambda ratio: lambda ids: read(self.base, adapter, ids, r["segment"], ratio, r["sinks"]).x
        return {**self.fixed, "ratios": r["ratios"], "nll": [self.mean(gists(ratio)) for ratio in r["ratios"]]}


# --- the loop ---------------------------------------------------------------------------------------

def ratio_of(recipe, index):
    """Of sequence `index`: gist-train's choice."""
    return recipe["ratios"][Stream.hash(Stream.hash(recipe["seed"]) ^ index) % len(recipe["ratios"])]


class Training:
    def __init__(self, recipe, device, at_once):
        self.recipe, self.device, self.at_once = recipe, device, at_once
        if recipe["train-base"]:
            raise SystemExit("train-base: here the base model is frozen; train_vectors.py has its gradients")
        for key in ("model", "corpus"):
            if not recipe[key]:
                raise SystemExit(f"{key} is missing")
        self.bf16 = recipe["precision"] == "bf16" or recipe["precision"] == "auto" and has_bf16(device)
        self.base = Base(recipe["model"], torch.float32, device, torch.bfloat16 if self.bf16 else None)
        self.corpus = Corpus(recipe["corpus"], recipe["weights"])
        self.adapter = open_adapter(self.base, recipe)
        self.trained = {f"adapter.{name}": x for name, x in self.adapter.w.items()}
        self.decoder = None
        if recipe["loss-ae"]:
            self.decoder = losses.Decoder(self.base, recipe["ratios"],
                                          generator=torch.Generator().manual_seed(recipe["seed"]))
            self.trained.update({f"ae.{name}": x for name, x in self.decoder.w.items()})
        self.opt = losses.optimiser(list(self.trained.values()), recipe["beta1"], recipe["beta2"], recipe["eps"],
                                    recipe["weight-decay"])
        self.step = self.tokens = 0
        if recipe["checkpoint"] and os.path.exists(recipe["checkpoint"]):
            self.load(recipe["checkpoint"])

    def autocast(self):
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.bf16)

    def groups(self):
        """[(ratio, ids (b, T), loss mask)] of this step."""
        r, by_ratio = self.recipe, {}
        for index in range(self.step * r["batch"], (self.step + 1) * r["batch"]):
            by_ratio.setdefault(ratio_of(r, index), []).append(index)
        for ratio, indices in by_ratio.items():
            for i in range(0, len(indices), self.at_once):
                some = indices[i:i + self.at_once]
                drawn = [self.corpus.sample(r["seed"], index, r["sequence"]) for index in some]
                ids, mask = (torch.from_numpy(np.stack(x)).to(self.device) for x in zip(*drawn))
                yield ratio, ids, mask

    def ae_choose(self, ratio):
        """Gists that are rebuilt in this step: a part of all that become memory."""
        r = self.recipe
        n = (r["sequence"] // r["segment"] - 1) * (r["segment"] // ratio)
        if r["mask"] == "memory-only" and r["method"] == "fine-kv":
            n += (r["segment"] - r["sinks"]) // ratio - r["segment"] // ratio
        gen = torch.Generator().manual_seed(mix(r["seed"] ^ mix(64 * self.step + ratio)) >> 1)
        return torch.randperm(n, generator=gen)[:max(1, round(n * r["ae-share"]))].sort()[0].to(self.device)

    def one_step(self):
        """Returns what the log says about it (train/run_log.h)."""
        r, seen, ratios = self.recipe, {}, set()
        weights = {"lm": r["loss-lm"], "ae": r["loss-ae"], "distill": r["loss-distill"]}
        for ratio, ids, mask in self.groups():
            with self.autocast():
                loss, out = losses.sequence_loss(
                    self.base, self.adapter, ids, mask, r["segment"], ratio, r["sinks"], weights,
                    r["tie-gamma"] if r["loss-tie"] else None, r["sinks"], r["distill-top"], self.decoder,
                    self.ae_choose(ratio) if r["loss-ae"] else None, r["checkpointing"])
            ratios.add(ratio)
            share = len(ids) / r["batch"]
            if not torch.isfinite(loss):
                path = f"{r['out'] or 'twin'}.bad-batch"
                torch.save({"ids": ids, "mask": mask, "ratio": ratio}, path)
                raise SystemExit(f"step {self.step + 1}: the loss is {float(loss)}; its batch is in {path}")
            (loss * share).backward()
            for name, x in {**out, "loss": loss}.items():
                if name in ("loss", "lm", "ae", "distill"):
                    seen[name] = seen.get(name, 0.0) + x.detach() * share
        lr = losses.learning_rate(self.step, r["steps"], r["lr"], r["warmup"], r["lr-floor"])
        norm = losses.adamw_step(self.opt, list(self.trained.values()), lr, r["clip"])
        self.step += 1
        self.tokens += r["batch"] * r["sequence"]
        return {"step": self.step, "tokens": self.tokens, **{k: float(v) for k, v in seen.items()}, "lr": lr,
                "norm": norm, **({"ratio": ratios.pop()} if len(ratios) == 1 else {})}

    def save(self, path):
        torch.save({"recipe": recipe_text(self.recipe), "step": self.step, "tokens": self.tokens,
                    "trained": {k: x.detach() for k, x in self.trained.items()}, "optimiser": self.opt.state_dict()},
                   f"{path}.part")
        os.replace(f"{path}.part", path)

    def load(self, path):
        saved = torch.load(path, map_location=self.device, weights_only=True)
        if saved["trained"].keys() != self.trained.keys():
            raise SystemExit(f"{path}: it belongs to another recipe")
        with torch.no_grad():
            for name, x in self.trained.items():
                x.copy_(saved["trained"][name])
        self.opt.load_state_dict(saved["optimiser"])
        self.step, self.tokens = saved["step"], saved["tokens"]


def has_bf16(device):
    """Products in bf16 are faster than in f32."""
    if device != "cpu":
        return True
    return any(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile"))


def train(run, log):
    """Until all steps are done or the minutes are over."""
    r = run.recipe
    evaluation = Evaluation(run.base, r, run) if r["heldout"] else None

    def say(line):
        log(json.dumps(line))

    def finish_part(evaluate):
        if evaluation and evaluate:
            say({"eval": run.step, "tokens": run.tokens, **evaluation.of(run.adapter)})
        if r["checkpoint"]:
            run.save(r["checkpoint"])
        if r["out"]:
            notes = f"{run.step} steps, {run.tokens} tokens, seed {r['seed']}, torch on {run.device}"
            save_adapter(run.adapter, r["out"], notes)

    if evaluation and run.step == 0:
        say({"eval": 0, "tokens": 0, **evaluation.of(run.adapter)})
    start = time.monotonic()
    while run.step < r["steps"]:
        before = time.monotonic()
        line = run.one_step()
        now = time.monotonic()
        say({**line, "seconds": now - before})
        over = bool(r["minutes"]) and now - start > 60 * r["minutes"]
        every = lambda n: bool(n) and run.step % n == 0
        if over or run.step == r["steps"]:
            break
        if every(r["eval-every"]) or every(r["save-every"]):
            finish_part(every(r["eval-every"]))
    finish_part(True)


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    a.add_argument("--config", metavar="FILE", help="the recipe file")
    a.add_argument("--device", default="cpu", help="cpu, cuda")
    a.add_argument("--at-once", type=int, default=8, metavar="N", help="sequences that go through together")
    for name, (_, default, _) in known_options().items():
        a.add_argument(f"--{name}", metavar="VALUE", default=None, help=f"train/recipe.def; {default or 'nothing'}")
    args = vars(a.parse_args())
    flags = [(name, args[name.replace("-", "_")]) for name in known_options()]
    recipe = load_recipe(args["config"], [(k, v) for k, v in flags if v is not None])
    torch.set_num_threads(recipe["threads"] or len(os.sched_getaffinity(0)))
    log = open(recipe["log"], "a") if recipe["log"] else None

    def show(line):
        print(line, flush=True)
        if log:
            print(line, file=log, flush=True)

    train(Training(recipe, args["device"], args["at_once"]), show)


if __name__ == "__main__":
    main()
