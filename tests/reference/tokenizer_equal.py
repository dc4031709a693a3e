#!/usr/bin/env python3
"""tokenizer_equal.py - our token ids against Hugging Face `tokenizers`, id by id.

    tokenizer_equal.py [--model FILE.gguf]... [--only-models] [--tool build/release/tests/tool_tokenize]
                       [--bytes N]

For each pre-tokenizer a tokenizer of `tokenizers` is built and a GGUF file with the same vocabulary
and merges is written; tool_tokenize encodes the same text with the engine. `smollm` takes the
vocabulary of --model, by default the file that GISTD_TEST_MODEL names; `llama-bpe` and `qwen2` get
small ones, trained here on the text of this repository. Any GGUF file of the three kinds can be given
with --model, more than once. The tool is built when it is not given. qwen2's normaliser, NFC, is that of its
published tokenizer.json; scripts/test holds it on the published vocabulary (scripts/fetch-model
qwen2.5-coder-0.5b-instruct).

The text is the same in every run of one checkout: code points of all of Unicode 14 that Python knows
to be assigned, by block and mixed; emoji sequences; digits; runs of spaces; control characters;
contractions; words of one letter; prose and code of the repository and, when there, of
/usr/share/common-licenses; and, between them, bytes that are not UTF-8. `tokenizers` only takes
Unicode, so it gets the maximal well-formed stretches one by one, and each byte between them stands
for itself (engine/text/vocab.h).

Prints one line for each tokenizer, `equal: N bytes, M tokens (NAME)`, and exits 1 with the first
difference otherwise.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def pre_tokenizer(pre):
    """As in the published tokenizer.json of the three families."""
    if pre == "smollm":
        return pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    split = pre_tokenizers.Split(Regex(LLAMA3 if pre == "llama-bpe" else QWEN2), "isolated")
    return pre_tokenizers.Sequence([
        split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


# --- the text -------------------------------------------------------------------------------------

def assigned():
    """Code points that are assigned, without surrogates. Private use ones are, and stand in few."""
    return [c for c in range(0x110000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


def unicode_text(rng, n):
    """About n characters: runs from one neighbourhood, as scripts are, and single ones from anywhere."""
    points = assigned()
    out = []
    while len(out) < n:
        kind = rng.random()
        if kind < 0.7:
            at = rng.randrange(len(points))
            near = points[max(0, at - 40):at + 40]
            for _ in range(rng.randrange(1, 12)):
                out += [chr(rng.choice(near)) for _ in range(rng.randrange(1, 9))]
                out.append(rng.choice([" ", " ", " ", "\n", "  ", ", ", ". ", "", "\r\n", "\t"]))
        elif kind < 0.9:
            out += [chr(rng.choice(points)) for _ in range(rng.randrange(1, 6))]
        else:
            out.append(chr(rng.choice((0xE000, 0xF8FF, 0xF0000, 0x10FFFD))))
    return "".join(out)


SPACES = " \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
EMOJI = ["\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466", "\U0001F3F3\uFE0F\u200D\U0001F308",
         "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA", "\u2764\uFE0F", "1\uFE0F\u20E3", "\U0001F999",
         "\U0001F9D1\U0001F3FF\u200D\U0001F4BB", "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F"]
SHORT = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'d", "'D", "'\u017f", "'x", "''s", "don't", "I'M",
         "we've\n", "\u2019s", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|", "|>", "<", "e\u0301", "\u00e9",
         "\u1e69", "\u212b", "\uac00", "\u1100\u1161", "\u0928\u093f", "\u00bd", "\u2167", "\u0663", "\u4e09", "\u3007",
         "\ufb01", "\u01c5", "\u02b0", "_", "__init__", "->", "!=", "...", "\u3002", "/*", "*/", "\\n", "\0", "\x01", "\x7f"]


def edge_text(rng, n):
    """Short pieces that stand where expressions look ahead or give back."""
    out = []
    size = 0
    while size < n:
        kind = rng.randrange(8)
        if kind == 0:
            piece = "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 9)))
        elif kind == 1:
            piece = rng.choice(" \n\t") * rng.randrange(1, 40)
        elif kind == 2:
            piece = "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 12)))
        elif kind == 3:
            piece = rng.choice(EMOJI) * rng.randrange(1, 4)
        elif kind == 4:
            piece = "".join(rng.choice("abcdefgHIJ \n'") for _ in range(rng.randrange(1, 20)))
        elif kind == 5:
            piece = rng.choice("aeiou-=#*\u00e4\u4e2d\U0001F600") * rng.choice((1, 2, 3, 31, 32, 33, 34, 200))
        elif kind == 6:
            piece = chr(rng.randrange(0, 0x80))
        else:
            piece = rng.choice(SHORT)
        out.append(piece)
        size += len(piece)
    return "".join(out)


def natural_text(limit):
    """Prose and code: files that were read in a fixed order, at most `limit` bytes."""
    files = []
    for pattern in ("*.md", "base/*", "engine/*", "engine/*/*", "ipc/*", "client/*", "daemon/*", "tests/*.c", "docs/*", "tests/reference/*.py",
                    "tests/data/score.txt"):
        files += sorted(ROOT.glob(pattern))
    files += sorted(Path("/usr/share/common-licenses").glob("*"))
    out = b""
    for path in files:
        if path.is_file() and len(out) < limit:
            out += path.read_bytes()
    return out[:limit].decode("utf-8", "ignore")


BAD = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x9f\x98", b"\xc3", b"\xbf\xbf"]


def make_text(n_bytes):
    rng = random.Random(20260101)
    natural = natural_text(n_bytes // 2)
    mixed = unicode_text(rng, n_bytes // 8) + edge_text(rng, n_bytes // 6) + "a" * 40000 + " " * 40000 + "x"
    text = (natural + mixed).encode()
    out = bytearray()
    at = 0
    while at < len(text):  # bad bytes anywhere, in the middle of characters too
        step = rng.randrange(1, 3000)
        out += text[at:at + step]
        out += rng.choice(BAD)
        at += step
    out += natural[:200000].encode()  # and a long stretch without any
    return bytes(out)


# --- tokenizers -----------------------------------------------------------------------------------

def letters():
    """GPT-2's alphabet: byte to visible letter."""
    keep = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


