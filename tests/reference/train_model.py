"""The trainer's model in torch: a frozen base model, an adapter, and a pass over segments with gists.

Written from docs/memory.md and docs/adapter.md, not from the C sources; weights are read by the `gguf` package.
Keys are kept unrotated, positions are absolute, and gradients are torch's own. train_vectors.py holds the
forward pass to what gist_vectors.py and Activation Beacon's code compute.

Everything has a batch of sequences, of one length and one ratio, as its first dimension. Words: a *row* is a token
or a gist on its way through the layers. *Memory* is what is kept of the segments before: for each layer k and v,
entry i stands at position i.
"""
import json
import struct
from dataclasses import dataclass
from functools import partial

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

# What gists may have of their own (docs/adapter.md), and the model's names for it.
PROJECTIONS = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
               "down": "ffn_down"}
POSITIONS = 32768                    # that there are angles for


# --- safetensors ----------------------------------------------------------------------------------

def write_tensors(path, tensors, meta, types=None):
    """Arrays or torch tensors. The values of meta become strings; types: {name: "F32" or "BF16"}, F32 if not said."""
    header, parts, at = {"__metadata__": {k: str(v) for k, v in meta.items()}}, [], 0
    for name, x in tensors.items():
        x = x.detach().cpu().double().numpy() if torch.is_tensor(x) else np.asarray(x)
        kind, raw = (types or {}).get(name, "F32"), np.ascontiguousarray(x, "<f4")
        if kind == "BF16":
            bits = raw.view(np.uint32)
            raw = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")
        raw = raw.tobytes()
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def read_tensors(path):
    """({name: array of float64 or float32}, {metadata})"""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack_from("<Q", data)[0]
    header, out = json.loads(data[8:8 + n]), {}
    meta = header.pop("__metadata__", {})
    for name, t in header.items():
        raw = data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[t["dtype"]]).astype(np.float32)
        out[name] = x.reshape(t["shape"])
    return out, meta


# --- the base model ---------------------------------------------------------------------------------

def unpermute(w, n_heads):
    """Rows of q and k of `llama` files, from neighbours (2i, 2i + 1) to halves (i, i + d / 2)."""
    half = w.shape[0] // n_heads // 2
    return w.reshape(n_heads, half, 2, -1).transpose(0, 2, 1, 3).reshape(w.shape)


