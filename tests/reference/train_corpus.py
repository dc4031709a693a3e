"""Reads a corpus file (train/data/corpus.h, train/data/corpus_file.h) and draws the same sequences from it as corpus_sample."""
import struct

import numpy as np

MASK64 = (1 << 64) - 1
GOLDEN = 0x9e3779b97f4a7c15
NONE = 0xffffffff
DRAWS = 64
DOCUMENT = np.dtype([("first", "<u8"), ("n_tokens", "<u8"), ("n_loss", "<u8"), ("source", "<u4"), ("weight", "<f4")])
HEADER = struct.Struct("<8s6I2Q32s2Q24sQ")


def mix(x):
    """splitmix64's."""
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & MASK64
    x = (x ^ x >> 27) * 0x94d049bb133111eb & MASK64
    return x ^ x >> 31


class Stream:
    def __init__(self, seed, index):
        self.state = mix((seed + GOLDEN) & MASK64) ^ mix(~index & MASK64)

    def draw(self):
        self.state = (self.state + GOLDEN) & MASK64
        return mix(self.state)

    def below(self, n):
        return self.draw() * n >> 64

    @staticmethod
    def hash(x):
        return mix((x + GOLDEN) & MASK64)


class Corpus:
    def __init__(self, path, weights=()):
        """weights: {source: how often, 1 where nothing is said}"""
        import xxhash
        self.map = np.memmap(path, np.uint8, "r")
        (magic, version, header_len, self.n_vocab, self.eos, self.bos, n_sources, n_documents, self.n_tokens, digest,
         file_len, payload, _, _) = HEADER.unpack_from(self.map[:HEADER.size].tobytes())
        if magic != b"GISTCORP" or version != 1 or header_len != HEADER.size or file_len != len(self.map):
            raise SystemExit(f"{path}: found no whole corpus file of version 1")
        if xxhash.xxh3_64_intdigest(self.map[HEADER.size:]) != payload:
            raise SystemExit(f"{path}: the tokens are damaged")
        self.digest, kind = digest.decode(), "<u2" if self.n_vocab <= 65536 else "<u4"
        end = HEADER.size + self.n_tokens * np.dtype(kind).itemsize
        self.ids = self.map[HEADER.size:end].view(kind)
        mask_at = (end + 7) // 8 * 8
        documents_at = mask_at + (self.n_tokens + 63) // 64 * 8
        sources_at = documents_at + n_documents * DOCUMENT.itemsize
        self.bits = self.map[mask_at:documents_at]
        self.documents = self.map[documents_at:sources_at].view(DOCUMENT)
        self.sources = [row.tobytes().rstrip(b"\0").decode() for row in self.map[sources_at:].reshape(n_sources, 64)]
        factor = np.ones(n_sources)
        for name, weight in dict(weights).items():
            if name not in self.sources:
                raise SystemExit(f"{path}: there is no source \"{name}\"")
            factor[self.sources.index(name)] = weight
        self.below = np.cumsum(factor[self.documents["source"]] * self.documents["weight"].astype(np.float64)
                               * self.documents["n_tokens"].astype(np.float64))

    def loss_at(self, first, n):
        """0 or 1 for each of n tokens."""
        bits = np.unpackbits(self.bits[first // 8:(first + n + 7) // 8], bitorder="little")
        return bits[first % 8:first % 8 + n]

    def document(self, i):
        d = self.documents[i]
        return int(d["first"]), int(d["n_tokens"]), int(d["n_loss"])

    def draw_fitting(self, stream, room, whole):
        last = len(self.documents) - 1
        for _ in range(DRAWS):
            x = (stream.draw() >> 11) * 2.0 ** -53 * self.below[last]
            first, n, n_loss = self.document(min(int(np.searchsorted(self.below, x, "right")), last))
            if n_loss == n or n <= room or (whole and self.loss_at(first, room).any()):
                break
        return first, n, n_loss

    def sample(self, seed, index, n_tokens):
        """Sequence `index` of the stream `seed`: (ids, which carry loss)."""
        stream, ids, loss = Stream(seed, index), [], []
        at = 0
        if self.bos != NONE:
            ids.append([self.bos])
            loss.append([0])
            at = 1
        start = at
        while at < n_tokens:
            room = n_tokens - at
            first, n, n_loss = self.draw_fitting(stream, room, at == start)
            if n > room:
                first += stream.below(n - room + 1) if n_loss == n else 0
                n = room
            ids.append(self.ids[first:first + n])
            loss.append(self.loss_at(first, n))
            at += n
            if at < n_tokens:
                ids.append([self.eos])
                loss.append(loss[-1][-1:])
                at += 1
        return np.concatenate(ids).astype(np.int64), np.concatenate(loss).astype(np.uint8)
