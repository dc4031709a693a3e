#!/usr/bin/env python3
"""Plain text out of Debian packages: the texts of the default corpus.

    extract.py LIST DEBS OUT

LIST is train/data/corpus.list, DEBS the folder with the packages' files. Writes OUT/train/SOURCE/*.txt and
OUT/heldout/SOURCE/*.txt, one document each, and beginnings of some held-out ones to OUT/heldout-text. The
same packages give the same files.

Small files that lie next to each other are one document: pages of one manual belong together, and
long documents are what a memory of earlier text is trained on. Repeated paragraphs are left out
wherever they come from, so that little of a held-out document is in the other part.
"""

import collections
import fnmatch
import gzip
import hashlib
import html.parser
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zlib

HELD_OUT = {"prose": 12, None: 36}  # one document of so many
JOIN = 16 << 10  # files are joined until a document has so many bytes
SHORTEST = 1500
SAMPLE, SAMPLES = 24 << 10, 3  # bytes of a held-out beginning, how many of a source
LONGEST_LINE = 4000
STOP_WORDS = frozenset(
    "the of and to a in is that it for as with be on by this are or not from at an if can you which was".split()
)
# How much larger than its text a file may be: more files than can be of use are not converted.
BLOAT = {"html": 12, "mallard": 4}


# --- formats: bytes to text ---------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """The text of an HTML or XML page, without what leads around in it."""

    BLOCKS = frozenset(
        "p div section h1 h2 h3 h4 h5 h6 li dt dd ul ol dl tr table blockquote pre br hr title item note "
        "steps list figure media caption article main".split()
    )
    SKIPPED = frozenset(
        "script style nav footer head noscript svg form button info select iframe math".split()
    )
    VOID = frozenset("br hr img input meta link area base col embed source wbr".split())
    AROUND = re.compile(
        r"sphinxsidebar|\brelated\b|headerlink|navheader|navfooter|\btoc\b|sidebar|navbar|footer|breadcrumb|"
        r"editsection|noprint|menu-bar|nav-chapters|searchbox|nav-wrapper|langs|genindex|\bindex\b"
    )

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.pre, self.skip, self.depth = [], 0, None, 0

    def handle_starttag(self, tag, attrs):
        if self.skip:
            self.depth += tag == self.skip
            return
        names = " ".join(v or "" for k, v in attrs if k in ("class", "id", "role"))
        if tag in self.SKIPPED or (
            tag not in self.VOID and tag not in ("body", "html") and self.AROUND.search(names)
        ):
            if tag not in self.VOID:
                self.skip, self.depth = tag, 1
        elif tag == "pre" or tag == "code" and "block" in names:
            self.pre += tag == "pre"
            self.parts.append("\n\n")
        elif tag in self.BLOCKS:
            self.parts.append("\n" if tag in ("tr", "br", "dd", "li") else "\n\n")
            if tag == "li":
                self.parts.append("- ")
        elif tag in ("td", "th"):
            self.parts.append("  ")

    def handle_startendtag(self, tag, attrs):
        if tag in self.VOID:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if self.skip:
            self.depth -= tag == self.skip
            self.skip = self.skip if self.depth else None
            return
        if tag == "pre":
            self.pre = max(0, self.pre - 1)
        if tag in self.BLOCKS and tag not in ("li", "tr", "br"):
            self.parts.append("\n\n" if tag != "dt" else "\n")

    def handle_data(self, data):
        if not self.skip:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def from_html(raw):
    page = Page()
    page.feed(decode(raw))
    page.close()
    text = "".join(page.parts).replace("\u00b6", "").replace("\u200b", "")
    text = re.sub(r"\n[ \t]*-[ \t]*\n+[ \t]*", "\n- ", text)
    return re.sub(r"(?m)^ (?=\S)", "", text)


def from_rst(raw):
    text = decode(raw)
    text = re.sub(
        r"(?m)^\.\. (index|_[^\n]*:|highlight|SPDX|only|toctree|contents|module|currentmodule).*(\n[ \t]+.*)*\n",
        "",
        text,
    )
    text = re.sub(r"(?m)^\.\. [a-z+-]*include::.*\n", "", text)
    text = re.sub(r":[a-z:+]+:`~?!?([^`<]*?)(?:\s*<[^`]*>)?`", r"`\1`", text)
    return text


def from_man(raw):
    done = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=96"],
        input=raw,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    text = re.sub(r".\x08", "", decode(done.stdout))
    lines = text.split("\n")
    return "\n".join(lines[1:-2]) if len(lines) > 4 else ""  # without page head and foot


def from_info(raw):
    text = decode(raw)
    if "\x1f" in text[:4000] and "Indirect:" in text:
        return ""  # the list of the parts
    nodes = text.split("\x1f")
    keep = []
    for node in nodes:
        head, _, body = node.lstrip("\n").partition("\n")
        if not head.startswith("File:") or re.search(r"Node: [^,]*Index", head):
            continue
        body = re.sub(r"(?ms)^\* Menu:.*?(?=\n\n(?![* \n])|\Z)", "", body)
        keep.append(re.sub(r"\*[Nn]ote ([^:]*)::?", r"\1", body))
    return "\n\n".join(keep)


