#!/usr/bin/env python3
"""tokenizer_vectors.py - records what Hugging Face `tokenizers` does with a short, nasty text, so that the
C tests hold it without Python. Writes to tests/data/tokenizer/:

    text             bytes: what tokenizer_equal.py compares on, in small; with bytes that are not UTF-8
    PRE.gguf         a tokenizer of 600 tokens and one special, trained on that text
    PRE.pieces       u16 each: lengths of the pre-tokens of the well-formed stretches, in order
    PRE.ids          u16 each: the ids of the whole text
"""

import random
import shutil
import tempfile

import numpy as np
from tokenizer_equal import BAD, ROOT, edge_text, stretches, trained, unicode_text

FOLDER = ROOT / "tests" / "data" / "tokenizer"

CODE = """static int take(struct ring *r, uint32_t *ret_x)\r\n{\n\tif (!r || r->n == 0)\n\t\treturn -EAGAIN;   /* 0x1F600 */
    for (size_t i = 0; i < 1024; i++)    x += 3.14159e-10;\n\n\n}\n\n# I'll say it's done, they've said; WE'RE DON'T you'd I'm\n"""


def make_text():
    rng = random.Random(5)
    text = CODE + unicode_text(rng, 2500) + edge_text(rng, 2500) + CODE
    out = bytearray()
    at = 0
    data = text.encode()
    while at < len(data):
        step = rng.randrange(1, 500)
        out += data[at:at + step] + rng.choice(BAD)
        at += step
    return text, bytes(out)


def pieces(pre, text):
    out = []
    for good in stretches(text)[::2]:
        # Offsets count characters of the text that went in.
        for _, (start, end) in pre.pre_tokenize_str(good):
            out.append(len(good[start:end].encode()))
    return out


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    plain, text = make_text()
    (FOLDER / "text").write_bytes(text)
    with tempfile.TemporaryDirectory() as folder:
        for pre in ("smollm", "llama-bpe", "qwen2"):
            s = trained(pre, 600, plain, folder)
            shutil.copy(s.path, FOLDER / f"{pre}.gguf")
            np.array(pieces(s.hf.pre_tokenizer, text), dtype="<u2").tofile(FOLDER / f"{pre}.pieces")
            np.array(s.encode(text)[0], dtype="<u2").tofile(FOLDER / f"{pre}.ids")


if __name__ == "__main__":
    main()
