#!/bin/sh
# tests/test_gist_eval.sh - gist-eval against a real daemon, with a model that knows nothing. Would catch: an item
# that is measured twice or lost when a run is killed and goes on, tables that depend on where it was killed, a
# question at a segment's end that is not there, a mistake without a sentence, a page that needs another file.
set -eu
. tests/support/daemon.sh
eval=$BUILD/gist-eval
file=$tmp/out.jsonl

# --- without a daemon ---------------------------------------------------------------------------
code 'help' 0 "$eval" --help
check 'help names the commands' grep -q '^  recall ' "$tmp/out"
code 'version' 0 "$eval" --version
code 'no command' 2 "$eval"
says 'gist-eval --help'
code 'an unknown command' 2 "$eval" nonsense
says "unknown command 'nonsense'; known: recall, probes, ppl, sets, report"
for c in recall probes ppl sets report; do
    code "$c --help" 0 "$eval" $c --help
    check "$c --help" grep -q "^usage: gist-eval $c" "$tmp/out"
done
code 'no daemon' 3 "$eval" recall
says "$GISTD_SOCKET"
code 'an unknown option' 2 "$eval" recall --bogus 1
says 'bogus'
code 'an unknown task' 2 "$eval" recall --tasks 'needle haystack'
says "unknown task 'haystack'; known: needle"
code 'an unknown probe' 2 "$eval" probes --probes psyche
says "unknown probe 'psyche'"
code 'an unknown compressor' 2 "$eval" ppl --compressors magic
says "unknown compressor 'magic'"
code 'nothing to report' 2 "$eval" report
says 'at least one results file'
code 'a report of nothing' 1 "$eval" report "$tmp/nothing"
says "$tmp/nothing"
echo 'my notes' >"$tmp/notes"
code 'a report of notes' 1 "$eval" report "$tmp/notes"
says 'not a results file'

# --- recall, killed and taken up again ------------------------------------------------------------
daemon_start tests/data/tiny_smollm2.gguf
cat >"$tmp/options" <<'END'
lengths = 1500
segments = 64
items = 4
asks = 2
ratios = 4
compressors = select none
keep-tail = 0 32
hydrate = off
tasks = needle multikey json
END
recall() { "$eval" recall --config "$tmp/options" "$@"; }
lines() { sed -n '/"kind"/p' "$1" 2>/dev/null | wc -l; }
wait_lines() { # FILE N PID
    while [ "$(lines "$1")" -lt "$2" ] && kill -0 "$3" 2>/dev/null; do sleep 0.02; done
}
# What does not depend on the clock.
rest() {
    python3 -c '
import json, sys
keep = lambda j: {k: v for k, v in j.items() if not k.endswith("_ns")}
lines = [json.dumps(keep(json.loads(l)), sort_keys=True) for l in open(sys.argv[1])]
assert len(set(lines)) == len(lines), "a line twice"
print("\n".join(sorted(lines)))' "$1"
}
code 'a run' 0 recall --out "$tmp/whole.jsonl"
check 'each cell of each question' [ "$(lines "$tmp/whole.jsonl")" -eq $((3 * 4 * 5)) ]
sed 's/| [^|]* | [^|]* | [0-9]* |$//' "$tmp/out" >"$tmp/whole.md"
check 'a row of full attention' grep -q '^| full | ' "$tmp/whole.md"
check 'a row with a tail' grep -q '^| select 4, segment 64, tail 32 | ' "$tmp/whole.md"

