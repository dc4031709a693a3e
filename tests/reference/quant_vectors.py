#!/usr/bin/env python3
"""Writes tests/data/quant_vectors.bin: blocks and what the PyPI package `gguf` dequantises them to.

    pip install gguf==0.19.0 numpy
    python3 tests/reference/quant_vectors.py > tests/data/quant_vectors.bin

Little-endian: u32 number of types; for each u32 ggml type, u32 values, u32 bytes, the bytes, the values
as f32. Every second block is random in all its bits, scales included (infinities, NaNs, denormals); in
the others the scales are drawn from extremes and from what real weights have.
"""
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

SCALES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00,
                   0x7E00, 0x3C00, 0xBC00, 0x2000, 0x1BAD, 0x93F1], np.uint16)
# type: byte offsets of its f16 scales in a block, blocks
TYPES = {
    T.F16: ([], 512), T.BF16: ([], 512),
    T.Q4_0: ([0], 64), T.Q4_1: ([0, 2], 64), T.Q8_0: ([0], 64),
    T.Q4_K: ([0, 2], 24), T.Q6_K: ([208], 24),
    T.Q5_0: ([0], 64), T.Q5_1: ([0, 2], 64), T.Q5_K: ([0, 2], 24),
}


def main():
    rng = np.random.default_rng(20261122)
    out = [struct.pack("<I", len(TYPES))]
    for kind, (scale_at, n_blocks) in TYPES.items():
        n_bytes = GGML_QUANT_SIZES[kind][1]
        blocks = rng.integers(0, 256, (n_blocks, n_bytes), np.uint8)
        for b in range(0, n_blocks, 2):
            for at in scale_at:
                scale = SCALES[rng.integers(0, len(SCALES))]
                blocks[b, at:at + 2] = np.frombuffer(scale.tobytes(), np.uint8)
        with np.errstate(all="ignore"):
            values = dequantize(blocks.reshape(-1), kind).astype("<f4").reshape(-1)
        out += [struct.pack("<III", kind, values.size, blocks.size), blocks.tobytes(), values.tobytes()]
    sys.stdout.buffer.write(b"".join(out))


if __name__ == "__main__":
    main()
