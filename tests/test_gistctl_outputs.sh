#!/bin/sh
# tests/test_gistctl_outputs.sh - answers for programs, from the command line. Would catch: an answer that is no JSON of
# its schema, a cut one that passes for a whole one, a refusal that does not say where, log-probabilities that
# do not belong to the answer. On a model that knows nothing: what is right is the grammar's doing.
set -eu
. tests/support/daemon.sh

cat >"$tmp/person.json" <<'END'
{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
 "likes": {"type": "array", "items": {"enum": ["tea", "rain"]}, "maxItems": 2}}, "required": ["name", "age", "likes"]}
END
printf 'root ::= word (" " word){2}\nword ::= "to" | "be" | "or"\n' >"$tmp/words.gbnf"
printf '{"type": "object", "properties": {"a": {"uniqueItems": true}}}' >"$tmp/unsupported.json"
printf 'root ::= "a\n' >"$tmp/broken.gbnf"

code 'two at once' 2 "$gistctl" ask --schema "$tmp/person.json" --json-object x
says 'exclude each other'
code 'a schema that is not there' 1 "$gistctl" ask --schema "$tmp/nothing" x
says "$tmp/nothing"
code 'log-probabilities without --json' 2 "$gistctl" ask --logprobs 3 x
says 'without --json'
code 'too many of them' 2 "$gistctl" ask --json --logprobs 21 x
says 'from 0 to 20'

daemon_start tests/data/tiny_smollm2.gguf
code 'a schema' 0 "$gistctl" ask --schema "$tmp/person.json" -t 1 --seed 3 Who
check 'a schema' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
assert list(x) == ["name", "age", "likes"] and len(x["name"]) <= 20 and 0 <= x["age"] <= 150, x
assert len(x["likes"]) <= 2 and set(x["likes"]) <= {"tea", "rain"}, x' "$tmp/out"
code 'a grammar' 0 "$gistctl" ask --grammar "$tmp/words.gbnf" -t 1 --seed 3 Say
check 'a grammar' grep -qxE '(to|be|or)( (to|be|or)){2}' "$tmp/out"
code 'an answer that was cut' 1 "$gistctl" ask --json --schema "$tmp/person.json" -n 3 -t 1 --seed 1 Say
check 'an answer that was cut' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
assert x["reason"] == "length" and x["answer"].startswith("{"), x' "$tmp/out"
says 'cut off after 3 tokens'
code 'a chat' 0 sh -c "printf 'Say\nAgain\n' | '$gistctl' chat --grammar '$tmp/words.gbnf'"
check 'a chat' [ "$(grep -cxE '(to|be|or)( (to|be|or)){2}' "$tmp/out")" = 2 ]
code 'what is not supported' 1 "$gistctl" ask --schema "$tmp/unsupported.json" x
says "the schema's /properties/a/uniqueItems"
code 'what is no grammar' 1 "$gistctl" ask --grammar "$tmp/broken.gbnf" x
says 'line 1, column 12'
code 'log-probabilities' 0 "$gistctl" ask --json --logprobs 2 --grammar "$tmp/words.gbnf" Say
check 'log-probabilities' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
l = x["logprobs"]
assert len(l) == x["usage"]["generated_tokens"] > 0 and x["reason"] == "end_of_text", x
for t in l:
    assert t["logprob"] < 0 and len(t["top"]) == 2, t
    assert t["top"][0]["logprob"] >= t["top"][1]["logprob"] and t["top"][0]["logprob"] >= t["logprob"], t' "$tmp/out"
daemon_stop
done_testing
