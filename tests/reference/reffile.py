"""The format of the recorded reference vectors (tests/data/*.ref), shared by the makers.

All little-endian, no padding; tests/test_reference.c reads it.

    magic      8 bytes "GISTREF1"
    n_tokens   u32
    n_vocab    u32
    window     u32   every window of so many tokens is read from nothing
    n_rows     u32
    ids        u32 (n_tokens)
    logprobs   f32 (n_tokens)          log p(ids[i] | ids before it in its window); first: NaN
    row_pos    u32 (n_rows)            rows of logits: after which token of the first window
    rows       f32 (n_rows, n_vocab)
"""
import struct

import numpy as np

MAGIC = b"GISTREF1"


def write(path, ids, logprobs, window, n_vocab, row_pos=(), rows=()):
    ids = np.asarray(ids, "<u4")
    logprobs = np.asarray(logprobs, "<f4")
    row_pos = np.asarray(row_pos, "<u4")
    rows = np.asarray(rows, "<f4")
    assert len(ids) == len(logprobs) and len(row_pos) == len(rows)
    assert rows.size == len(row_pos) * n_vocab
    with open(path, "wb") as f:
        f.write(MAGIC + struct.pack("<4I", len(ids), n_vocab, window, len(row_pos)))
        for a in (ids, logprobs, row_pos, rows):
            f.write(a.tobytes())


def read(path):
    """(ids, logprobs, window, n_vocab, row_pos, rows)"""
    with open(path, "rb") as f:
        data = f.read()
    if data[:8] != MAGIC:
        raise ValueError(f"{path}: not a reference file")
    n_tokens, n_vocab, window, n_rows = struct.unpack_from("<4I", data, 8)
    off, parts = 24, []
    for kind, n in (("<u4", n_tokens), ("<f4", n_tokens), ("<u4", n_rows), ("<f4", n_rows * n_vocab)):
        parts.append(np.frombuffer(data, kind, n, off))
        off += 4 * n
    if off != len(data):
        raise ValueError(f"{path}: {len(data)} bytes, expected {off}")
    ids, logprobs, row_pos, rows = parts
    return ids, logprobs, window, n_vocab, row_pos, rows.reshape(n_rows, n_vocab)