LETTER = letters()
BYTE = {c: b for b, c in LETTER.items()}


class Subject:
    """One tokenizer: vocabulary, merges, the GGUF file and the same thing in `tokenizers`."""

    def __init__(self, name, pre, tokens, kinds, merges, path):
        normal = {t: i for i, t in enumerate(tokens) if kinds[i] == 1}
        self.name, self.path, self.normal = name, path, normal
        self.bytes = [b"" if kinds[i] != 1 else bytes(BYTE[c] for c in t) for i, t in enumerate(tokens)]
        self.hf = Tokenizer(models.BPE(vocab=normal, merges=merges, ignore_merges=pre == "llama-bpe"))
        self.hf.pre_tokenizer = pre_tokenizer(pre)
        if pre == "qwen2":  # as in its tokenizer.json
            self.hf.normalizer = normalizers.NFC()

    def encode(self, text):
        """Ids of `tokenizers`, and what they decode to: the text, in its normal form where the tokenizer has one,
        without the bytes that the vocabulary lacks."""
        good = stretches(text)
        good, bad = good[::2], good[1::2]
        if self.hf.normalizer:
            forms = [self.hf.normalizer.normalize_str(g) for g in good]
            text = "".join(a + b for a, b in zip(forms, bad + [""])).encode("utf-8", "surrogateescape")
        ids = []
        for i, encoding in enumerate(self.hf.encode_batch_fast(good, add_special_tokens=False)):
            ids += encoding.ids
            letter = LETTER[ord(bad[i]) - 0xdc00] if i < len(bad) else None
            if letter in self.normal:
                ids.append(self.normal[letter])
        have = bytes(b for b in range(256) if LETTER[b] in self.normal)
        lacks = bytes(b for b in range(256) if b not in have)
        return ids, text.translate(None, lacks)


