"""The trainer's losses and its optimiser in torch: language modelling with token weights (paper 3.3), fine-grained
autoencoding (paper 3.2), distillation; AdamW's schedule. Formulas stand in the head of train_twin.py."""
import math

import torch
import torch.nn.functional as F

from train_model import PROJECTIONS, Block, Memory, read, run

BLOCK = ("attn_norm.weight", "attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias", "attn_v.weight",
         "attn_v.bias", "attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight",
         "ffn_down.weight")


def depends_at_once(adapter):
    """Tokens of the first segment depend on what is trained."""
    return adapter.method == "fine-kv" and adapter.mask == "in-segment"


def loss_rows(loss_mask, first):
    """(sequence, row) of all rows from `first` on whose next token counts, in order."""
    which, row = torch.nonzero(loss_mask[:, first + 1:], as_tuple=True)
    return which, row + first


def logprobs(base, x, rows, ids):
    """(n, n_vocab) of rows of x (b, T, n_embd), and that of the token after each (n)."""
    logp = torch.log_softmax(base.logits(x[rows]), -1, base.dtype)
    return logp, logp.gather(1, ids[rows[0], rows[1] + 1, None])[:, 0]


def mean_of_means(x, which, n):
    """Mean over n sequences of the mean over a sequence's rows; which: the sequence of each row. One without
    rows counts as 0."""
    counts = torch.bincount(which, minlength=n)
    return (x / counts[which]).sum() / n


@torch.no_grad()
def segments_alone(base, ids, length, sinks):
    """base.plain, but segments see nothing of those before except the sequence's first `sinks` tokens."""
    memory, blocks = Memory(base), []
    for i, s in enumerate(ids.split(length, 1)):
        at = torch.arange(s.shape[1], device=base.device)
        blocks.append(Block(base.embd[s], None, at, at[None] <= at[:, None], at[:sinks] if i == 0 and sinks else None))
    return torch.cat(run(base, None, blocks, memory)[0], 1)


@torch.no_grad()
def tie_weights(base, ids, length, rows, gamma, full, sinks=0):
    """w of each row: softmax over the sequence's rows of min(log P(full) - log P(segment only), gamma), times their
    number. The segment is the row's; nothing before it is seen but the sinks. full: base.plain(ids)."""
    alone = segments_alone(base, ids, length, sinks)
    diff = (logprobs(base, full, rows, ids)[1] - logprobs(base, alone, rows, ids)[1]).clamp(max=gamma)
    parts = diff.split(torch.bincount(rows[0], minlength=len(ids)).tolist())
    return torch.cat([torch.softmax(d, 0) * len(d) for d in parts])


@torch.no_grad()
def teacher_top(base, rows, k, full):
    """The k largest log-probabilities under full attention at each row, the largest first: (values, ids)."""
    return torch.log_softmax(base.logits(full[rows]).to(base.dtype), -1).topk(k, -1)


def distill_loss(logp, values, ids):
    """Of each row; logp (rows, n_vocab): the student's log-softmax. All ids that are not the teacher's are one event."""
    q = logp.gather(1, ids)
    p_rest = (1 - values.exp().sum(-1)).clamp(min=0)
    q_rest = (1 - q.exp().sum(-1)).clamp(min=1e-6)
    rest = torch.where(p_rest > 1e-6, p_rest * (p_rest.clamp(min=1e-30) / q_rest).log(), torch.zeros_like(p_rest))
    return (values.exp() * (values - q)).sum(-1) + rest


