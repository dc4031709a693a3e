#!/bin/sh
# tests/test_gistctl_outputs.sh - answers for programs, from the command line. Would catch: an answer that is no JSON of
# its schema, a cut one that passes for a whole one, a refusal that does not say where, log-probabilities that
# do not belong to the answer, continuations whose scores or whose best are another one's. On a model that knows nothing: what is right is the grammar's doing.
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
code 'a limit that is too small' 1 "$gistctl" ask --json --schema "$tmp/person.json" -n 3 -t 1 --seed 1 Say
says 'tokens to be whole; max_tokens is 3'
least=$(sed -n 's/.*needs \([0-9]*\) tokens.*/\1/p' "$tmp/err")
code 'the smallest one' 0 "$gistctl" ask --json --schema "$tmp/person.json" -n "$least" -t 1 --seed 1 Say
check 'the smallest one' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
assert x["reason"] == "end_of_text" and 0 < x["usage"]["generated_tokens"] <= int(sys.argv[2]), x
assert list(json.loads(x["answer"])) == ["name", "age", "likes"], x' "$tmp/out" "$least"
echo 'root ::= "one two three"' >"$tmp/three.gbnf"
code 'a stop text' 1 "$gistctl" ask --json --grammar "$tmp/three.gbnf" --stop never --stop 'two t' --stop two Count
check 'a stop text' json "(j['answer'], j['reason'], j['stop']) == ('one ', 'stop', 'two')" <"$tmp/out"
code 'of several answers' 0 "$gistctl" ask --json --answers 2 --grammar "$tmp/three.gbnf" --stop never --stop 'e t' Count
check 'of several answers' json "[(a['answer'], a['stop']) for a in j['answers']] == [('on', 'e t')] * 2" <"$tmp/out"
code 'none' 0 "$gistctl" ask --json --grammar "$tmp/three.gbnf" --stop never Count
check 'none' json "j['reason'] == 'end_of_text' and 'stop' not in j" <"$tmp/out"
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

# Guesses: the same answer, and what they came to in --json, status and trace.
echo 'root ::= [ab]{60}' >"$tmp/ab.gbnf"
code 'no guesses' 0 "$gistctl" ask --json --grammar "$tmp/ab.gbnf" --draft off Say
cp "$tmp/out" "$tmp/off"
code 'guesses' 0 "$gistctl" ask --json --grammar "$tmp/ab.gbnf" --draft 6 Say
check 'guesses change nothing' python3 -c '
import json, sys
off, on = (json.load(open(x)) for x in sys.argv[1:])
u = on["usage"]
assert off["answer"] == on["answer"] and len(on["answer"]) == 60 and off["reason"] == on["reason"], (off, on)
assert off["usage"]["drafted_tokens"] == 0, off
assert u["drafted_tokens"] >= u["accepted_tokens"] > 0, u' "$tmp/off" "$tmp/out"
code 'status counts guesses' 0 "$gistctl" status
check 'status counts guesses' grep -qE '^drafts +[0-9]+ tokens guessed ahead, [0-9]+ right' "$tmp/out"
code 'trace counts guesses' 0 "$gistctl" trace --json
check 'trace counts guesses' python3 -c '
import json, sys
rows = [x for x in json.load(open(sys.argv[1])) if x["what"] == "generate"]
assert rows[0]["drafted_tokens"] >= rows[0]["accepted_tokens"] > 0 == rows[1]["drafted_tokens"], rows[:2]' "$tmp/out"
for n in 16 on -1 ''; do
    code "--draft '$n'" 2 "$gistctl" ask --draft "$n" Say
    says "--draft needs auto, off or a number from 0 to 15, not '$n'"
done