# Killed in the middle of a line: by the kernel, when the file reaches 4,096 bytes.
rc=0
(ulimit -c 0 && ulimit -f 8 && exec "$eval" recall --config "$tmp/options" --out "$file") >/dev/null 2>&1 || rc=$?
check 'the run was killed' [ $rc -eq 153 ]
check 'in the middle' [ "$(lines "$file")" -gt 4 ]
check 'of a line' sh -c "[ -n \"\$(tail -c 1 '$file')\" ]"
"$eval" recall --config "$tmp/options" --items 1000 --out "$tmp/term.jsonl" >"$tmp/out" 2>"$tmp/err" &
run=$!
wait_lines "$tmp/term.jsonl" 7 $run
kill -TERM $run 2>/dev/null || true
rc=0
wait $run || rc=$?
check 'SIGTERM ends a run with 130' [ $rc -eq 130 ]
check 'and says how to go on' grep -q "the same command continues from $tmp/term.jsonl" "$tmp/err"
check 'with a table so far' grep -q '^| full | ' "$tmp/out"
code 'the rest' 0 recall --out "$file"
sed 's/| [^|]* | [^|]* | [0-9]* |$//' "$tmp/out" >"$tmp/parts.md"
check 'the same table' cmp "$tmp/whole.md" "$tmp/parts.md"
rest "$tmp/whole.jsonl" >"$tmp/whole.txt"
rest "$file" >"$tmp/parts.txt"
check 'the same items, none twice' cmp "$tmp/whole.txt" "$tmp/parts.txt"
cp "$file" "$tmp/before"
code 'nothing is left to do' 0 recall --out "$file"
check 'nothing is added' cmp "$file" "$tmp/before"
code 'more questions' 0 recall --out "$file" --items 6
check 'only these are asked' [ "$(lines "$file")" -eq $((3 * 6 * 5)) ]
# On a terminal a bar with the time left is written over.
check 'a bar with the time left' sh -c "python3 tests/support/on_terminal.py NEVER x '$eval' recall --config '$tmp/options' \
    --seed 2 >'$tmp/terminal'"
check 'is drawn' grep -q '^.*\[=*>* *\]  [0-9]* %  .* left' "$tmp/terminal"
code 'a text that does not fit' 0 recall --out "$tmp/long.jsonl" --lengths 4000 --items 1 --tasks needle
check 'is no right answer and no error' grep -q '^| full | too long |' "$tmp/out"
code 'automatic memory' 0 recall --compressors auto --hydrate 'off auto' --lengths 4000 --items 1 --tasks needle
for how in 'hydrate off' 'hydrate auto'; do
    check "takes it, $how" grep -q "^| auto, $how | [0-9]* (" "$tmp/out"
done
code 'a length that is too short' 1 recall --lengths 256
says 'does not fit into 256 tokens'
code 'a folder to write into' 1 recall --out "$tmp"
says "$tmp: "
code 'a file of ones own' 1 recall --out "$tmp/notes"
check 'stays as it is' [ "$(cat "$tmp/notes")" = 'my notes' ]

# --- probes and perplexity ------------------------------------------------------------------------
probes() {
    "$eval" probes --out "$tmp/probes.jsonl" --lengths 1500 --items 2 --segments 256 --ratios 4 --window 512 \
        --tokens 1100 --compressors 'none select' --hydrate off "$@"
}
code 'probes' 0 probes
for part in 'Lost along the way' 'Lost if surprise' 'Lost by the boundary' 'Perplexity'; do
    check "$part" grep -q "^## $part" "$tmp/out"
done
check 'prompts end where they are told to' python3 -c '
import json, sys
items = [j for j in map(json.loads, open(sys.argv[1])) if j.get("kind") == "boundary"]
assert len(items) == 2 * 4 * 3, len(items)
for j in items:
    assert j["prompt_tokens"] % 256 == j.get("offset", 0), j' "$tmp/probes.jsonl"
printf 'Every one of these words is read.\n%.0s' $(seq 60) >"$tmp/text"
code 'ppl' 0 "$eval" ppl --text "$tmp/text" --window 512 --segments 128 --compressors none
check 'the text is named' grep -q '^### text' "$tmp/out"
check 'full attention closes the gap' grep -q '^| full, segment 128 | [0-9.]* | [0-9.]* | 100.0 |' "$tmp/out"
# What counts is behind the first segment of each window, and is what score says of the same tokens.
"$gistctl" score --json --window 512 "$tmp/text" >"$tmp/score.json"
"$eval" ppl --text "$tmp/text" --window 512 --segments 128 --compressors none --out "$tmp/ppl.jsonl" >/dev/null 2>&1
check 'as gistctl score has it' python3 -c '
import json, sys
p = json.load(open(sys.argv[1]))["logprobs"]
items = [j for j in map(json.loads, open(sys.argv[2])) if j.get("compressor") == "full"]
assert items
for j in items:
    at = 512 * j.get("index", 0)
    want = -sum(p[at + 128:at + 512]) / 384
    assert abs(j["nll"] - want) < 1e-3 and j["n_scored"] == 384, (j, want)' "$tmp/score.json" "$tmp/ppl.jsonl"
code 'a text that is too short' 1 "$eval" ppl --text "$tmp/notes" --window 512
says 'lower --window'
code 'a text that is not there' 1 "$eval" ppl --text "$tmp/nothing"
says "$tmp/nothing"
printf '\377\376 no text, but long enough to be looked at' >"$tmp/bytes"
code 'no text' 1 "$eval" ppl --text "$tmp/bytes"
says 'not UTF-8'