class Base:
    """Norms, positions and the sum of the layers are of dtype, products of `products` (under torch.autocast)."""

    def __init__(self, path, dtype=torch.float32, device="cpu", products=None):
        reader = gguf.GGUFReader(path)

        def field(key, default=None):
            f = reader.get_field(key)
            return default if f is None else f.contents()

        arch = field("general.architecture")
        if arch not in ("llama", "qwen2"):
            raise SystemExit(f"{path}: found architecture {arch}, expected llama or qwen2")
        self.path, self.dtype, self.device, self.trains = path, dtype, device, False
        self.name = field("general.name", "")
        self.n_head, self.n_kv = field(f"{arch}.attention.head_count"), field(f"{arch}.attention.head_count_kv")
        self.n_layer = field(f"{arch}.block_count")
        self.eps = float(field(f"{arch}.attention.layer_norm_rms_epsilon"))
        self.w, factors = {}, 1.0
        for t in reader.tensors:
            w = gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
            if t.name == "rope_freqs.weight":
                factors = w.astype(np.float64)
                continue
            if arch == "llama" and (".attn_q." in t.name or ".attn_k." in t.name):
                w = unpermute(w, self.n_head if ".attn_q." in t.name else self.n_kv)
            self.w[t.name] = torch.from_numpy(np.array(w)).to(device, dtype)
        self.embd, self.out_norm = self.w["token_embd.weight"], self.w["output_norm.weight"]
        self.out = self.w.get("output.weight", self.embd).to(products or dtype)
        for name, w in self.w.items():
            if name.startswith("blk.") and w.dim() == 2:
                self.w[name] = w.to(products or dtype)
        self.n_vocab, self.n_embd = self.embd.shape
        self.hd = self.w["blk.0.attn_q.weight"].shape[0] // self.n_head
        freq = field(f"{arch}.rope.freq_base", 10000.0) ** (-2 * np.arange(self.hd // 2) / self.hd) / factors
        angle = torch.arange(POSITIONS, dtype=torch.float64)[:, None] * torch.from_numpy(freq)
        self.angles = [f(angle).to(device, dtype)[:, None] for f in (torch.cos, torch.sin)]

    def layer(self, i, name):
        return self.w.get(f"blk.{i}.{name}")

    def train(self, yes=True):
        """From now on the weights are trained, too; dtype and products are one."""
        self.trains = yes
        for w in self.w.values():
            w.requires_grad_(yes)
            w.grad = None

    def digest(self):
        import xxhash
        h = xxhash.xxh3_128()
        with open(self.path, "rb") as f:
            while part := f.read(1 << 20):
                h.update(part)
        return h.hexdigest()

    def norm(self, x, w):
        return F.rms_norm(x.to(self.dtype), (x.shape[-1],), w, self.eps)

    def rotate(self, x, positions):
        """x (..., n, heads, hd), positions (n)"""
        c, s = (t[positions] for t in self.angles)
        a, b = x.chunk(2, -1)
        return torch.cat((a * c - b * s, a * s + b * c), -1).to(x.dtype)

    def project(self, i, p, y):
        name = PROJECTIONS[p]
        return F.linear(y, self.layer(i, f"{name}.weight"), self.layer(i, f"{name}.bias"))

    def ffn(self, x, norm, project):
        """project(p, y): y by the gate, up or down of a layer."""
        y = self.norm(x, norm)
        return x + project("down", F.silu(project("gate", y)) * project("up", y))

    def attend(self, q, k, v, sees):
        """q (b, n, n_head, hd), k and v (b, N, n_kv, hd), rotated; sees (n, N). Returns (b, n, n_head * hd)."""
        group = self.n_head // self.n_kv
        k, v = (x.transpose(1, 2).repeat_interleave(group, 1) for x in (k, v))
        out = F.scaled_dot_product_attention(q.transpose(1, 2).to(v.dtype), k.to(v.dtype), v, attn_mask=sees)
        return out.transpose(1, 2).flatten(2)

    def logits(self, x):
        return F.linear(self.norm(x, self.out_norm), self.out)

    def plain(self, ids):
        """Last rows, not normed, of ids (b, n) at positions 0, 1, ...: full attention, nothing trained."""
        n = ids.shape[1]
        causal = torch.ones(n, n, dtype=torch.bool, device=self.device).tril()
        return run(self, None, [Block(self.embd[ids], None, torch.arange(n, device=self.device), causal)],
                   Memory(self))[0][0]


# --- the adapter ------------------------------------------------------------------------------------

class Adapter:
    """Tensors of docs/adapter.md by their names there; a tensor that is absent is the base model's."""

    def __init__(self, tensors, meta, base):
        self.method, self.mask = meta.get("method", "fine-kv"), meta.get("mask", "memory-only")
        self.embedding = meta.get("embedding", "last-token")
        self.meta = dict(meta)
        # Copies: a tensor may lie in the base's memory.
        tensors = {"gist.embedding": np.zeros((1, base.n_embd)), **tensors}
        self.w = {name: torch.tensor(x, dtype=base.dtype, device=base.device).requires_grad_()
                  for name, x in tensors.items()}

    def project(self, base, i, p, y):
        own = lambda kind: self.w.get(f"layers.{i}.{p}.{kind}")
        w, bias, name = own("weight"), own("bias"), PROJECTIONS[p]
        z = F.linear(y, base.layer(i, f"{name}.weight") if w is None else w,
                     base.layer(i, f"{name}.bias") if bias is None else bias)
        if own("a") is not None:
            z = z + F.linear(F.linear(y, own("a")), own("b"))
        return z

    def embed(self, base, last):
        """Inputs of gists whose snippets end with the tokens `last` (b, n)."""
        g = self.w["gist.embedding"]
        x = g[torch.arange(last.shape[1], device=base.device).clamp(max=len(g) - 1)]
        return x + base.embd[last] if self.embedding == "last-token" else x.expand(len(last), -1, -1)


# --- a pass over segments ---------------------------------------------------------------------------

class Memory:
    """For each layer k, unrotated, k rotated by its place, and v, each (b, n, n_kv, hd); None: nothing yet."""

    def __init__(self, base):
        self.layers = [None] * base.n_layer

    def __len__(self):
        return 0 if self.layers[0] is None else self.layers[0][0].shape[1]


@dataclass
class Block:
    """Rows that stand together: raw ones, which the base model projects, then gists, which the adapter does.
    All see all of the memory before."""
    raw: torch.Tensor                # inputs (b, n_raw, n_embd)
    gists: torch.Tensor              # inputs (b, n_gists, n_embd), or None
    at: torch.Tensor                 # positions of all rows, from the block's base
    sees: torch.Tensor               # (rows, rows): which of the block's keys a row sees
    keep: torch.Tensor = None        # rows that become memory, in order; None: none

    def __post_init__(self):
        self.n_raw, self.n_gists = self.raw.shape[1], 0 if self.gists is None else self.gists.shape[1]


def run(base, adapter, blocks, memory, recompute=False):
    """All blocks go through the layers together; what a block keeps is memory of those behind it. Returns the
    last rows, not normed: [raw rows of a block], [gists of a block, or None]. recompute: keep only what goes
    from layer to layer, and compute the rest again for the gradients."""
    # Rows in up to three parts: raw ones that depend on nothing that is trained (autograd leaves them out),
    # other raw ones, gists.
    apart = len(memory) == 0 and not blocks[0].sees[:blocks[0].n_raw, blocks[0].n_raw:].any()
    parts = [[b.raw for b in blocks[:apart]], [b.raw for b in blocks[apart:]], [b.gists for b in blocks if b.n_gists]]
    sizes = [[x.shape[1] for x in part] for part in parts]
    bases, masks, n = [], [], len(memory)
    for b in blocks:
        bases.append(n)
        masks.append(torch.cat((torch.ones(len(b.at), n, dtype=torch.bool, device=base.device), b.sees), 1))
        n += 0 if b.keep is None else len(b.keep)
    plan = (blocks, sizes, bases, masks)

    xs = [torch.cat(part, 1) if part else None for part in parts]
    for i in range(base.n_layer):
        step = partial(layer, base, adapter, i, plan)
        if recompute and torch.is_grad_enabled():
            xs, memory.layers[i] = checkpoint(step, xs, memory.layers[i], use_reentrant=False)
        else:
            xs, memory.layers[i] = step(xs, memory.layers[i])
    still, raw, gists = (iter(() if x is None else x.split(n, 1)) for x, n in zip(xs, sizes))
    return ([next(still if j < apart else raw) for j in range(len(blocks))],
            [next(gists) if b.n_gists else None for b in blocks])


def projector(base, adapter, i):
    """project(p, y) of layer i: gists' by their adapter, raw rows' by the base model (adapter None)."""
    return partial(base.project, i) if adapter is None else partial(adapter.project, base, i)


def layer(base, adapter, i, plan, xs, memory):
    """All rows through layer i. Returns them and the layer's memory."""
    blocks, sizes, bases, masks = plan
    ways = [projector(base, None, i), projector(base, None, i), projector(base, adapter, i)]
    rows = []                                            # of each part, by block: [q, k, v]
    for x, n, way in zip(xs, sizes, ways):
        qkv = []
        if x is not None:
            y = base.norm(x, base.layer(i, "attn_norm.weight"))
            qkv = [way(p, y).unflatten(-1, (-1, base.hd)).split(n, 1) for p in "qkv"]
        rows.append(iter(zip(*qkv)))
    outs = [[], [], []]
    for j, b in enumerate(blocks):
        part = 0 if j < len(sizes[0]) else 1
        q, k, v = next(rows[part])
        if b.n_gists:
            q, k, v = (torch.cat(two, 1) for two in zip((q, k, v), next(rows[2])))
        keys, values = base.rotate(k, b.at + bases[j]), v
        if memory is not None:
            keys, values = torch.cat((memory[1], keys), 1), torch.cat((memory[2], v), 1)
        out = base.attend(base.rotate(q, b.at + bases[j]), keys, values, masks[j])
        outs[part].append(out[:, :b.n_raw])
        if b.n_gists:
            outs[2].append(out[:, b.n_raw:])
        if b.keep is not None:
            k, v = k[:, b.keep], v[:, b.keep]
            places = torch.arange(bases[j], bases[j] + len(b.keep), device=base.device)
            new = (k, base.rotate(k, places), v)
            memory = new if memory is None else tuple(torch.cat(two, 1) for two in zip(memory, new))
    done = []
    for x, out, way in zip(xs, outs, ways):
        if x is not None:
            x = base.ffn(x + way("o", torch.cat(out, 1)), base.layer(i, "ffn_norm.weight"), way)
        done.append(x)
    return done, memory


@dataclass
class Read:
    """What read() makes of sequences."""
    x: torch.Tensor                  # (b, T, n_embd): the raw rows behind the last layer, not normed
    memory: Memory
    gists: list                      # for each segment that was compressed: (first entry of its gists in the
                                     # memory, places in the sequence of each gist's snippet (n, ratio))


def segment_block(base, adapter, ids, ratio, sinks, last):
    """The rows of one segment, and each gist's snippet as offsets (n_gists, ratio)."""
    n, dev = ids.shape[1], base.device
    raw = torch.arange(n, device=dev)
    fine = adapter.method == "fine-kv"
    if fine and adapter.mask == "memory-only":
        n_gists = 0 if last else (n - sinks) // ratio
        ends = sinks + (torch.arange(n_gists, device=dev) + 1) * ratio - 1
        at = torch.cat((raw, ends))
        is_raw = torch.arange(n + n_gists, device=dev) < n
        sees = is_raw[None] & (at[None] < at[:, None]) | torch.eye(n + n_gists, dtype=torch.bool, device=dev)
        rest = raw[sinks + n_gists * ratio:]
    else:
        # In-segment gists are there in the last segment, too: its tokens see them.
        n_gists = 0 if last and not fine else n // ratio
        j = torch.arange(n_gists, device=dev)
        ends = (j + 1) * ratio - 1
        at = torch.cat((raw + raw // ratio, ends + j + 1) if fine else (raw, n + j))
        sees = at[None] <= at[:, None]
        rest = raw[:0]
    keep = [raw[:sinks]]
    if adapter.method != "coarse-rec":
        keep += [n + torch.arange(n_gists, device=dev), rest]
    block = Block(base.embd[ids], adapter.embed(base, ids[:, ends]) if n_gists else None, at, sees,
                  None if last else torch.cat(keep))
    return block, ends[:, None] - ratio + 1 + torch.arange(ratio, device=dev)


def read(base, adapter, ids, length, ratio, sinks, recompute=False):
    """ids (b, T), in segments of `length`, each compressed before the next one is read; the last is not."""
    segments = ids.split(length, 1)
    made = [segment_block(base, adapter, s, ratio, sinks if i == 0 else 0, i == len(segments) - 1)
            for i, s in enumerate(segments)]
    memory, gists, x, at = Memory(base), [], [], 0
    for i, (block, snippets) in enumerate(made[:-1]):
        gists.append((at + (sinks if i == 0 else 0), snippets + i * length))
        at += len(block.keep) + (len(snippets) if adapter.method == "coarse-rec" else 0)
    if adapter.method != "coarse-rec":
        x, _ = run(base, adapter, [b for b, _ in made], memory, recompute)
        return Read(torch.cat(x, 1), memory, gists)
    for i, (block, snippets) in enumerate(made):
        if i > 0 or sinks == 0:
            block.keep = None
        raw, last = run(base, adapter, [block], memory, recompute)
        x += raw
        if block.n_gists:
            # Their hidden states are soft tokens in the segment's place.
            at = torch.arange(block.n_gists, device=base.device)
            soft = Block(base.norm(last[0], base.out_norm), None, at, at[None] <= at[:, None], at)
            run(base, None, [soft], memory, recompute)
    return Read(torch.cat(x, 1), memory, gists)
