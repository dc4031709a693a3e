#!/bin/sh
# tests/test_examples.sh - the programs of examples/, as their README says. Would catch: an example that does not
# build or run, a loop that loses a line, and a document that is read more than once by three processes that use it at the same time.
set -eu
. tests/support/daemon.sh

# numbers FILE: "computed shared restored" of each line that has them.
numbers() {
    sed -n 's/.* \([0-9]*\) computed, \([0-9]*\) shared, \([0-9]*\) restored.*/\1 \2 \3/p' "$1"
}

daemon_start tests/data/tiny_smollm2.gguf
seq 1 300 >"$tmp/book"
EXAMPLES=$BUILD/examples
export EXAMPLES
code 'three processes and a document' 0 examples/assistant "$tmp/book" 'What is this?' 'And why?'
cp "$tmp/out" "$tmp/said"
check 'an indexer and three askers said what they read' [ "$(numbers "$tmp/said" | wc -l)" -eq 4 ]
# The indexer may have followed an asker that was quicker to read: only the sum is the document.
tokens=$(sed -n 's/^indexer: \([0-9]*\) tokens;.*/\1/p' "$tmp/said")
check 'the document is long enough to tell' [ "$tokens" -gt 500 ]
computed=$(numbers "$tmp/said" | awk '{ n += $1 } END { print n }')
check 'it was read once, but for the last page of each' [ "$computed" -le $((tokens + 4 * 16)) ]
check 'and by each as a whole' [ "$(grep -c "began with $tokens tokens" "$tmp/said")" -eq 3 ]
code 'nothing is left of it' 0 "$gistctl" doc ls -j
check 'nothing is left of it' json 'j == []' <"$tmp/out"

printf '%s\n' 'What is this?' 'And why?' 'Why?' >"$tmp/questions"
code 'one loop' 0 sh -c "'$EXAMPLES/loop' <'$tmp/questions'"
check 'it has answered each line' [ "$(grep -c '^\[[0-9]* tokens, [a-z_]*\]$' "$tmp/out")" -eq 3 ]
code 'a last line without its end' 0 sh -c "printf 'Why?' | '$EXAMPLES/loop'"
check 'is answered, too' [ "$(grep -c '^\[[0-9]* tokens, [a-z_]*\]$' "$tmp/out")" -eq 1 ]
code 'a line that is too long' 1 sh -c "head -c 9000 /dev/zero | tr '\0' x | '$EXAMPLES/loop'"
code 'one loop without a question' 0 sh -c "'$EXAMPLES/loop' </dev/null"
check 'has nothing to say' [ ! -s "$tmp/out" ]
code 'a document that nobody adds' 1 "$BUILD/examples/indexer" nothing "$tmp/no-such-file"
code 'without a question' 2 "$BUILD/examples/asker" book
daemon_stop
done_testing
