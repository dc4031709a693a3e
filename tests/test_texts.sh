#!/bin/sh
# tests/test_texts.sh - texts that are hard to handle through everything that takes one: NUL, CRLF, C0 and C1
# controls, bytes that are not UTF-8, marks of their own; piped, as files, as arguments. Would catch: a text
# that loses a part without a word, a refusal without a sentence or with exit code 0, a sentence that
# passes controls on to the terminal.
set -eu
case $BUILD in
*/release*) ;;
*)
    echo 'hundreds of short processes: in the release flavour'
    exit 77
    ;;
esac
. tests/support/daemon.sh
adapter=$BUILD/gist-adapter train=$BUILD/gist-train gistd=$BUILD/gistd
model=tests/data/tiny_smollm2.gguf

# Each text is followed by words, so that what is lost behind it shows in the number of tokens.
mkdir "$tmp/texts"
python3 - "$tmp/texts" <<'END'
import sys
texts = {
    "nul": b"one\0two", "nul_first": b"\0one",
    "crlf": b"one\r\ntwo\r\n", "cr": b"one\rtwo\x7f",
    "escape": b"one\033[2Jtwo", "c1": "one\u009b2Jtwo\u0085".encode(),
    "bad": b"one\xff\xe6\xbc", "overlong": b"one\xc0\x80\xed\xa0\x80two",
    "marks": "\ufeffe\u0301\u0323 one".encode(), "turned": "\u202eone\u2028two".encode(),
}
for name, text in texts.items():
    open(f"{sys.argv[1]}/{name}", "wb").write(text + b" three four five six seven eight")
END

# quiet: what the last `code` said holds nothing that a terminal obeys.
controls='[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]'
quiet() {
    check 'stderr is fit for a terminal' sh -c "! LC_ALL=C grep -qaP '$controls' '$tmp/err'"
}
# read_tokens: how many the last `code` read, as it says with --stats.
read_tokens() { sed -n 's/^\[read \([0-9]*\) tokens.*/\1/p' "$tmp/err"; }

daemon_start $model --prefix-cache no --store none
code 'what the template reads' 0 "$gistctl" ask -n 1 --stats x
template=$(read_tokens)