def from_dict(raw):
    """A dictd database: entries at the margin, what they mean indented."""
    text = decode(gzip.decompress(raw))
    return re.sub(r"(?s)\A(00-?database.*?\n(?=\S))+", "", text)


def from_wml(raw):
    """What is said and told in a scenario of The Battle for Wesnoth, in its order."""
    found, speaker = [], None
    for m in re.finditer(r'speaker\s*=\s*([\w ]+)|_\s*"((?:[^"]|"")*)"(\s*\+)?', decode(raw)):
        if m.group(1):
            speaker = m.group(1).strip()
            continue
        said = re.sub(r"<[^>]*>", "", m.group(2).replace('""', '"'))
        said = re.sub(r"\s+", " ", said).strip()
        if len(said) > 20:
            found.append(f"{speaker}: {said}" if speaker and not speaker.startswith("narr") else said)
        speaker = None
    return "\n\n".join(found)


def from_rdb(raw):
    """The longer texts in an R package's data: character vectors of its serialised objects."""
    texts, at = [], 0
    while at + 5 < len(raw):
        if raw[at + 4] != 0x78:
            at += 1
            continue
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(raw[at + 4 :])
        except zlib.error:
            at += 1
            continue
        at = len(raw) - len(stream.unused_data)
        texts.append("\n".join(r_strings(data)))
    return [t for t in texts if len(t) > 50000]


def r_strings(data):
    """CHARSXP elements: a word of flags whose low byte is 9, a length, the bytes."""
    at = 0
    while at + 8 <= len(data):
        flags, size = struct.unpack_from(">II", data, at)
        if flags & 0xFF == 9 and flags < 1 << 20 and size <= len(data) - at - 8:
            yield data[at + 8 : at + 8 + size].decode("utf-8", "replace")
            at += 8 + size
        else:
            at += 1


COMMENTS = re.compile(r"\A\s*(#![^\n]*\n)?\s*(/\*.*?\*/|(?:#[^\n]*\n)+|(?://[^\n]*\n)+)\s*", re.S)


def from_code(raw):
    """Without a licence at its head, which is the same in all files."""
    text = decode(raw)
    for _ in range(2):
        m = COMMENTS.match(text)
        if m and re.search(r"copyright|licen[cs]e", m.group(0), re.I):
            text = text[m.end() :]
    return text


def from_text(raw):
    return decode(raw)


def from_md(raw):
    return re.sub(r"(?s)<!--.*?-->", "", decode(raw))


FORMATS = {
    "html": from_html,
    "mallard": from_html,
    "rst": from_rst,
    "man": from_man,
    "info": from_info,
    "dict": from_dict,
    "wml": from_wml,
    "rdb": from_rdb,
    "code": from_code,
    "text": from_text,
    "md": from_md,
}


def decode(raw):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def tidy(text):
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " "))
    text = "".join(c for c in text if c in "\n\t" or c >= " " and c != "\x7f")
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


# --- which documents ----------------------------------------------------------------------------------


def is_good(text, fmt):
    if (
        len(text) < SHORTEST
        or max(map(len, text.split("\n"))) > LONGEST_LINE
        and fmt not in ("html", "md", "wml")
    ):
        return False
    odd = sum(not c.isascii() for c in text)
    digits = sum(c.isdigit() for c in text)
    letters = sum(c.isalpha() for c in text)
    inked = sum(not c.isspace() for c in text)
    if odd > 0.03 * len(text) or digits > 0.15 * inked:
        return False
    if fmt == "code":
        return letters > 0.5 * inked
    words = re.findall(r"[a-z']+", text.lower())
    return letters > 0.68 * inked and sum(w in STOP_WORDS for w in words) > 0.16 * len(words)


def digest(*words):
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


class Seen:
    """Paragraphs and documents that were there before."""

    def __init__(self):
        self.known = set()

    def without_repeats(self, text):
        """None when most of the document is known."""
        keep, new = [], set()
        for paragraph in text.split("\n\n"):
            key = " ".join(paragraph.split())
            if len(key) >= 160:
                key = hashlib.sha1(key.encode()).digest()
                if key in self.known or key in new:
                    continue
                new.add(key)
            keep.append(paragraph)
        short = "\n\n".join(keep)
        if len(short) < 0.6 * len(text):
            return None
        self.known |= new
        return short


def join_small(files):
    """(path, text) in order to documents: small neighbours of one folder become one."""
    name, parts, size = None, [], 0
    for path, text in files:
        if parts and (size >= JOIN or len(text) >= JOIN or os.path.dirname(path) != os.path.dirname(name)):
            yield name, "\n\n".join(parts)
            parts, size = [], 0
        if not parts:
            name = path
        parts.append(text)
        size += len(text)
    if parts:
        yield name, "\n\n".join(parts)