class Decoder:
    """Paper 3.2: one block of the base's shape that rebuilds a snippet from the KV of its gist.

    Tensors (all are trained, none is in the adapter): slot.k and slot.v (n_kv * hd, n_layer * 2 * n_kv * hd) make
    the slot's key and value of the gist's [k, v of layer 0, k, v of layer 1, ...]; embedding has a row for each
    of `ratios`; block.* is the base's last layer at first.
    """

    def __init__(self, base, ratios, tensors=None, generator=None):
        self.ratios, n, last = list(ratios), base.n_kv * base.hd, base.n_layer - 1
        w = {f"block.{name}": base.layer(last, name).detach().clone() for name in BLOCK if base.layer(last, name) is not None}
        for j, p in enumerate(("k", "v")):  # those of the last layer, at first
            w[f"slot.{p}.weight"] = torch.zeros(n, base.n_layer * 2 * n, dtype=base.dtype, device=base.device)
            w[f"slot.{p}.weight"][:, (2 * last + j) * n:(2 * last + j + 1) * n] = torch.eye(n)
        w["embedding"] = (torch.randn(len(self.ratios), base.n_embd, generator=generator)
                          .to(base.device, base.dtype) * base.embd.std())
        for name, x in (tensors or {}).items():
            w[name] = torch.tensor(x, dtype=base.dtype, device=base.device)
        self.w = {name: x.requires_grad_() for name, x in w.items()}

    def loss(self, base, memory, gists, ids, ratio, choose=None):
        """Mean over all gists (first entry in the memory, places of snippets) of all sequences and the tokens of their
        snippets. choose: which of a sequence's gists, if not all."""
        entries, snippets = [], []
        for first, places in gists:
            n = len(places)
            of_layers = [x[:, first:first + n].flatten(2) for k, _, v in memory.layers for x in (k, v)]
            entries.append(torch.cat(of_layers, 2))
            snippets.append(ids[:, places])
        g, x = torch.cat(entries, 1), torch.cat(snippets, 1)     # (b, N, n_layer * 2 * n_kv * hd), (b, N, ratio)
        if choose is not None:
            g, x = g[:, choose], x[:, choose]
        g, x = g.flatten(0, 1), x.flatten(0, 1)
        n, w = len(x), lambda name: self.w.get(f"block.{name}")
        project = lambda p, y: F.linear(y, w(f"{PROJECTIONS[p]}.weight"), w(f"{PROJECTIONS[p]}.bias"))
        slot_k, slot_v = (F.linear(g, self.w[f"slot.{p}.weight"]).view(n, 1, base.n_kv, base.hd) for p in "kv")
        first = self.w["embedding"][self.ratios.index(ratio)].expand(n, 1, -1)
        h = torch.cat((first, base.embd[x[:, :-1]]), 1)          # (n, ratio, n_embd): each row predicts the next token
        y = base.norm(h, w("attn_norm.weight"))
        q, k, v = (project(p, y).unflatten(-1, (-1, base.hd)) for p in "qkv")
        # The slot is the first key, at position 0: it needs no turning.
        at = 1 + torch.arange(ratio, device=base.device)
        k, v = torch.cat((slot_k, base.rotate(k, at)), 1), torch.cat((slot_v, v), 1)
        sees = torch.ones(ratio, ratio + 1, dtype=torch.bool, device=base.device).tril(1)
        h = base.ffn(h + project("o", base.attend(base.rotate(q, at), k, v, sees)), w("ffn_norm.weight"), project)
        logp = torch.log_softmax(base.logits(h), -1, base.dtype)
        return -logp.gather(2, x[..., None]).mean()


def sequence_loss(base, adapter, ids, loss_mask, length, ratio, sinks, weights, tie_gamma=None, tie_sinks=0, top=0,
                  decoder=None, ae_choose=None, recompute=False, original=None):
    """The loss of sequences (b, T) and its parts. weights: of "lm", "ae", "distill"; what is 0 is not computed.
    tie_gamma: None for no token weights. top: of the teacher's tokens. original: the base model before it was
    trained, which token weights and teacher are of; None: base. Returns (loss, {name: value or tensor})."""
    seq = read(base, adapter, ids, length, ratio, sinks, recompute)
    rows = loss_rows(loss_mask, 0 if base.trains or depends_at_once(adapter) else length)
    original = original or base
    logp, of_next = logprobs(base, seq.x, rows, ids)
    out, loss, full = {"rows": rows[1], "logprobs": of_next}, 0.0, None
    if tie_gamma is not None or weights.get("distill"):
        with torch.no_grad():
            full = original.plain(ids)
    if weights.get("lm"):
        nll = -of_next
        if tie_gamma is not None:
            out["tie"] = tie_weights(original, ids, length, rows, tie_gamma, full, tie_sinks)
            nll = nll * out["tie"]
        out["lm"] = mean_of_means(nll, rows[0], len(ids))
        loss = loss + weights["lm"] * out["lm"]
    if weights.get("distill"):
        values, best = out["teacher.logp"], out["teacher.ids"] = teacher_top(original, rows, top, full)
        out["distill"] = mean_of_means(distill_loss(logp, values, best), rows[0], len(ids))
        loss = loss + weights["distill"] * out["distill"]
    if weights.get("ae"):
        out["ae"] = decoder.loss(base, seq.memory, seq.gists, ids, ratio, ae_choose)
        loss = loss + weights["ae"] * out["ae"]
    return loss, out


def learning_rate(step, steps, peak, warmup, floor):
    """Of step 0, 1, ...: linear from 0 in `warmup` steps, then a half cosine from the peak down to floor * peak,
    which step number `steps` would have."""
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if steps <= warmup:
        return peak
    t = min((step - warmup) / (steps - warmup), 1.0)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * t)))


def optimiser(params, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    return torch.optim.AdamW(params, lr=0.0, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)


def adamw_step(opt, params, lr, max_norm):
    """Clips by the global norm, which it returns, and steps."""
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm if max_norm > 0 else float("inf"))
    for group in opt.param_groups:
        group["lr"] = lr
    opt.step()
    opt.zero_grad(set_to_none=True)
    return float(norm)