for path in "$tmp"/texts/*; do
    name=$(basename "$path")
    case $name in
    nul*) nul=1 ;;
    *) nul=0 ;;
    esac

    # What has lengths takes all.
    code "$name: tokenize" 0 "$gistctl" tokenize "$path"
    cp "$tmp/out" "$tmp/ids"
    n_ids=$(wc -w <"$tmp/ids")
    code "$name: tokenize, piped" 0 sh -c "'$gistctl' tokenize <'$path'"
    check "$name: the same piped" cmp "$tmp/out" "$tmp/ids"
    code "$name: detokenize" 0 sh -c "'$gistctl' detokenize <'$tmp/ids'"
    # On the wire text has no NUL: ids that give one come back as U+FFFD, as bytes that are no UTF-8 do.
    check "$name: the text back" python3 -c '
import sys
text, back = (open(f, "rb").read() for f in sys.argv[1:])
want = text.decode(errors="replace").replace("\0", "\ufffd").encode()
sys.exit(0 if want == back else f"{want} {back}")' "$path" "$tmp/out"
    code "$name: detokenize --json" 0 sh -c "'$gistctl' detokenize --json <'$tmp/ids'"
    check "$name: JSON" json \
        "j['text'] == open('$path', 'rb').read().decode(errors='replace').replace('\0', '\ufffd')" <"$tmp/out"
    check "$name: JSON is fit for a terminal" sh -c "! LC_ALL=C grep -qaP '$controls' '$tmp/out'"
    code "$name: score" 0 "$gistctl" score --json "$path"
    check "$name: all of it scored" json "len(j['tokens']) == $n_ids" <"$tmp/out"
    code "$name: score, piped" 0 sh -c "'$gistctl' score --json <'$path'"
    check "$name: all of it scored" json "len(j['tokens']) == $n_ids" <"$tmp/out"

    # A message is a C string: refused with a NUL, else all of it is read.
    code "$name: ask -f" $nul "$gistctl" ask -n 1 --stats -f "$path" x
    quiet
    if [ $nul = 1 ]; then
        says 'NUL'
    else
        check "$name: all of it read" [ "$(read_tokens)" -ge $((template + n_ids)) ]
    fi
    for how in "ask -n 1 --stats x" "ask -n 1 --stats" "ask -n 1 --stats -" "ask -n 1 --stats -f -" "chat -n 1 --stats"; do
        code "$name: $how" $nul sh -c "'$gistctl' $how <'$path'"
        quiet
        if [ $nul = 1 ]; then
            says 'NUL'
        else
            # A chat has a turn for each line, with a template for each.
            total=0
            for n in $(read_tokens); do total=$((total + n)); done
            check "$name: $how: all of it read" [ $total -ge $((n_ids)) ]
        fi
    done

    # Ids are digits.
    code "$name: as ids" 2 sh -c "'$gistctl' detokenize <'$path'"
    quiet
    says 'not '

    if [ $nul = 0 ]; then
        text=$(cat "$path")
        code "$name: as a question" 0 "$gistctl" ask -n 1 --stats "$text"
        quiet
        check "$name: all of it read" [ "$(read_tokens)" -ge $((n_ids)) ]
        code "$name: as a system message" 0 "$gistctl" ask -n 1 --stats --system "$text" x
        check "$name: all of it read" [ "$(read_tokens)" -ge $((n_ids)) ]
        code "$name: as a stop text" 0 "$gistctl" ask -n 1 --stop "$text" x
        quiet
        code "$name: as an option" 2 "$gistctl" ask "--$text" x
        quiet
        code "$name: as a number" 2 "$gistctl" ask --top-k "$text" x
        quiet
        code "$name: as an adapter" 1 "$gistctl" ask --adapter "$text" x
        quiet
        code "$name: as a file" 1 "$gistctl" score "$tmp/none/$text"
        quiet
        code "$name: as a socket" 3 "$gistctl" --socket "$tmp/none/$text" status
        quiet
    fi

    # Programs that read files of settings and of text.
    printf 'cpu = ' >"$tmp/conf"
    cat "$path" >>"$tmp/conf"
    code "$name: in a config file" 2 "$gistd" --check-config --config "$tmp/conf"
    quiet
    says 'conf'
    printf 'precision = ' >"$tmp/conf"
    cat "$path" >>"$tmp/conf"
    code "$name: in a recipe" 2 "$train" --show --config "$tmp/conf"
    quiet
    case $name in
    bad | overlong) want=1 ;;
    *) want=0 ;;
    esac
    code "$name: a corpus" $want "$train" corpus --model $model "$tmp/corpus" "$path"
    quiet
    if [ $want = 1 ]; then
        says 'UTF-8'
    else
        check "$name: all of it in the corpus" grep -q "from $(wc -c <"$path") bytes" "$tmp/out"
    fi
    code "$name: as an adapter file" 1 "$adapter" show "$path"
    quiet
    code "$name: as a model" 1 "$gistd" --model "$path" --socket "$tmp/other.sock"
    quiet
done

printf '40\r\n41\r\n' >"$tmp/ids"
code 'ids in lines that end in CRLF' 0 sh -c "'$gistctl' detokenize --json <'$tmp/ids'"
printf 'Why\r\n/quit\r\nHow\r\n' >"$tmp/lines"
code 'a chat in lines that end in CRLF' 0 sh -c "'$gistctl' chat -n 1 --stats <'$tmp/lines'"
check 'each line is a turn, a command too' [ "$(grep -c tokens/s "$tmp/err")" -eq 3 ]
printf 'Why\nH\0ow\nWhy\n' >"$tmp/lines"
code 'a chat with a NUL in its second line' 1 sh -c "'$gistctl' chat -n 1 --stats <'$tmp/lines'"
says 'NUL'
check 'the first line was answered' [ "$(grep -c tokens/s "$tmp/err")" -eq 1 ]
daemon_stop
done_testing
