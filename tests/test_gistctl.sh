#!/bin/sh
# tests/test_gistctl.sh - gistctl against a real daemon, as scripts and people use it. Would catch: a wrong
# exit code, a sentence that does not say what is wrong, JSON that does not parse, text that does not come
# back from its tokens, standard input that is lost, Ctrl-C that ends late or ends the conversation.
set -eu
. tests/support/daemon.sh

# --- without a daemon ---------------------------------------------------------------------------
code 'no daemon' 3 "$gistctl" status
says "$GISTD_SOCKET"
code 'no daemon, --socket' 3 "$gistctl" status --socket "$tmp/other.sock"
says "$tmp/other.sock"
code 'no daemon, --socket before the command' 3 "$gistctl" --socket "$tmp/third.sock" ask Why
says "$tmp/third.sock"
: >"$tmp/file.sock"
code 'a file that is no socket' 3 "$gistctl" status --socket "$tmp/file.sock"

check 'a daemon that loads its model' timeout 60 python3 tests/support/loading.py "$gistctl" "$tmp/loading.sock"

code 'no command' 2 "$gistctl"
code 'an unknown command' 2 "$gistctl" nonsense
says "unknown command 'nonsense'"
code 'an unknown option' 2 "$gistctl" ask --bogus
says 'no option --bogus'
code 'an unknown letter' 2 "$gistctl" score -q
says 'no option -q'
code 'an option without its value' 2 "$gistctl" ask --top-k
says '--top-k needs a value'
code 'a ratio that full has no use for' 2 "$gistctl" ask --compressor full --ratio 8 x
says '--ratio has no effect with --compressor full'
code 'what full has nothing to bring back' 2 "$gistctl" ask --compressor full --hydrate auto x
says '--hydrate has no effect with --compressor full'
for n in some 3x -1 4294967295 ''; do
    code "no number of segments: '$n'" 2 "$gistctl" ask --compressor none --hydrate "$n" x
    says 'neither auto nor off'
done
code 'a number out of range' 2 "$gistctl" ask --temperature -1 x
says 'from 0 to 100'
code 'no number' 2 "$gistctl" ask --max-tokens many x
says "not 'many'"
code 'too many operands' 2 "$gistctl" score a b
code 'no question' 2 "$gistctl" ask
code 'a file that is not there' 1 "$gistctl" score "$tmp/nothing"
says "$tmp/nothing"
printf 'a\0b' >"$tmp/binary"
code 'a file that is no text' 1 "$gistctl" ask -f "$tmp/binary" What
says 'NUL'
code 'no token id' 2 "$gistctl" detokenize 12 x7
says "'x7'"

code 'version' 0 "$gistctl" --version
check 'version' grep -q '^gistctl [0-9]' "$tmp/out"
for c in ask chat doc session score embed tokenize detokenize status bench-ring "cache ls" "cache df" "cache verify" "cache prune" "cache forget"; do
    code "$c --help" 0 "$gistctl" $c --help
    check "$c --help" grep -q "^usage: gistctl.* $c" "$tmp/out"
done

# --- with one, and a model that knows nothing -----------------------------------------------------
daemon_start tests/data/tiny_smollm2.gguf
code 'segments that are no multiple of a page' 1 "$gistctl" ask --compressor fine-kv --segment 500 x
says 'a multiple of 16'
code 'a tail as long as the session' 1 "$gistctl" ask --compressor fine-kv --segment 64 --keep-tail 5000 x
says 'a tail of 5000 tokens is too long'
code 'public and private' 1 "$gistctl" ask --public --private x
says 'cannot be both public and private'
code 'a window that does not fit' 1 "$gistctl" score --compressor fine-kv --fixed-ratio --window 100000 README.md
says 'the budget is'

code 'status' 0 "$gistctl" status
check 'status names the model' grep -q 'tiny random smollm2' "$tmp/out"
code 'status --json' 0 "$gistctl" status --json
check 'status --json' json "j['pages'] == j['pages_free'] + j['pages_cached'] > 0 and j['sessions'] == [] and \
    j['clients'][0]['name'] == 'gistctl' and j['weights_bytes'] > 0" <"$tmp/out"

