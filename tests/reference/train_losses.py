"""The trainer's losses and its optimiser in torch: language modelling with token weights (paper 3.3), fine-grained
autoencoding (paper 3.2), distillation; AdamW's schedule. Formulas stand in the head of train_twin.py."""
import math

import torch
import torch.nn.functional as F

from train_model import read

BLOCK = ("attn_norm.weight", "attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias", "attn_v.weight",
         "attn_v.bias", "attn_output.weight", "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight",
         "ffn_down.weight")


def loss_rows(n, length, loss_mask, from_first):
    """Rows whose next token counts; those of the first segment only where they depend on what is trained."""
    rows = torch.arange(0 if from_first else length, n - 1, device=loss_mask.device)
    return rows[loss_mask[rows + 1] != 0]


def depends_at_once(adapter):
    return adapter.method == "fine-kv" and adapter.mask == "in-segment"


@torch.no_grad()
def logprobs_of(base, x, rows, ids):
    logp = base.logits(x[rows]).float() if base.dtype == torch.float32 else base.logits(x[rows])
    return logp.gather(1, ids[rows + 1, None])[:, 0] - logp.logsumexp(-1)


@torch.no_grad()
def tie_weights(base, ids, length, rows, gamma, full=None):
    """w of each row: softmax over the rows of min(log P(full) - log P(segment only), gamma), times their number.
    The segment is the row's, its first token the first that is seen. full: base.plain(ids), if it is there."""
    full = base.plain(ids) if full is None else full
    alone = torch.cat([base.plain(s) for s in ids.split(length)])
    diff = (logprobs_of(base, full, rows, ids) - logprobs_of(base, alone, rows, ids)).clamp(max=gamma)
    return torch.softmax(diff, 0) * len(rows)


@torch.no_grad()
def teacher_top(base, ids, rows, k, full=None):
    """The k largest logits of full attention at each row: (values, ids), the largest first."""
    return base.logits((base.plain(ids) if full is None else full)[rows]).topk(k, -1)


def distill_loss(logp, values, ids):
    """logp (rows, n_vocab): the student's log-softmax over the whole vocabulary."""
    p = torch.log_softmax(values, -1)
    return (p.exp() * (p - logp.gather(1, ids))).sum(-1).mean()


class Decoder:
    """Paper 3.2: one block of the base's shape that rebuilds a snippet from the KV of its gist.

    Tensors (all are trained, none is in the adapter): slot.k and slot.v (n_kv * hd, n_layer * 2 * n_kv * hd) make
    the slot's key and value of the gist's [k, v of layer 0, k, v of layer 1, ...]; embedding has a row for each
    of `ratios`; block.* is the base's last layer at first.
    """

    def __init__(self, base, ratios, tensors=None, generator=None):
        self.ratios, n, last = list(ratios), base.n_kv * base.hd, base.n_layer - 1
        w = {f"block.{name}": base.layer(last, name).clone() for name in BLOCK if base.layer(last, name) is not None}
        for j, p in enumerate(("k", "v")):  # those of the last layer, at first
            w[f"slot.{p}.weight"] = torch.zeros(n, base.n_layer * 2 * n, dtype=base.dtype, device=base.device)
            w[f"slot.{p}.weight"][:, (2 * last + j) * n:(2 * last + j + 1) * n] = torch.eye(n)
        w["embedding"] = (torch.randn(len(self.ratios), base.n_embd, generator=generator)
                          .to(base.device, base.dtype) * base.embd.std())
        for name, x in (tensors or {}).items():
            w[name] = torch.as_tensor(x).to(base.device, base.dtype)
        self.w = {name: x.requires_grad_() for name, x in w.items()}

    def loss(self, base, memory, gists, ids, ratio):
        """Mean over all gists (first entry in the memory, offsets of snippets) and the tokens of their snippets."""
        entries, targets = [], []
        for first, snippets in gists:
            n = len(snippets)
            entries.append(torch.cat([x[first:first + n].reshape(n, -1) for k, _, v in memory.layers for x in (k, v)], 1))
            targets.append(ids[snippets])
        g, x = torch.cat(entries), torch.cat(targets)            # (N, n_layer * 2 * n_kv * hd), (N, ratio)
        n, w = len(x), lambda name: self.w.get(f"block.{name}")
        slot_k, slot_v = (F.linear(g, self.w[f"slot.{p}.weight"]).view(n, 1, base.n_kv, base.hd) for p in "kv")
        first = self.w["embedding"][self.ratios.index(ratio)].expand(n, 1, -1)
        h = torch.cat((first, base.embd[x[:, :-1]]), 1)          # (N, ratio, n_embd): each row predicts the next token
        y = base.norm(h, w("attn_norm.weight"))
        q, k, v = (F.linear(y, w(f"attn_{p}.weight"), w(f"attn_{p}.bias")).view(n, ratio, -1, base.hd) for p in "qkv")
        # The slot is the first key, at position 0: its key needs no turning.
        at = 1 + torch.arange(ratio, device=base.device)
        turn = lambda z: base.rotate(z.flatten(0, 1), at.repeat(n)).view(z.shape)
        k, v = torch.cat((slot_k, turn(k)), 1), torch.cat((slot_v, v), 1)
        group = base.n_head // base.n_kv
        k, v = (z.transpose(1, 2).repeat_interleave(group, 1) for z in (k, v))
        sees = torch.ones(ratio, ratio + 1, dtype=torch.bool, device=base.device).tril(1)
        o = F.scaled_dot_product_attention(turn(q).transpose(1, 2).to(v.dtype), k.to(v.dtype), v, attn_mask=sees)
        h = h + F.linear(o.transpose(1, 2).reshape(n, ratio, -1), w("attn_output.weight"))
        logp = torch.log_softmax(base.logits(base.ffn(h, w)), -1)
        return -logp.gather(2, x[..., None]).mean()


def sequence_loss(base, adapter, ids, loss_mask, length, ratio, sinks, weights, tie_gamma=None, teacher=None,
                  decoder=None):
    """The loss of one sequence and its parts. weights: of "lm", "ae", "distill"; what is 0 is not computed.
    teacher: (values, ids) for each row. Returns (loss, {name: value or tensor})."""
    seq = read(base, adapter, ids, length, ratio, sinks)
    rows = loss_rows(len(ids), length, loss_mask, depends_at_once(adapter))
    out = {"rows": rows}
    logp = torch.log_softmax(base.logits(seq.x[rows]), -1, torch.float32 if base.dtype == torch.float32 else None)
    out["logprobs"] = logp.gather(1, ids[rows + 1, None])[:, 0]
    loss = 0.0
    if weights.get("lm", 0):
        w = 1.0
        if tie_gamma is not None:
            w = out["tie"] = tie_weights(base, ids, length, rows, tie_gamma)
        out["lm"] = -(w * out["logprobs"]).mean()
        loss = loss + weights["lm"] * out["lm"]
    if weights.get("distill", 0):
        out["distill"] = distill_loss(logp, *teacher)
        loss = loss + weights["distill"] * out["distill"]
    if weights.get("ae", 0):
        out["ae"] = decoder.loss(base, seq.memory, seq.gists, ids, ratio)
        loss = loss + weights["ae"] * out["ae"]
    return loss, out


def learning_rate(step, steps, peak, warmup, floor):
    """Of step 0, 1, ...: linear to the peak at the end of `warmup` steps, then a half cosine down to
    floor * peak, which step `steps` would have."""
    if step < warmup:
        return peak * (step + 1) / warmup
    t = (step - warmup) / max(1, steps - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(t, 1.0))))


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
