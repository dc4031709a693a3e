#!/usr/bin/env python3
"""gist_vectors.py DATA - what the tiny models compute when old context is compressed: tests/data/gist_*.

A plain implementation in f64 (numpy), written from docs/memory.md, docs/adapter.md and the paper, not from the
engine: positions are absolute, keys are kept unrotated and rotated anew for every query, one softmax runs over
all keys, segments are read whole. Weights are read by the `gguf` package.

For each tiny model and policy: 320 ids in segments of 64, log-probabilities of all, some rows of logits
(reffile.py's format). Adapters are random, one of each kind of tensor, and are written beside them.
"""
import json
import struct
import sys

import gguf
import numpy as np
import reffile

SEGMENT, N_TOKENS, OBSERVERS = 64, 320, 64
MODELS = ("llama31", "smollm2", "qwen2", "qwen2_untied")
# name, method, ratio, sinks, keep_tail, adapter
POLICIES = (("none", "none", 1, 0, 0, None), ("fine", "fine-kv", 8, 4, 0, None),
            ("tail", "fine-kv", 4, 3, 21, None), ("select", "select", 8, 4, 0, None),
            ("gists", "fine-kv", 8, 4, 0, ""), ("gists2", "fine-kv", 2, 0, 10, ""),
            ("coarse", "coarse-kv", 8, 4, 0, "_coarse"), ("coarse4", "coarse-kv", 4, 0, 21, "_coarse"),
            ("rec", "coarse-rec", 8, 4, 0, "_rec"), ("rec4", "coarse-rec", 4, 1, 33, "_rec"),
            ("among", "fine-kv", 8, 4, 0, "_among"), ("among2", "fine-kv", 2, 2, 10, "_among"),
            ("reread", "select-reread", 8, 4, 0, None), ("reread4", "select-reread", 4, 3, 21, None),
            ("fit", "fit", 8, 4, 0, None), ("fit2", "fit", 2, 3, 21, None))
# of one model each, by adapters that have something of each matrix: model, the rest as above
ALL = (("llama31", ("all", "coarse-rec", 4, 4, 0, "_all")), ("smollm2", ("all", "fine-kv", 4, 3, 21, "_all")),
       ("qwen2", ("all", "fine-kv", 4, 4, 10, "_all")), ("qwen2_untied", ("all", "coarse-kv", 8, 4, 0, "_all")))
ALL_MASKS = {"qwen2": "in-segment"}
# suffix of its file, method, mask, what it is made of for each of MODELS
ADAPTERS = (("", "fine-kv", "memory-only", ("mixed", "full", "low", "untrained")),
            ("_coarse", "coarse-kv", "memory-only", ("low", "mixed", "full", "mixed")),
            ("_rec", "coarse-rec", "memory-only", ("full", "low", "mixed", "low")),
            ("_among", "fine-kv", "in-segment", ("low", "mixed", "mixed", "full")))


def field(reader, key, default=None):
    f = reader.get_field(key)
    return default if f is None else f.contents()