printf 'Zwölf "quoted" \\ words\n\ttab, \033 escape, 漢字 🦜 <|im_end|>\n' >"$tmp/text"
code 'tokenize' 0 "$gistctl" tokenize "$tmp/text"
cp "$tmp/out" "$tmp/ids"
code 'tokenize from stdin' 0 sh -c "'$gistctl' tokenize <'$tmp/text'"
check 'the same from stdin' cmp "$tmp/out" "$tmp/ids"
code 'tokenize -' 0 sh -c "'$gistctl' tokenize - <'$tmp/text'"
check 'the same from -' cmp "$tmp/out" "$tmp/ids"
code 'detokenize' 0 sh -c "'$gistctl' detokenize <'$tmp/ids'"
check 'the very text back' cmp "$tmp/out" "$tmp/text"
code 'tokenize --json' 0 "$gistctl" tokenize --json "$tmp/text"
check 'the same ids' sh -c "tr -d ',' <'$tmp/ids' | python3 -c '
import json, sys
assert json.load(open(sys.argv[1]))[\"tokens\"] == [int(i) for i in sys.stdin.read().split()]' '$tmp/out'"
code 'special tokens are fewer' 0 "$gistctl" tokenize --special "$tmp/text"
check 'special tokens are fewer' [ "$(wc -w <"$tmp/out")" -lt "$(wc -w <"$tmp/ids")" ]
# shellcheck disable=SC2046
code 'detokenize --json' 0 "$gistctl" detokenize --json $(cat "$tmp/ids")
check 'detokenize --json' json "j['text'] == open('$tmp/text').read()" <"$tmp/out"
printf '\377\376' >"$tmp/bytes"
code 'bytes that are no UTF-8' 0 sh -c "'$gistctl' tokenize '$tmp/bytes' | '$gistctl' detokenize"
check 'come back as U+FFFD' [ "$(cat "$tmp/out")" = "$(printf '\357\277\275\357\277\275')" ]
code 'a token id that the model lacks' 1 "$gistctl" detokenize 4000000000

code 'score' 0 "$gistctl" score tests/data/score.txt
check 'score prints ppl' grep -q '^ppl  *[0-9]' "$tmp/out"
code 'score --json' 0 "$gistctl" score --json --window 64 tests/data/score.txt
check 'score --json' json "len(j['tokens']) == len(j['logprobs']) and \
    all((p is None) == (i % 64 == 0) for i, p in enumerate(j['logprobs'])) and \
    abs(j['nll'] + sum(p for p in j['logprobs'] if p is not None) / \
        sum(p is not None for p in j['logprobs'])) < 1e-6 and \
    abs(j['ppl'] - math.exp(j['nll'])) < 1e-6 * j['ppl'] and 'computed_tokens' in j['usage']" <"$tmp/out"
code 'score of nothing' 0 "$gistctl" score --json /dev/null
check 'score of nothing' json "j['tokens'] == [] and j['nll'] is None" <"$tmp/out"
code 'a window above the context' 1 "$gistctl" score --window 100000 tests/data/score.txt

code 'ask' 0 "$gistctl" ask -n 12 --stats Why
check 'ask ends with a newline' [ "$(tail -c 1 "$tmp/out" | od -An -c | tr -d ' ')" = '\n' ]
cp "$tmp/out" "$tmp/first"
says 'tokens/s'
code 'ask again' 0 "$gistctl" ask -n 12 Why
check 'greedy answers are the same' cmp "$tmp/out" "$tmp/first"
code 'ask, sampled from the likeliest' 0 "$gistctl" ask -n 12 -t 50 --top-p 0 --seed 7 Why
check 'a top-p of 0 leaves the likeliest alone' cmp "$tmp/out" "$tmp/first"
code 'ask, sampled from all' 0 "$gistctl" ask -n 12 -t 50 --seed 7 Why
check 'and no top-p leaves all' sh -c "! cmp -s '$tmp/out' '$tmp/first'"
code 'a penalty of 0' 1 "$gistctl" ask --repeat-penalty 0 Why
says 'repeat_penalty is 0'
code 'ask, sampled' 0 "$gistctl" ask -n 12 -t 1 --seed 7 Why
cp "$tmp/out" "$tmp/first"
code 'ask, sampled again' 0 "$gistctl" ask -n 12 -t 1 --seed 7 Why
check 'the same seed, the same answer' cmp "$tmp/out" "$tmp/first"
code 'ask from stdin alone' 0 sh -c "echo Why | '$gistctl' ask -n 4 --stats"
code 'ask with - ' 0 sh -c "echo 'Some text' | '$gistctl' ask -n 4 - Why"
seq 1 400 >"$tmp/numbers"
# What was read is the template's and the question's few tokens, with the file hundreds.
code 'ask --file' 0 "$gistctl" ask -n 1 --stats -f "$tmp/numbers" Why
check 'the file was read' sh -c "[ \$(sed -n 's/.*read \([0-9]*\) tokens.*/\1/p' '$tmp/err') -gt 400 ]"
code 'ask --no-stdin' 0 sh -c "'$gistctl' ask -n 1 --stats --no-stdin Why <'$tmp/numbers'"
check 'stdin was left alone' sh -c "[ \$(sed -n 's/.*read \([0-9]*\) tokens.*/\1/p' '$tmp/err') -lt 400 ]"
seq 1 400000 >"$tmp/numbers"
code 'a prompt of megabytes' 1 "$gistctl" ask -f "$tmp/numbers" Why
says 'context_length_exceeded'
code 'a text of megabytes' 0 sh -c "'$gistctl' tokenize '$tmp/numbers' | '$gistctl' detokenize"
check 'comes back' cmp "$tmp/out" "$tmp/numbers"
seq 1 4000 >"$tmp/numbers"
# A book of nine windows just works; who wants all of it as it is hears what would help.
code 'a prompt above the context' 0 "$gistctl" ask -n 4 --json -f "$tmp/numbers" Why
check 'what the answer stands on' json "j['reason'] in ('length', 'end_of_text') and \
    j['usage']['prompt_tokens'] > 16384 and j['usage']['gist_tokens'] > 0 and \
    j['usage']['raw_tokens'] + j['usage']['gist_tokens'] == j['usage']['prompt_tokens'] and \
    sum(j['usage']['at_ratio'].values()) == j['usage']['gist_tokens'] and min(map(int, j['usage']['at_ratio'])) == 4 and \
    j['usage']['raw_tokens'] >= 128 and j['usage']['generated_tokens'] > 0" <"$tmp/out"
cp "$tmp/out" "$tmp/first"
code 'the same again' 0 "$gistctl" ask -n 4 --json -f "$tmp/numbers" Why
check 'is not read again' json "j['usage']['computed_tokens'] < 1024 and \
    j['usage']['shared_tokens'] + j['usage']['restored_tokens'] > 16384 and \
    j['answer'] == json.load(open('$tmp/first'))['answer']" <"$tmp/out"
code 'with times' 0 "$gistctl" ask -n 4 --stats -f "$tmp/numbers" Why
says 'from disk'
says ' raw tokens, '
says ' at 4, '
# What the question points to comes back, without an option; who does not want it says so.
code 'a question about numbers' 0 "$gistctl" ask -n 4 --json -f "$tmp/numbers" 'What stands behind 2234 2235 2236?'
check 'brings some back' json "j['usage']['hydrated_tokens'] > 0 and j['usage']['missed_tokens'] == 0" <"$tmp/out"
code 'with times' 0 "$gistctl" ask -n 4 --stats -f "$tmp/numbers" 'What stands behind 2234 2235 2236?'
says 'brought back for the question: '
code 'nothing brought back' 0 "$gistctl" ask -n 4 --json --hydrate off -f "$tmp/numbers" 'What stands behind 2234 2235 2236?'
check 'when it is off' json "j['usage']['hydrated_tokens'] == 0" <"$tmp/out"
code 'from standard input' 0 sh -c "'$gistctl' ask -n 4 Why <'$tmp/numbers'"
code 'a prompt that is to stay as it is' 1 "$gistctl" ask --memory full -f "$tmp/numbers" Why
says '2048'
says '--memory auto'
code 'a budget that is too small' 1 "$gistctl" ask --budget 256 -f "$tmp/numbers" Why
says '--budget'
code 'a smaller budget' 0 "$gistctl" ask -n 4 --budget 1024 --stats -f "$tmp/numbers" Why
code 'a prompt of few words' 0 "$gistctl" ask -n 4 --json Why
check 'is all there as it is' json "j['usage']['gist_tokens'] == 0 and j['usage']['at_ratio'] == {}" <"$tmp/out"
code 'score has no such default' 1 "$gistctl" score --window 4000 "$tmp/numbers"
says '--memory auto'
code 'but takes it' 0 "$gistctl" score --window 4000 --memory auto tests/data/score.txt
code 'an unknown mode' 2 "$gistctl" ask --memory most Why
says "unknown memory mode 'most'"
code 'full, and a compressor' 2 "$gistctl" ask --memory full --compressor select Why
says '--memory full keeps everything'
code 'full, and a ratio' 2 "$gistctl" ask --memory full --ratio 8 Why
says '--ratio has no effect with --memory full'

code 'chat from a pipe' 0 sh -c "printf 'Why\n\nHow \\\\\nmany\n' | '$gistctl' chat -n 4 --stats"
check 'two turns, two answers' [ "$(grep -c 'tokens/s' "$tmp/err")" -eq 2 ]
# --- documents ------------------------------------------------------------------------------------
code 'doc without a command' 2 "$gistctl" doc
code 'doc with an unknown one' 2 "$gistctl" doc nonsense
says "doc has no command 'nonsense'"
code 'doc add --help' 0 "$gistctl" doc add --help
check 'doc add --help' grep -q '^usage: gistctl doc add' "$tmp/out"
code 'an unknown option of doc add' 2 "$gistctl" doc add --bogus book
says 'doc add has no option --bogus'
code 'doc add without a name' 2 "$gistctl" doc add -f "$tmp/text"
code 'doc rm without a name' 2 "$gistctl" doc rm
says 'doc ls'
seq 1 400 >"$tmp/book"
code 'doc add' 0 "$gistctl" doc add book --pin -f "$tmp/book"
check 'says how many were read' grep -q 'tokens, [0-9]* of them read now' "$tmp/out"
code 'a document from stdin' 0 sh -c "'$gistctl' doc add --plain 'a second book' <'$tmp/text'"
code 'doc add --json' 0 "$gistctl" doc add third --json -f "$tmp/text"
check 'doc add --json' json "j['name'] == 'third' and j['usage']['prompt_tokens'] > 0" <"$tmp/out"
code 'doc rm --json' 1 "$gistctl" doc rm --json third fourth
check 'doc rm --json has those that are gone' json "j == ['third']" <"$tmp/out"
code 'cancel --json' 1 "$gistctl" cancel --json 12345
check 'cancel --json has those that were at work' json "j == []" <"$tmp/out"
code 'the same name' 1 "$gistctl" doc add book -f "$tmp/book"
says 'already'
says '--replace'
code 'replaced' 0 "$gistctl" doc add book --replace --pin -f "$tmp/book"
code 'a name with a slash' 1 "$gistctl" doc add a/b -f "$tmp/book"
code 'no text' 1 "$gistctl" doc add nothing -f /dev/null --plain
code 'no text for a message' 1 "$gistctl" doc add nothing -f /dev/null
says 'the text is empty'
seq 1 900 >"$tmp/long"
code 'one that is longer than the window' 0 "$gistctl" doc add long -f "$tmp/long"
says 'it is read with automatic memory'
code 'one that is to be kept whole' 1 "$gistctl" doc add whole --memory full -f "$tmp/long"
says 'the limit is'
code 'two, longer than the window' 0 "$gistctl" ask --stats --doc book --doc long --max-tokens 4 'Where is 612?' </dev/null
check 'what is asked for comes back' grep -q 'brought back for the question' "$tmp/err"
check 'nothing is approximate' sh -c "! grep -q approximate '$tmp/err'"
code 'the long one goes' 0 "$gistctl" doc rm long
code 'a file that is not there' 1 "$gistctl" doc add x -f "$tmp/nothing"
code 'doc ls' 0 "$gistctl" doc ls
check 'doc ls has a head and both' [ "$(wc -l <"$tmp/out")" -eq 3 ]
check 'a document is ready' grep -q 'ready .* book$' "$tmp/out"
code 'doc ls --json' 0 "$gistctl" doc ls --json
check 'doc ls --json' json "[d['name'] for d in j] == ['a second book', 'book'] and j[1]['pinned'] and \
    not j[0]['pinned'] and all(d['state'] == 'ready' and d['n_tokens'] == d['n_read'] > 0 for d in j)" <"$tmp/out"
code 'status counts pins' 0 "$gistctl" status
check 'status counts pins' grep -q '^documents .* pages pinned' "$tmp/out"
code 'ask --doc' 0 "$gistctl" ask -n 4 --stats --doc book Why
says 'read now'
check 'the document was not read again' sh -c "[ \$(sed -n 's/.*tokens: \([0-9]*\) read now.*/\1/p' '$tmp/err') -le 16 ]"
code 'ask --doc with the files of before' 0 "$gistctl" ask -n 4 --stats --doc book -f "$tmp/text" Why
code 'other memory options' 1 "$gistctl" ask --doc book --compressor none Why
says 'other memory options'
code 'a document that is not there' 1 "$gistctl" ask --doc nothing Why
says 'no document "nothing"'
says '`gistctl doc ls` lists'
code 'chat --doc' 0 sh -c "printf 'Why\nHow\n' | '$gistctl' chat -n 4 --stats --doc book"
says 'began with'
for order in "book,a second book" "a second book,book"; do
    code "ask --doc twice" 0 "$gistctl" ask -n 4 --stats --doc "${order%,*}" --doc "${order#*,}" Why
    says 'approximate'
done
code 'doc rm' 0 "$gistctl" doc rm book 'a second book'
code 'doc rm of nothing' 1 "$gistctl" doc rm book
code 'doc ls of nothing' 0 "$gistctl" doc ls
check 'doc ls of nothing' [ ! -s "$tmp/out" ]

# --- saved conversations --------------------------------------------------------------------------
code 'chat --save' 0 sh -c "printf 'Why\nHow\n' | '$gistctl' chat -n 6 --save 'last week'"
code 'the same name' 1 sh -c "printf 'Why\n' | '$gistctl' chat -n 6 --save 'last week'"
says 'already'
says '--resume "last week" goes on with it'
code 'session ls' 0 "$gistctl" session ls
check 'session ls has a head and one' [ "$(wc -l <"$tmp/out")" -eq 2 ]
code 'session ls --json' 0 "$gistctl" session ls --json
check 'session ls --json' json "j[0]['name'] == 'last week' and j[0]['kept'] and j[0]['label'] == 'chat'" <"$tmp/out"
complete() {
    PATH=$(dirname "$gistctl"):$PATH bash -c '. ctl/gistctl.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gistctl
        printf "%s\n" "${COMPREPLY[@]}"' - "$@"
}
check 'Tab gives saved conversations' [ "$(complete gistctl chat --resume '')" = 'last week' ]
check 'also to delete' [ "$(complete gistctl session rm las)" = 'last week' ]
check 'Tab gives the ways of memory' [ "$(complete gistctl ask --memory '' | tr '\n' ' ')" = 'auto full ' ]
check 'and no others' [ -z "$(complete gistctl chat --resume x)" ]
code 'what is resumed keeps its options' 2 "$gistctl" chat --resume 'last week' --compressor none
says '--resume goes on with'
code 'a private conversation is not saved' 2 sh -c "printf 'Why\n' | '$gistctl' chat --private --save secret"
says '--save'
daemon_stop
daemon_start tests/data/tiny_smollm2.gguf
code 'resumed after a restart' 0 sh -c "printf 'And then\n' | '$gistctl' chat -n 6 --stats --resume 'last week'"
check 'nothing was read again but what waited' sh -c "[ \$(sed -n 's/.*tokens: \([0-9]*\) read now.*/\1/p' '$tmp/err') -le 1 ]"
cp "$tmp/out" "$tmp/first"
code 'and it was saved again' 0 "$gistctl" session ls --json
check 'with the turn that came since' json "j[0]['n_tokens'] > 30" <"$tmp/out"
code 'a copy under another name' 0 sh -c "printf 'And then\n' | '$gistctl' chat -n 6 --resume 'last week' --save copy"
code 'a conversation that is not there' 1 sh -c "'$gistctl' chat --resume nothing </dev/null"
says 'no saved session "nothing"'
says '`gistctl session ls` lists'
code 'session rm' 0 "$gistctl" session rm 'last week' copy
code 'session rm of nothing' 1 "$gistctl" session rm copy

# Those that the disk still writes are nobody's a moment later.
for _ in $(seq 300); do
    "$gistctl" status --json | json "j['pages_free'] + j['pages_cached'] == j['pages']" 2>/dev/null && break
    sleep 0.1
done
code 'pages come back' 0 "$gistctl" status --json
check 'pages come back' json "j['pages_free'] + j['pages_cached'] == j['pages']" <"$tmp/out"

daemon_stop
daemon_start tests/data/tiny_smollm2.gguf --store none --prefix-cache no
code 'what is nowhere' 0 "$gistctl" ask -n 4 --json -f "$tmp/numbers" 'What stands behind 2234 2235 2236?'
check 'is computed again' json "j['usage']['recomputed_tokens'] > 0 and j['usage']['missed_tokens'] == 0" <"$tmp/out"
code 'what has no room' 0 "$gistctl" ask -n 4 --json -f "$tmp/numbers" --compressor select --segment 512 --budget 1024 \
    --hydrate auto "$(seq 2234 2310)"
check 'is counted' json "j['usage']['missed_tokens'] > 0" <"$tmp/out"
says 'could not be brought back; the answer may be a guess'
code 'daemon_stop' 0 true
daemon_stop
code 'the daemon is gone' 3 "$gistctl" ask Why

# --- Ctrl-C, with a model that has much to say ----------------------------------------------------
if [ -n "${GISTD_TEST_MODEL:-}" ]; then
    # It takes 1 to 30 ms (printed); what would have to finish first, the answer or the prompt, takes longer
    # than this on any machine.
    limit_ms=5000
    daemon_start "$GISTD_TEST_MODEL"
    check 'Ctrl-C' python3 tests/support/ctrl_c.py "$gistctl" $limit_ms
    daemon_stop
else
    echo 'GISTD_TEST_MODEL is not set: Ctrl-C is not tested'
fi
done_testing
