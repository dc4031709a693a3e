#!/bin/sh
# tests/test_make_corpus.sh - texts out of packages, and recall tasks. Would catch: text that keeps markup, what
# leads around in a page or a licence, documents that are tables, of another language or there twice, files
# that differ from run to run, a question whose answer is not in the text before it.
set -eu

for tool in dpkg-deb mandoc python3; do
    command -v "$tool" >/dev/null || {
        echo "needs $tool"
        exit 77
    }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
    echo "$*"
    exit 1
}

# --- packages -----------------------------------------------------------------------------------------

# package NAME: makes $dir/deb/NAME_1_all.deb of $dir/tree, and an empty tree.
mkdir -p "$dir/deb" "$dir/tree"
package() {
    mkdir "$dir/tree/DEBIAN"
    printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' "$1" \
        >"$dir/tree/DEBIAN/control"
    dpkg-deb -b "$dir/tree" "$dir/deb/$1_1_all.deb" >/dev/null
    rm -rf "$dir/tree"
    mkdir "$dir/tree"
}

# sentences SEED N: N lines of English, which differ by the seed.
sentences() {
    i=0
    while [ $i -lt "$2" ]; do
        i=$((i + 1))
        printf 'This is the sentence number %s of %s, and it is in the text for you to read.\n' "$i" "$1"
    done
}

page() {
    echo '<html><head><title>no</title><style>.x{}</style></head><body><div class="navheader">Next Up</div>'
    echo "<h1>About $1</h1><p>$(sentences "$1" 30)</p><pre>kept    as it &lt;is&gt;</pre>"
    echo '<script>bad()</script><div class="footer">Footer <div>inside</div> text</div></body></html>'
}

mkdir "$dir/tree/doc"
page one >"$dir/tree/doc/a.html"
page two | gzip >"$dir/tree/doc/b.html.gz"
page two >"$dir/tree/doc/c.html"
sentences other 40 >"$dir/tree/doc/d.txt"
package pages

mkdir "$dir/tree/man"
{
    printf '.TH TRY 1 today\n.SH NAME\ntry \\- a \\fBthing\\fR\n.SH DESCRIPTION\n'
    sentences man 30
} >"$dir/tree/man/try.1"
package manpage

mkdir "$dir/tree/src"
{
    printf '/* Copyright somebody.\n * All rights reserved. */\n'
    i=0
    while [ $i -lt 60 ]; do
        i=$((i + 1))
        printf 'int function_%s(int argument)\n{\n    return argument + another(argument);\n}\n\n' "$i"
    done
} >"$dir/tree/src/a.c"
package source

mkdir "$dir/tree/txt"
sentences fine 60 >"$dir/tree/txt/fine.txt"
seq 1 2000 >"$dir/tree/txt/table.txt"
i=0
while [ $i -lt 60 ]; do
    i=$((i + 1))
    echo "Dies hier sind Zeilen einer anderen Sprache, und zwar mit der Nummer $i von einigen."
done >"$dir/tree/txt/german.txt"
head -c 4000 /dev/zero | tr '\0' '\1' >"$dir/tree/txt/binary.txt"
package texts

cat >"$dir/list" <<'END'
# a comment
guides pages 1 1000 html */doc/*.html*
man manpage 1 1000 man */man/*
code source 1 1000 code */src/*.c
prose texts 1 1000 text */txt/fine.txt
manuals texts 1 1000 text */txt/[a-eg-z]*.txt
END
extract() {
    python3 train/data/extract.py "$dir/list" "$dir/deb" "$1" 2>"$dir/log" || fail "extract.py: $(cat "$dir/log")"
}
extract "$dir/a"
extract "$dir/b"
diff -r "$dir/a" "$dir/b" || fail "two runs over the same packages differ"

all() {
    find "$dir/a" -type f -name "$1-*.txt" -exec cat {} +
}
# is PATTERN in TEXT-OF PACKAGE N times?
expect() {
    n=$(all "$1" | grep -c -e "$3" || true)
    [ "$n" -eq "$2" ] || fail "$1: found '$3' in $n lines, expected $2; it is: $(all "$1" | head -c 600)"
}
expect pages 1 'About one'
expect pages 2 'About two' # the second is nothing but its heading
expect pages 3 '^kept    as it <is>$'
expect pages 0 'Next Up\|bad()\|Footer\|inside\|\.x{}\|sentence number 1 of other'
[ "$(all pages | tr -s ' \n' '\n\n' | grep -c '^sentence$')" -eq 60 ] || fail "pages lack sentences, or repeat them"
expect manpage 1 'try - a thing'
expect manpage 0 'TRY(1)'
expect source 60 'return argument'
expect source 0 'Copyright'
expect texts 60 'of fine'
expect texts 0 'Sprache\|^1999$'

# --- recall -------------------------------------------------------------------------------------------

# Text enough to hide things in.
for part in train heldout; do
    mkdir -p "$dir/$part/prose"
    for i in 1 2 3; do
        sentences "$part$i" 200 | sed 's/$/\n/' >"$dir/$part/prose/$i.txt"
    done
    mkdir -p "$dir/again/$part"
    cp -r "$dir/$part/prose" "$dir/again/$part"
done
python3 train/data/recall.py "$dir" 250000 2>"$dir/log" || fail "recall.py: $(cat "$dir/log")"
python3 train/data/recall.py "$dir/again" 250000 2>/dev/null
for part in train heldout; do
    diff -r "$dir/$part" "$dir/again/$part" || fail "two runs over the same texts differ"
done
cat >"$dir/check.py" <<'END'
import json, sys

lines = {part: [] for part in ("train", "heldout")}
kinds = "needle json uuid list labels track quote".split()
answers = far = 0
for part in lines:
    for kind in kinds:
        with open(f"{sys.argv[1]}/{part}/recall-{kind}.jsonl") as f:
            got = f.readlines()
        assert got, f"no {kind}"
        lines[part] += got
        for line in got:
            o = json.loads(line)
            if "messages" in o:
                turns = [(m["role"] == "assistant", m["content"]) for m in o["messages"]]
            else:
                turns = [(s["label"], s["text"]) for s in o["segments"]]
            before = ""
            for is_answer, text in turns:
                if is_answer and text != "I have read it.":
                    bare = text.strip()
                    bare = bare[6:-1] if bare.startswith("It is ") and bare not in before else bare
                    found = [before.find(b) for b in bare.rstrip(".").split(", " if kind == "track" else "\n")]
                    flat = " ".join(before.split())
                    assert min(found) >= 0 or kind == "quote" and " ".join(bare.split())[:-1] in flat, (kind, text, before[-300:])
                    answers += 1
                    far += len(before) - min(found) > 1000
                before += text
assert answers > 400 and far > answers / 2, (answers, far)
assert not set(lines["train"]) & set(lines["heldout"])
END
python3 "$dir/check.py" "$dir" || fail "a recall task is wrong"
