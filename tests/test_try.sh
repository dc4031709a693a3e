#!/bin/sh
# tests/test_try.sh - scripts/try, with programs in the place of ours that say what they are told to: the model's words differ
# from one CPU to another, and what is asked here is what the script makes of them. Would catch: a wrong answer that passes, or
# that nobody is told of; a fact that does not stand in the text; a last line that does not lead on.
set -eu
. tests/support/daemon.sh

tree=$tmp/tree
mkdir -p "$tree/scripts" "$tree/build/release"
cp scripts/try "$tree/scripts"
ln -s "$PWD/tests" "$tree/tests"
printf 'all:\n' >"$tree/Makefile"
program() {
    {
        echo '#!/bin/sh'
        cat
    } >"$tree/$1"
    chmod +x "$tree/$1"
}
program scripts/setup <<'END'
END
program scripts/fetch-model <<'END'
echo model.gguf
END
# It serves when it can be told to end: a signal that came before would kill it, or be lost.
program build/release/gistd <<'END'
trap 'exit 0' TERM
: >"$GISTD_SOCKET"
while :; do sleep 0.05; done
END
# What is asked about a file is answered by all that is in it, or as $SAYS has it.
program build/release/gistctl <<'END'
[ "$1" != status ] || exec test -e "$GISTD_SOCKET"
[ "$1" = ask ] || exit 0
while [ $# -gt 1 ]; do
    [ "$1" != -f ] || file=$2
    shift
done
[ -z "${file:-}" ] || cp "$file" asked
if [ -n "${SAYS:-}" ]; then echo "$SAYS"; elif [ -n "${file:-}" ]; then grep "[0-9]\{5\}" "$file"; fi
END

code 'answers from the text' 0 "$tree/scripts/try"
says 'and so does the answer'
check 'nothing is wrong' sh -c "! grep 'wrong' '$tmp/err'"
check 'first and from what was kept' [ "$(grep -c 'and so does the answer' "$tmp/err")" -eq 2 ]
check 'the text is long' [ "$(wc -c <"$tree/asked")" -gt 40000 ]
check 'the line stands behind its first part' [ "$(head -c 18000 "$tree/asked" | grep -c Annis)" -eq 0 ]
check 'and before its last' [ "$(head -c 22000 "$tree/asked" | grep -c Annis)" -eq 1 ]
check 'the last line opens the page' sh -c "tail -n 1 '$tmp/err' | grep -q 'open http://localhost:4478/'"

code 'answers from nowhere' 1 env SAYS='It is 42.' "$tree/scripts/try"
says 'The answer is wrong: the line says '
says 'the model answered wrongly'
check 'they are shown' [ "$(grep -c '^It is 42.$' "$tmp/out")" -eq 3 ]
check 'the way on is shown, too' grep -q 'open http://localhost:4478/' "$tmp/err"

program build/release/gistctl <<'END'
[ "$1" != status ] || exec test -e "$GISTD_SOCKET"
[ "$1" != ask ]
END
code 'no answer' 1 "$tree/scripts/try"
done_testing