class Model:
    def __init__(self, path):
        r = gguf.GGUFReader(path)
        arch = field(r, "general.architecture")
        hp = lambda key, default=None: field(r, f"{arch}.{key}", default)
        self.n_head, self.n_kv = hp("attention.head_count"), hp("attention.head_count_kv")
        self.n_layer, self.eps = hp("block_count"), hp("attention.layer_norm_rms_epsilon")
        self.w, factors = {}, None
        for t in r.tensors:
            w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
            w = w.reshape(tuple(int(n) for n in reversed(t.shape)))
            if t.name == "rope_freqs.weight":
                factors = w
                continue
            if arch == "llama" and (".attn_q." in t.name or ".attn_k." in t.name):
                w = unpermute(w, self.n_head if ".attn_q." in t.name else self.n_kv)
            self.w[t.name] = w
        self.n_embd = self.w["token_embd.weight"].shape[1]
        self.hd = self.w["blk.0.attn_q.weight"].shape[0] // self.n_head
        base = hp("rope.freq_base", 10000.0)
        self.freq = base ** (-2 * np.arange(self.hd // 2) / self.hd)
        if factors is not None:
            self.freq = self.freq / factors

    def __getitem__(self, name):
        return self.w.get(name)

    def layer(self, i, name):
        return self.w.get(f"blk.{i}.{name}")

    def norm(self, x, w):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.eps) * w

    def rotate(self, x, positions):
        """x (n, heads, hd), positions (n) or (n, heads)"""
        positions = np.asarray(positions, np.float64)
        if positions.ndim == 1:
            positions = positions[:, None]
        angle = positions[:, :, None] * self.freq
        c, s, half = np.cos(angle), np.sin(angle), self.hd // 2
        a, b = x[:, :, :half], x[:, :, half:]
        return np.concatenate((a * c - b * s, a * s + b * c), -1)

    def logits(self, x):
        x = self.norm(x, self["output_norm.weight"])
        out = self["output.weight"]
        return x @ (self["token_embd.weight"] if out is None else out).T

    def project(self, i, p, name, y, adapter):
        """y by a matrix, and its bias: the model's (called `name`), or what the adapter has of its own."""
        own = {k: adapter.get(f"layers.{i}.{p}.{k}") if adapter else None for k in ("weight", "a", "b", "bias")}
        w = own["weight"] if own["weight"] is not None else self.layer(i, f"{name}.weight")
        z = y @ w.T
        if own["a"] is not None:
            z = z + (y @ own["a"].T) @ own["b"].T
        bias = own["bias"] if own["bias"] is not None else self.layer(i, f"{name}.bias")
        return z if bias is None else z + bias

    def ffn(self, i, x, adapter=None):
        y = self.norm(x, self.layer(i, "ffn_norm.weight"))
        gate = self.project(i, "gate", "ffn_gate", y, adapter)
        up = self.project(i, "up", "ffn_up", y, adapter)
        return x + self.project(i, "down", "ffn_down", gate / (1 + np.exp(-gate)) * up, adapter)

    def behind_attention(self, i, x, o, adapter=None):
        """The rest of layer i, o (n, n_head, hd) what attention gives."""
        x = x + self.project(i, "o", "attn_output", o.reshape(len(x), -1), adapter)
        return self.ffn(i, x, adapter)

    def qkv(self, i, x, adapter=None):
        """(n, heads, hd) each, not rotated"""
        y = self.norm(x, self.layer(i, "attn_norm.weight"))
        return [self.project(i, p, f"attn_{p}", y, adapter).reshape(len(x), heads, self.hd)
                for p, heads in (("q", self.n_head), ("k", self.n_kv), ("v", self.n_kv))]


def unpermute(w, n_heads):
    half = w.shape[0] // n_heads // 2
    rows = [h * 2 * half + 2 * i + part
            for h in range(n_heads) for part in (0, 1) for i in range(half)]
    return w[rows]


def attend(m, q, q_pos, k, k_pos, v, visible):
    """q (n, n_head, hd); k, v (N, n_kv, hd), k_pos (N, n_kv); visible (n, N). Output and weights (n, n_head, N)."""
    q = m.rotate(q, q_pos) / np.sqrt(m.hd)
    k = m.rotate(k, k_pos)
    group = m.n_head // m.n_kv
    out = np.empty_like(q)
    weights = np.empty((len(q), m.n_head, len(k)))
    for h in range(m.n_head):
        s = q[:, h] @ k[:, h // group].T
        s = np.where(visible, s, -np.inf)
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        weights[:, h] = p
        out[:, h] = p @ v[:, h // group]
    return out, weights


def log_sum(s):
    """log(sum(exp(s))) of each row"""
    top = s.max(-1)
    return top + np.log(np.exp(s - top[:, None]).sum(-1))


class Session:
    """Segments, each a list per layer of [k, v] with k unrotated; a compressed one has its own entries."""

    def __init__(self, m, policy, adapter):
        self.m, self.adapter = m, adapter
        self.name, self.method, self.ratio, self.sinks, self.tail, _ = policy
        self.segments, self.n_packed, self.ids = [], 0, []
        self.among = adapter is not None and adapter["mask"] == "in-segment"
        self.soft = []  # coarse-rec: each segment's embeddings

    def keys_before(self, segment, layer):
        """k, v, positions of all entries of the segments before."""
        k, v = [], []
        for s in self.segments[:segment]:
            k.append(s[layer][0])
            v.append(s[layer][1])
        if not k:
            empty = np.zeros((0, self.m.n_kv, self.m.hd))
            return empty, empty, 0
        return np.concatenate(k), np.concatenate(v), sum(len(x) for x in k)

    def rows(self, segment, offsets, x, side, count=False):
        """Runs rows at offsets of a segment through the model. side: None: read them, they are the segment's
        next tokens; "observe": their keys are there; an adapter: gists, seen by nobody. Returns x, what
        each layer's keys of the segment receive, and the gists' k and v."""
        m, received, made = self.m, [], []
        for i in range(m.n_layer):
            adapter = side if isinstance(side, dict) else None
            q, k, v = m.qkv(i, x, adapter)
            own = self.segments[segment][i]
            if side is None:
                own[0] = np.concatenate((own[0], k))
                own[1] = np.concatenate((own[1], v))
            mk, mv, base = self.keys_before(segment, i)
            keys, values = np.concatenate((mk, own[0])), np.concatenate((mv, own[1]))
            positions = np.concatenate((np.arange(base), base + np.arange(len(own[0]))))
            visible = positions[None] <= base + np.asarray(offsets)[:, None]
            if adapter:  # its own key in the place of its snippet's last token's
                visible = positions[None] < base + np.asarray(offsets)[:, None]
                visible = np.concatenate((visible, np.eye(len(x), dtype=bool)), 1)
                keys, values = np.concatenate((keys, k)), np.concatenate((values, v))
                positions = np.concatenate((positions, base + np.asarray(offsets)))
                made.append([k, v])
            o, w = attend(m, q, base + np.asarray(offsets), keys,
                          np.repeat(positions[:, None], m.n_kv, 1), values, visible)
            received.append(w.sum(0)[:, base:base + len(own[0])])
            x = m.behind_attention(i, x, o, adapter)
        return x, received, made

    def behind(self, before, x, adapter, received=None):
        """Runs rows at the positions behind `before`, a list per layer of [k, v], all of which they see, as they
        see those of themselves that come earlier. Returns x, and per layer [k, v] of the rows; received gets the
        weights (rows, n_head, keys) of each layer."""
        m, made = self.m, []
        for i, (bk, bv) in enumerate(before):
            q, k, v = m.qkv(i, x, adapter)
            keys, values = np.concatenate((bk, k)), np.concatenate((bv, v))
            positions = np.arange(len(keys))
            o, w = attend(m, q, positions[len(bk):], keys, np.repeat(positions[:, None], m.n_kv, 1), values,
                          positions[None] <= positions[len(bk):, None])
            made.append([k, v])
            if received is not None:
                received.append(w)
            x = m.behind_attention(i, x, o, adapter)
        return x, made

    def compress_fit(self, segment, sinks, n):
        """Keys with the largest mean square of weighted attention of the segment's own queries one segment later, n
        beside the sinks, and values by weighted least squares."""
        m, group, offsets = self.m, self.m.n_head // self.m.n_kv, np.arange(SEGMENT)
        x = m["token_embd.weight"][self.ids[segment * SEGMENT:(segment + 1) * SEGMENT]]
        packed, n_keys = [], sinks + n
        for i in range(m.n_layer):
            q, _, _ = m.qkv(i, x, None)
            k, v = self.segments[segment][i]
            mk, mv, base = self.keys_before(segment, i)
            places = np.arange(base + SEGMENT)[:, None]
            visible = places.T <= base + offsets[:, None]
            keys = np.concatenate((mk, k))
            o, _ = attend(m, q, base + offsets, keys, np.repeat(places, m.n_kv, 1), np.concatenate((mv, v)), visible)
            x = m.behind_attention(i, x, o, None)
            turned = m.rotate(keys, np.repeat(places, m.n_kv, 1))
            here = m.rotate(q, base + offsets) / np.sqrt(m.hd)
            later = m.rotate(q, base + SEGMENT + offsets) / np.sqrt(m.hd)
            behind = m.rotate(q, base + n_keys + offsets) / np.sqrt(m.hd)
            new_k, new_v = np.empty((n_keys, m.n_kv, m.hd)), np.empty((n_keys, m.n_kv, m.hd))
            for h in range(m.n_kv):
                heads = range(h * group, (h + 1) * group)
                others = np.concatenate([log_sum(np.where(visible, here[:, g] @ turned[:, h].T, -np.inf))
                                         for g in heads])
                s = np.concatenate([later[:, g] @ turned[base + sinks:, h].T for g in heads])
                own = log_sum(s)
                share = 1 / (1 + np.exp(others - own))
                p = np.exp(s - own[:, None])
                received, target = ((share[:, None] * p) ** 2).sum(0), p @ v[sinks:, h]
                best = sorted(range(SEGMENT - sinks), key=lambda j: (-received[j], -j))[:n]
                kept = np.array([*range(sinks), *(sinks + np.sort(best))])
                new_k[:, h], new_v[:, h] = k[kept, h], v[kept, h]
                compact = m.rotate(k[kept], base + np.arange(n_keys))[sinks:, h]
                s = np.concatenate([behind[:, g] @ compact.T for g in heads])
                b = np.sqrt(share)[:, None] * np.exp(s - log_sum(s)[:, None])
                normal = b.T @ b
                ridge = 1e-2 * np.trace(normal) / n * np.eye(n)
                new_v[sinks:, h] = np.linalg.solve(normal + ridge, b.T @ (np.sqrt(share)[:, None] * target) +
                                                   ridge @ new_v[sinks:, h])
            packed.append([new_k, new_v])
        self.segments[segment] = packed

    def all_before(self, segment):
        return [list(self.keys_before(segment, i)[:2]) for i in range(self.m.n_layer)]

    def gist_rows(self, first, ends, ids):
        """Embeddings of a segment's gists first, first + 1, ..., whose snippets end at ends."""
        g = self.adapter["gist.embedding"]
        x = np.stack([g[min(first + j, len(g) - 1)] for j in range(len(ends))])
        if self.adapter["embedding"] == "last-token":
            x = x + self.m["token_embd.weight"][[ids[o] for o in ends]]
        return x

    def compress_coarse(self, segment, sinks):
        """The gists' keys and values; or the hidden states, which go through the base model in their place."""
        m, raw = self.m, self.segments[segment]
        ids = self.ids[segment * SEGMENT:(segment + 1) * SEGMENT]
        ends = range(self.ratio - 1, SEGMENT, self.ratio)
        x, made = self.behind(self.all_before(segment + 1), self.gist_rows(0, ends, ids), self.adapter)
        first = [[k[:sinks], v[:sinks]] for k, v in raw]
        if self.method == "coarse-rec":
            x = m.norm(x, m["output_norm.weight"])
            before = [[np.concatenate(both) for both in zip(*parts)]
                      for parts in zip(self.all_before(segment), first)]
            _, made = self.behind(before, x, None)
            self.soft.append(x)
        self.segments[segment] = [[np.concatenate(both) for both in zip(*parts)]
                                  for parts in zip(first, made)]
        if self.method == "coarse-rec":
            self.check_recurrence(segment)

    def check_recurrence(self, segment):
        """As the paper has it: all soft tokens run from the start in every segment. Their keys are the same."""
        x = np.concatenate([self.m["token_embd.weight"][self.ids[:self.sinks]], *self.soft])
        empty = np.zeros((0, self.m.n_kv, self.m.hd))
        _, made = self.behind([[empty, empty]] * self.m.n_layer, x, None)
        for kept, again in zip(self.all_before(segment + 1), made):
            assert all(np.abs(a - b).max() < 1e-9 for a, b in zip(kept, again))

    def compress(self, segment):
        m, sinks = self.m, self.sinks if segment == 0 else 0
        if self.method in ("coarse-kv", "coarse-rec"):
            self.compress_coarse(segment, sinks)
            return
        if self.among:
            kept = [*range(sinks), *range(self.ratio, SEGMENT + SEGMENT // self.ratio, self.ratio + 1)]
            self.segments[segment] = [[k[kept], v[kept]] for k, v in self.segments[segment]]
            return
        n_snippets = (SEGMENT - sinks) // self.ratio
        rest = list(range(sinks + n_snippets * self.ratio, SEGMENT))
        ends = [sinks + (j + 1) * self.ratio - 1 for j in range(n_snippets)]
        raw = self.segments[segment]
        ids = self.ids[segment * SEGMENT:(segment + 1) * SEGMENT]
        embd = m["token_embd.weight"]
        if self.method == "none":
            self.segments[segment] = [[k[:0], v[:0]] for k, v in raw]
        elif self.method == "fit":
            self.compress_fit(segment, sinks, n_snippets + len(rest))
        elif self.method in ("select", "select-reread"):
            n, group, packed = n_snippets + len(rest), m.n_head // m.n_kv, []
            if self.method == "select":
                offsets = range(SEGMENT - OBSERVERS, SEGMENT)
                _, received, _ = self.rows(segment, offsets, embd[[ids[o] for o in offsets]], "observe")
                received = [w.reshape(m.n_kv, group, SEGMENT).sum(1) for w in received]
            else:
                again, base = [], self.keys_before(segment, 0)[2]
                self.behind(self.all_before(segment + 1), embd[ids], None, again)
                received = [w.max(0)[:, base:base + SEGMENT].reshape(m.n_kv, group, SEGMENT).max(1)
                            for w in again]
            for (k, v), w in zip(raw, received):
                kept = []
                for h in range(m.n_kv):
                    best = sorted(range(sinks, SEGMENT), key=lambda o: (-w[h, o], -o))[:n]
                    kept.append(list(range(sinks)) + sorted(best))
                kept = np.array(kept).T  # (n, n_kv)
                heads = np.arange(m.n_kv)[None]
                packed.append([k[kept, heads], v[kept, heads]])
            self.segments[segment] = packed
        elif self.adapter is None:
            kept = list(range(sinks)) + ends + rest
            self.segments[segment] = [[k[kept], v[kept]] for k, v in raw]
        else:
            _, _, made = self.rows(segment, ends, self.gist_rows(0, ends, ids), self.adapter)
            self.segments[segment] = [
                [np.concatenate((r[:sinks], g, r[rest])) for r, g in zip(layer, gists)]
                for layer, gists in zip(raw, made)]

    def read_gist(self, segment, off):
        """One that stands among the tokens, behind the one at offset off."""
        ids = self.ids[segment * SEGMENT:]
        x = self.gist_rows(off // self.ratio, [off], ids)
        before = self.all_before(segment + 1)
        _, made = self.behind(before, x, self.adapter)
        self.segments[segment] = [[np.concatenate(both) for both in zip(*parts)]
                                  for parts in zip(self.segments[segment], made)]

    def read(self, ids):
        """Logits after each."""
        m, logits = self.m, []
        for t in ids:  # one by one: what is due is compressed before
            while len(self.ids) >= (self.n_packed + 1) * SEGMENT + self.tail:
                self.compress(self.n_packed)
                self.n_packed += 1
            segment, off = divmod(len(self.ids), SEGMENT)
            if off == 0:
                empty = np.zeros((0, m.n_kv, m.hd))
                self.segments.append([[empty, empty] for _ in range(m.n_layer)])
            self.ids.append(int(t))
            place = len(self.segments[segment][0][0])
            x, _, _ = self.rows(segment, [place], m["token_embd.weight"][[t]], None)
            logits.append(m.logits(x)[0])
            if self.among and (off + 1) % self.ratio == 0:
                self.read_gist(segment, off)
        return np.array(logits)


# --- adapters -------------------------------------------------------------------------------------

DTYPES = {"F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": (None, 2)}


def rounded(x, dtype):
    """(bytes, the values they stand for)"""
    x = x.astype(np.float32)
    if dtype == "BF16":
        bits = x.view(np.uint32)
        bits = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")
        return bits.tobytes(), (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    y = x.astype(DTYPES[dtype][0])
    return y.tobytes(), y.astype(np.float64)


def write_adapter(path, tensors, meta):
    """tensors: {name: (type, array)}. Returns what is in the file."""
    header, data = {"__metadata__": meta}, b""
    adapter = {"embedding": meta["embedding"], "mask": meta["mask"]}
    for name, (dtype, x) in tensors.items():
        raw, adapter[name] = rounded(x, dtype)
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    return adapter


def metadata(kind, method, mask, digest):
    return {"format": "gist-adapter", "version": "1", "base_model": digest, "base_name": "a tiny one",
            "method": method, "mask": mask, "segment": "64", "ratios": "2 8", "sinks": "4",
            "embedding": "own" if kind == "full" else "last-token"}


def make_adapter(path, m, kind, method, mask, digest, rng):
    """Writes a file and returns what is in it."""
    tensors, n_out = {}, {"q": m.n_head * m.hd, "k": m.n_kv * m.hd, "v": m.n_kv * m.hd}

    def base(i, p):
        return m.layer(i, f"attn_{p}.weight")

    embd_std = m["token_embd.weight"].std()
    if kind != "untrained":
        tensors["gist.embedding"] = ("F32", rng.normal(0, embd_std, (5 if kind == "full" else 1, m.n_embd)))
    for i in range(m.n_layer):
        for p in "qkv":
            n, std = n_out[p], base(i, p).std()
            if kind == "full" or (kind == "mixed" and p != "q"):
                tensors[f"layers.{i}.{p}.weight"] = ("BF16" if kind == "mixed" else "F16",
                                                     base(i, p) + rng.normal(0, std / 2, base(i, p).shape))
            if kind in ("low", "mixed"):
                tensors[f"layers.{i}.{p}.a"] = ("F32", rng.normal(0, 1, (3, m.n_embd)))
                tensors[f"layers.{i}.{p}.b"] = ("F16", rng.normal(0, std / 2, (n, 3)))
            if kind == "low" and p != "v":
                tensors[f"layers.{i}.{p}.bias"] = ("F32", rng.normal(0, 1, n))
    adapter = write_adapter(path, tensors, metadata(kind, method, mask, digest))
    adapter.setdefault("gist.embedding", np.zeros((1, m.n_embd)))
    return adapter


def make_all(path, m, method, mask, digest, rng):
    """Likewise, with something beside each matrix; o, gate, up and down have whole ones in turn."""
    tensors = {"gist.embedding": ("F32", rng.normal(0, m["token_embd.weight"].std(), (1, m.n_embd)))}
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
             "down": "ffn_down"}
    whole = ({"o": "BF16", "up": "F16"}, {"gate": "F32", "down": "BF16"})
    for i in range(m.n_layer):
        for p, name in names.items():
            w = m.layer(i, f"{name}.weight")
            if p in whole[i % 2]:
                tensors[f"layers.{i}.{p}.weight"] = (whole[i % 2][p], w + rng.normal(0, w.std() / 2, w.shape))
            if p not in ("o", "down") or p not in whole[i % 2]:
                tensors[f"layers.{i}.{p}.a"] = ("F16", rng.normal(0, 1, (3, w.shape[1])))
                tensors[f"layers.{i}.{p}.b"] = ("F16", rng.normal(0, w.std() / 2, (w.shape[0], 3)))
    return write_adapter(path, tensors, metadata("all", method, mask, digest))


def digest_of(path):
    import xxhash
    with open(path, "rb") as f:
        return xxhash.xxh3_128_hexdigest(f.read())


def write_policy(data, name, m, policy, adapter, ids):
    n_vocab, logits = len(m["token_embd.weight"]), Session(m, policy, adapter).read(ids)
    top = logits.max(-1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    logprobs = np.full(N_TOKENS, np.nan)
    logprobs[1:] = [logits[i, ids[i + 1]] - log_sum[i] for i in range(N_TOKENS - 1)]
    rows = [SEGMENT - 1, SEGMENT, 2 * SEGMENT, 3 * SEGMENT + 30, N_TOKENS - 1]
    reffile.write(f"{data}/gist_{name}_{policy[0]}.ref", ids, logprobs, N_TOKENS, n_vocab, rows, logits[rows])
    print(f"{name} {policy[0]}: mean log-probability {np.nanmean(logprobs):.4f}")


def main(data):
    for number, name in enumerate(MODELS):
        m, rng = Model(f"{data}/tiny_{name}.gguf"), np.random.default_rng(5)
        digest, adapters, ids = digest_of(f"{data}/tiny_{name}.gguf"), {None: None}, None
        n_vocab = len(m["token_embd.weight"])
        for suffix, method, mask, kinds in ADAPTERS:
            adapters[suffix] = make_adapter(f"{data}/gist_{name}{suffix}.safetensors", m, kinds[number], method,
                                            mask, digest, rng)
            if ids is None:
                ids = rng.integers(0, n_vocab, N_TOKENS)
        for policy in POLICIES:
            write_policy(data, name, m, policy, adapters[policy[5]], ids)
    for number, (name, policy) in enumerate(ALL):
        path, rng = f"{data}/tiny_{name}.gguf", np.random.default_rng(50 + number)
        m = Model(path)
        adapter = make_all(f"{data}/gist_{name}_all.safetensors", m, policy[1], ALL_MASKS.get(name, "memory-only"),
                           digest_of(path), rng)
        write_policy(data, name, m, policy, adapter, rng.integers(0, len(m["token_embd.weight"]), N_TOKENS))


if __name__ == "__main__":
    main(sys.argv[1])
