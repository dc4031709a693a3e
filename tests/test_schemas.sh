#!/bin/sh
# tests/test_schemas.sh - texts that the grammars of tests/data/schemas.jsonl allow, judged by Python's jsonschema.
# Would catch: a text that a schema's grammar allows and the schema does not; an answer that is not whole at its
# smallest limit. With GISTD_TEST_MODEL a model answers by some of them, too.
set -eu
. tests/support/daemon.sh
python=${PYTHON:-python3}
if ! "$python" -c 'import jsonschema' 2>/dev/null; then
    echo 'Python has no jsonschema here: install tests/requirements.txt'
    exit 77
fi
schemas=tests/data/schemas.jsonl

# judge TEXTS N: N texts of each schema, each with a zero byte behind it.
cat >"$tmp/judge.py" <<'END'
import json, sys
from jsonschema import Draft202012Validator as V
schemas = [json.loads(line) for line in open(sys.argv[1])]
texts = open(sys.argv[2], "rb").read().split(b"\0")[:-1]
n = int(sys.argv[3])
assert len(schemas) >= 50 and len(texts) == n * len(schemas), (len(schemas), len(texts))
distinct = set()
for i, text in enumerate(texts):
    schema = schemas[i // n]
    try:
        value = json.loads(text.decode())
        V(schema, format_checker=V.FORMAT_CHECKER).validate(value)
    except Exception as e:
        sys.exit(f"{json.dumps(schema)}\n{text!r}\n{e}")
    distinct.add(text)
assert len(distinct) > len(texts) / 3, "they are all the same"
END
tool=$BUILD/tests/tool_schema
check 'texts' sh -c "'$tool' $schemas 40 7 >'$tmp/texts'"
check 'all are valid' "$python" "$tmp/judge.py" $schemas "$tmp/texts" 40

# The smallest limit that a daemon takes, from its own words, is enough for an answer.
daemon_start tests/data/tiny_smollm2.gguf
: >"$tmp/answers"
n_least=0
while read -r schema; do
    printf '%s\n' "$schema" >"$tmp/one.json"
    least=1
    if ! "$gistctl" ask --schema "$tmp/one.json" -n 1 -t 1 --seed 1 x >"$tmp/out" 2>"$tmp/err" </dev/null; then
        least=$(sed -n 's/.* needs \([0-9]*\) tokens .*/\1/p' "$tmp/err")
        n_least=$((n_least + 1))
        code "$schema" 0 "$gistctl" ask --schema "$tmp/one.json" -n "${least:-0}" -t 1 --seed 1 x
    fi
    printf '%s\0' "$(cat "$tmp/out")" >>"$tmp/answers"
done <$schemas
daemon_stop
check 'most were refused one token' [ $n_least -gt 40 ]
sed '/distinct) >/d' "$tmp/judge.py" >"$tmp/judge_least.py"
check 'the shortest answers are valid' "$python" "$tmp/judge_least.py" $schemas "$tmp/answers" 1

if [ -n "${GISTD_TEST_MODEL:-}" ]; then
    daemon_start "$GISTD_TEST_MODEL"
    : >"$tmp/answers"
    sed -n "${SCHEMA_LINES:-2p;11p;14p;37p;44p;51p;52p}" $schemas >"$tmp/some.jsonl"
    while read -r schema; do
        printf '%s\n' "$schema" >"$tmp/one.json"
        code "$schema" 0 "$gistctl" ask --schema "$tmp/one.json" -n 400 'Give an example, as short as you can, of JSON.'
        printf '%s\0' "$(cat "$tmp/out")" >>"$tmp/answers"
    done <"$tmp/some.jsonl"
    daemon_stop
    sed 's/assert len(schemas) >= 50 and/assert/; /distinct) >/d' "$tmp/judge.py" >"$tmp/judge_some.py"
    check "the model's answers are valid" "$python" "$tmp/judge_some.py" "$tmp/some.jsonl" "$tmp/answers" 1
fi
done_testing