def stretches(text):
    """Maximal well-formed stretches, and each byte between them as a lone surrogate U+DC80 + x."""
    return re.split("([\udc80-\udcff])", text.decode("utf-8", "surrogateescape"))


def from_gguf(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    pre = fields["tokenizer.ggml.pre"].contents()
    return Subject(f"{pre}, {Path(path).name}", pre, tokens, kinds, merges, path)


def trained(pre, n_vocab, text, folder):
    """A vocabulary trained on the text, written as a GGUF file of a tokenizer alone."""
    hf = Tokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizer(pre)
    trainer = trainers.BpeTrainer(vocab_size=n_vocab, show_progress=False, max_token_length=64,
                                  initial_alphabet=sorted(LETTER.values()))
    hf.train_from_iterator(text.splitlines(keepends=True), trainer)
    model = json.loads(hf.to_str())["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    kinds = [1] * len(tokens) + [3]
    tokens.append("<|endoftext|>")
    path = f"{folder}/{pre}.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    w.add_token_merges(merges)
    w.add_eos_token_id(len(tokens) - 1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    return Subject(f"{pre}, trained here", pre, tokens, kinds, [tuple(m.split(" ")) for m in merges], path)


# --- comparing ------------------------------------------------------------------------------------

def run_tool(tool, subject, text_path, folder, n_slice):
    out = f"{folder}/ids"
    done = subprocess.run([tool, subject.path, text_path, out, str(n_slice)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{subject.name}: tool_tokenize: {done.stderr.strip()}")
    return np.fromfile(out, dtype="<u4").tolist()


def first_difference(subject, ours, theirs):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    lo = max(0, at - 5)
    show = lambda ids: b"|".join(subject.bytes[i] for i in ids[lo:at + 6])
    return (f"differs: {subject.name}: token {at} of {len(ours)} and {len(theirs)}\n"
            f"  engine     {ours[lo:at + 6]} {show(ours)}\n  tokenizers {theirs[lo:at + 6]} {show(theirs)}")


def compare(tool, subject, text, text_path, folder):
    theirs, whole = subject.encode(text)
    for n_slice in (4096, 1):
        ours = run_tool(tool, subject, text_path, folder, n_slice)
        if ours != theirs:
            sys.exit(first_difference(subject, ours, theirs))
        if b"".join(subject.bytes[i] for i in ours) != whole:
            sys.exit(f"differs: {subject.name}: the ids do not decode to the text")
    print(f"equal: {len(text)} bytes, {len(theirs)} tokens ({subject.name})", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tool")
    p.add_argument("--model", action="append")
    p.add_argument("--only-models", action="store_true", help="leave out the vocabularies trained here")
    p.add_argument("--bytes", type=int, default=1500000, help="about how much text")
    args = p.parse_args()
    if not args.tool:
        args.tool = "build/release/tests/tool_tokenize"
        # With the flags of `make check`, so that nothing is built twice.
        subprocess.run(["make", "--no-print-directory", "-C", ROOT, "WERROR=-Werror", args.tool], check=True)
        args.tool = str(ROOT / args.tool)
    if args.model is None:
        args.model = [m for m in [os.environ.get("GISTD_TEST_MODEL")] if m]

    text = make_text(args.bytes)
    with tempfile.TemporaryDirectory() as folder:
        text_path = f"{folder}/text"
        Path(text_path).write_bytes(text)
        subjects = [from_gguf(m) for m in args.model]
        if not args.only_models:
            sample = natural_text(400000) + unicode_text(random.Random(7), 30000)
            subjects += [trained("llama-bpe", 3000, sample, folder), trained("qwen2", 3000, sample, folder)]
            if not any(s.name.startswith("smollm") for s in subjects):
                subjects.append(trained("smollm", 3000, sample, folder))
        for s in subjects:
            compare(args.tool, s, text, text_path, folder)


if __name__ == "__main__":
    main()