# --- packages -----------------------------------------------------------------------------------------


def unpacked(path, raw):
    if path.endswith(".gz"):
        return path[:-3], gzip.decompress(raw)
    return path, raw


def members(stream, patterns):
    """(path, bytes) of the plain files of a tar stream that match."""
    try:
        tar = tarfile.open(fileobj=stream, mode="r|*")
    except tarfile.ReadError:
        return  # nothing at all
    with tar:
        for m in tar:
            if m.isfile() and m.size and any(fnmatch.fnmatch("/" + m.name.lstrip("./"), p) for p in patterns):
                yield m.name.lstrip("./"), tar.extractfile(m).read()


def package_files(deb, patterns):
    inner = [p[4:] for p in patterns if p.startswith("tar:")]
    plain = [p for p in patterns if not p.startswith("tar:")]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as p:
        for path, raw in members(p.stdout, plain + inner):
            if inner and any(fnmatch.fnmatch("/" + path, i) for i in inner):
                yield from members(io.BytesIO(raw), ["*.c", "*.h"])
            else:
                yield path, raw
        p.stdout.read()  # what is behind the archive's end
    if p.returncode:
        sys.exit(f"extract.py: {deb} is no whole package")


def documents(deb, fmt, limit, patterns):
    """(name, text) of a package, in the order of their names' hashes, up to limit bytes."""
    files, total = {}, 0
    for path, raw in sorted(package_files(deb, patterns), key=lambda f: digest(f[0])):
        if fmt == "text" and path.endswith((".dat", ".u8", ".html", ".html.gz")):
            continue
        files[path] = raw
        total += len(raw) * (3 if path.endswith(".gz") else 1)
        if total > limit * BLOAT.get(fmt, 2):
            break
    texts = []
    for path in sorted(files, key=natural):
        name, raw = (path, files[path]) if fmt == "dict" else unpacked(path, files[path])
        text = FORMATS[fmt](raw)
        if fmt == "dict" and len(text) > limit:
            text = text[:limit].rpartition("\n\n")[0]
        many = text if isinstance(text, list) else [text]
        texts += [(f"{name}.{i}" if i else name, tidy(t)) for i, t in enumerate(many)]
    texts = [(n, t) for n, t in texts if len(t) > 200]
    joined = texts if fmt in ("man", "dict", "rdb") else join_small(texts)
    size = 0
    for name, text in sorted(joined, key=lambda d: digest(d[0], "order")):
        if size < limit and is_good(text, fmt):
            size += len(text)
            yield name, text


def natural(path):
    """Numbers as numbers: octave.info-10 comes after octave.info-9."""
    return [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", path)]


def read_list(path):
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                source, package, _, limit, fmt, *patterns = line.split()
                yield source, package, int(limit) << 10, fmt, patterns


def find_deb(folder, package):
    return next(
        (os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n.startswith(package + "_")), None
    )


def write(folder, name, text):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(text)


def write_samples(out):
    """What fits the window of a small model, of as many packages as there are."""
    for source in sorted(os.listdir(os.path.join(out, "heldout"))):
        folder, taken = os.path.join(out, "heldout", source), set()
        for name in sorted(os.listdir(folder), key=lambda n: n[-16:]):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                text = f.read()
            package = name[:-17]
            if len(text) < SAMPLE or package in taken or len(taken) == SAMPLES:
                continue
            taken.add(package)
            write(
                os.path.join(out, "heldout-text"),
                f"{source}-{name}",
                text[:SAMPLE].rpartition("\n")[0] + "\n",
            )


def main():
    list_path, debs, out = sys.argv[1:]
    os.makedirs(os.path.join(out, "heldout"))
    seen = Seen()
    sums = collections.Counter()
    for source, package, limit, fmt, patterns in read_list(list_path):
        deb = find_deb(debs, package)
        if not deb:
            print(f"extract.py: no package {package}", file=sys.stderr)
            continue
        count, size = 0, 0
        for name, text in documents(deb, fmt, limit, patterns):
            text = seen.without_repeats(text)
            if text is None or len(text) < SHORTEST:
                continue
            key = digest(package, name)
            part = "heldout" if int(key, 16) % HELD_OUT.get(source, HELD_OUT[None]) == 0 else "train"
            write(os.path.join(out, part, source), f"{package}-{key[:12]}.txt", text)
            count, size = count + 1, size + len(text)
            sums[part, source] += len(text)
        print(f"  {source:<8}{package:<28}{count:>6} documents {size >> 10:>7} KB", file=sys.stderr)
    write_samples(out)
    for (part, source), size in sorted(sums.items()):
        print(f"  {part:<8}{source:<10}{size >> 10:>7} KB", file=sys.stderr)


if __name__ == "__main__":
    main()