# --- public sets ----------------------------------------------------------------------------------
mkdir -p "$tmp/sets/ruler/niah_single_1" "$tmp/empty"
printf '{"input":"A text.\\nIt is long.\\nWhat is it?","outputs":["long","text"]}\n%.0s' 1 2 3 >"$tmp/sets/ruler/niah_single_1/validation.jsonl"
echo '{"context":"A text.","input":"What?","answers":["a text"],"dataset":"qasper"}' >"$tmp/sets/qasper.jsonl"
code 'sets' 0 "$eval" sets --data "$tmp/sets" --items 2 --hydrate off --out "$tmp/sets.jsonl"
check 'a column a file' grep -q '^| old context | qasper | ruler/niah_single_1 | of full, % | n |' "$tmp/out"
check 'so many lines of each' grep -q '^| full | .* | 3 |$' "$tmp/out"
code 'sets again' 0 "$eval" sets --data "$tmp/sets" --items 2 --hydrate off --out "$tmp/sets.jsonl"
check 'nothing twice' [ "$(lines "$tmp/sets.jsonl")" -eq 9 ]
code 'no folder' 2 "$eval" sets
says 'needs --data FOLDER'
code 'a folder without sets' 2 "$eval" sets --data "$tmp/empty"
says 'no .jsonl file'
code 'a folder that is not there' 2 "$eval" sets --data "$tmp/nowhere"
says "$tmp/nowhere"
cp "$tmp/notes" "$tmp/empty/notes.jsonl"
code 'a line of no set' 1 "$eval" sets --data "$tmp/empty"
says 'notes.jsonl, line 1: not a line of RULER'

# --- reports --------------------------------------------------------------------------------------
code 'a report of two files' 0 "$eval" report "$file" "$tmp/probes.jsonl"
check 'has both' [ "$(grep -c '^Model: ' "$tmp/out")" -eq 2 ]
code 'a page' 0 "$eval" report --html "$tmp/page.html" "$file" "$tmp/probes.jsonl"
check 'is HTML with plots' grep -q '<svg' "$tmp/page.html"
check 'and needs no other file' sh -c "! grep -q -e 'src=' -e 'href=' '$tmp/page.html'"
code 'a page that cannot be written' 1 "$eval" report --html /nonexistent/page.html "$file"
says '/nonexistent/page.html'

mkdir "$tmp/plots"
code 'Markdown with plots' 0 "$eval" report --plots "$tmp/plots" "$file" "$tmp/probes.jsonl"
grep -o '^!\[.*\](.*\.svg)$' "$tmp/out" | sed 's/.*(\(.*\))/\1/' >"$tmp/shown"
check 'shows some' [ -s "$tmp/shown" ]
check 'and just those that are there' sh -c "ls '$tmp'/plots/* | sort | cmp - '$tmp/shown'"
check 'each is an SVG to its end' sh -c "xargs -d '\n' tail -qn 1 <'$tmp/shown' | sort -u | grep -qx '</svg>'"
check 'whose zero has no sign' sh -c "grep -q '>0</text>' '$tmp'/plots/* && ! grep -q '>-0</text>' '$tmp'/plots/*"
code 'no folder for plots' 1 "$eval" report --plots "$tmp/nowhere" "$file" "$tmp/probes.jsonl"
says "the plots in $tmp/nowhere: No such file"
code 'plots and a page' 2 "$eval" report --plots "$tmp/plots" --html "$tmp/page.html" "$file"
says 'leave --plots out'

# --- Tab completion -------------------------------------------------------------------------------
completes() {
    # shellcheck disable=SC2016
    PATH=$BUILD:$PATH bash -c '. eval/gist-eval.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gist_eval; echo "${COMPREPLY[*]}"' - "$@"
}
check 'Tab completes commands' sh -c "[ \"$(completes gist-eval re)\" = 'recall report' ]"
check 'options' sh -c "[ \"$(completes gist-eval ppl --te)\" = '--text' ]"
check 'compressors' sh -c "[ \"$(completes gist-eval recall --compressors sel)\" = 'select select-reread' ]"

daemon_stop
daemon_start tests/data/tiny_qwen2.gguf
code 'results of another model' 1 recall --out "$file"
says 'name another file with --out'
daemon_stop
done_testing