printf 'Is the sky blue? It is' >"$tmp/sky"
printf ' blue\n\n red\n and so on and on\n' >"$tmp/lines"
code 'continuations' 0 "$gistctl" score --choice ' blue' --choice ' not' "$tmp/sky"
check 'continuations' [ "$(grep -c '  blue$\|  not$' "$tmp/out")" = 2 ]
check 'continuations' [ "$(grep -c '^  [*] ' "$tmp/out")" = 1 ]
code 'continuations --json' 0 "$gistctl" score --json --choice ' blue' --choices "$tmp/lines" "$tmp/sky"
check 'continuations --json' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
c = x["choices"]
assert [y["text"] for y in c] == [" blue", " blue", " red", " and so on and on"], x
for y in c:
    assert len(y["tokens"]) == len(y["logprobs"]) > 0 and max(y["logprobs"]) < 0, y
    assert abs(sum(y["logprobs"]) - y["sum"]) < 1e-4 and abs(y["sum"] / len(y["tokens"]) - y["mean"]) < 1e-9, y
assert c[0] == c[1] and x["best"] == max(range(4), key=lambda i: c[i]["sum"]), x
assert x["best_mean"] == max(range(4), key=lambda i: c[i]["mean"]) and x["usage"]["prompt_tokens"] > 0, x' "$tmp/out"
code 'answers to a message' 0 "$gistctl" score --chat --choice yes --choice no "$tmp/sky"
code 'continuations of nothing' 1 "$gistctl" score --choice x /dev/null
says 'no text that the choices could follow'
code 'no line' 1 "$gistctl" score --choices /dev/null "$tmp/sky"
says '/dev/null has no line'
code 'an empty one' 1 "$gistctl" score --choice x --choice '' "$tmp/sky"
says 'continuation 2 of 2 is empty'
code 'a window and continuations' 2 "$gistctl" score --window 4 --choice x "$tmp/sky"
says 'exclude each other'
printf 'one text\n\nanother one\n' >"$tmp/two"
code 'embeddings' 0 "$gistctl" embed --lines "$tmp/two"
check 'embeddings' [ "$(awk '{ print NF }' "$tmp/out" | tr '\n' ' ')" = '96 96 ' ]
cp "$tmp/out" "$tmp/rows"
code 'embeddings --json' 0 sh -c "printf 'another one' | '$gistctl' embed --json"
check 'embeddings --json' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
row = [float(w) for w in open(sys.argv[2]).read().split("\n")[1].split()]
e = x["embeddings"]
assert len(e) == 1 and e[0]["tokens"] == x["usage"]["prompt_tokens"] > 0, x
assert max(abs(a - b) for a, b in zip(e[0]["embedding"], row)) < 1e-4, (x, row)' "$tmp/out" "$tmp/rows"
code 'of nothing' 1 "$gistctl" embed /dev/null
says 'text 1 of 1 is empty'
code 'of no line' 1 "$gistctl" embed --lines /dev/null
says 'no text to embed'
code 'another pooling' 2 "$gistctl" embed --pooling max --text x
says 'mean or last'
code 'several answers' 0 "$gistctl" ask --json --answers 3 -t 1 --seed 5 --grammar "$tmp/words.gbnf" Say
cp "$tmp/out" "$tmp/three"
code 'the second alone' 0 "$gistctl" ask -t 1 --seed 6 --grammar "$tmp/words.gbnf" Say
check 'several answers' python3 -c '
import json, sys
x = json.load(open(sys.argv[1]))
a = x["answers"]
assert len(a) == 3 and [y["seed"] for y in a] == [5, 6, 7] and len({y["answer"] for y in a}) > 1, x
assert all(y["reason"] == "end_of_text" and y["tokens"] > 0 for y in a), x
assert x["usage"]["generated_tokens"] == sum(y["tokens"] for y in a), x
assert a[1]["answer"] == open(sys.argv[2]).read().strip(), x' "$tmp/three" "$tmp/out"
code 'several answers as text' 0 "$gistctl" ask --answers 2 -n 4 Say
check 'several answers as text' [ "$(grep -c '^--- answer [12] of 2$' "$tmp/out")" = 2 ]
says '2 of 2 answers were cut off'
code 'too many answers' 2 "$gistctl" ask --answers 65 Say
says 'from 1 to 64'
code '--chat alone' 2 "$gistctl" score --chat "$tmp/sky"
says 'is for --choice'
daemon_stop
done_testing
