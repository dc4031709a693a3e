#!/bin/sh
# tests/test_gistctl_cache.sh - gistctl cache, and what is private, as people and scripts use them. Would catch: a
# record that is bad and passes, or costs more than itself; something deleted that nobody said yes to; a command
# that waits for an answer in a script; JSON that does not parse; a private conversation in the history; a store
# that is off taken for an empty one; completion that does not know a command's commands.
set -eu
. tests/support/daemon.sh

has_records() { "$gistctl" cache df --json | json "j['own']['records'] == $1"; }
is_written() { "$gistctl" status --json | json "j['store']['pending'] == 0 and j['store']['records'] >= $1"; }
files() { find "$GISTD_STORE/v1" -type f -size +8k; }

# --- mistakes, without a daemon -------------------------------------------------------------------
code 'no command' 2 "$gistctl" cache
code 'an unknown command' 2 "$gistctl" cache nonsense
says "no command 'nonsense'"
code 'a size that is none' 2 "$gistctl" cache prune --to 5X
says 'such as 500M or 2G'
code 'a size below zero' 2 "$gistctl" cache prune --to -1
code 'operands' 2 "$gistctl" cache ls all
says 'cache ls takes no arguments'
code 'no daemon' 3 "$gistctl" cache df

# --- a daemon that keeps what it reads --------------------------------------------------------------
daemon_start tests/data/tiny_smollm2.gguf --store-idle-ms 50
code 'ls of nothing' 0 "$gistctl" cache ls
check 'ls of nothing' grep -q '^0 records' "$tmp/out"
code 'df of nothing' 0 "$gistctl" cache df
head -c 1600 README.md >"$tmp/text"
code 'ask, private' 0 "$gistctl" ask --private -n 2 -f "$tmp/text" What
code 'ask' 0 "$gistctl" ask -n 2 -f "$tmp/text" How
check 'it is written' until_ok is_written 3
code 'ls' 0 "$gistctl" cache ls
check 'ls has rows' grep -q ' raw ' "$tmp/out"
code 'ls --json' 0 "$gistctl" cache ls --json
check 'ls --json' json "len(j['list']) == j['records'] >= 3 and j['list'][0]['kind'] == 'raw' and \
    sum(x['bytes'] for x in j['list']) == j['bytes'] and max(x['depth'] for x in j['list']) > 0 and \
    all(x['tokens'] == x['keys'] and x['used_s'] > 1e9 for x in j['list'])" <"$tmp/out"
n=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["records"])' <"$tmp/out")
tokens=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["tokens"])' <"$tmp/out")
check 'the private question left nothing' [ "$tokens" -lt 2000 ]
code 'df' 0 "$gistctl" cache df
check 'df' grep -q "^yours *$n records" "$tmp/out"
code 'status' 0 "$gistctl" status
check 'status says how much' grep -q '^store .* on disk' "$tmp/out"
check 'and nothing of trouble' [ "$(grep -c '^store' "$tmp/out")" = 1 ]
code 'verify' 0 "$gistctl" cache verify
check 'verify' grep -q "^$n records .* as written" "$tmp/out"

# A byte of one record: that one goes, the others stay, and what it held is computed when it is wanted.
bad=$(files | head -n 1)
printf '\377' | dd of="$bad" bs=1 seek=$(($(wc -c <"$bad") - 9)) conv=notrunc 2>/dev/null
code 'verify of a bad one' 1 "$gistctl" cache verify
check 'it is counted' grep -q '^1 record .* not as written, and deleted' "$tmp/out"
check 'and gone' until_ok [ ! -e "$bad" ]
check 'the others are there' has_records $((n - 1))
code 'verify --json' 0 "$gistctl" cache verify --json
check 'verify --json' json "j['records'] == $n - 1 and j['bad_records'] == 0" <"$tmp/out"
code 'df counts it' 0 "$gistctl" cache df
check 'df counts it' grep -q '^bad *1 record was' "$tmp/out"

# --- deleting -----------------------------------------------------------------------------------------
code 'prune' 0 "$gistctl" cache prune
check 'about half is there' "$gistctl" cache ls
code 'prune to a size' 0 "$gistctl" cache prune --to 1k
check 'nothing fits that' has_records 0
"$gistctl" ask -n 2 --no-stdin -f "$tmp/text" "Why then" >/dev/null 2>&1
code 'ask anew' 0 "$gistctl" ask -n 2 -f "$tmp/text" "another beginning" -s "Be brief."
check 'it is written, too' until_ok is_written 1
n=$("$gistctl" cache df --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["own"]["records"])')
code 'forget in a script' 2 "$gistctl" cache forget
says 'needs --yes'
check 'nothing is gone' has_records "$n"
code 'forget, and no' 1 python3 tests/support/on_terminal.py '[y/N]' n "$gistctl" cache forget
check 'it says so' grep -q 'nothing was deleted' "$tmp/out"
check 'nothing is gone' has_records "$n"
code 'forget, and Enter' 1 python3 tests/support/on_terminal.py '[y/N]' '' "$gistctl" cache forget
check 'nothing is gone' has_records "$n"
code 'forget, and yes' 0 python3 tests/support/on_terminal.py '[y/N]' yes "$gistctl" cache forget
check 'all is gone' has_records 0
code 'forget --yes' 0 "$gistctl" cache forget --yes --json
check 'forget --json' json "j == {'records': 0, 'bytes': 0}" <"$tmp/out"
check 'its files, too' until_ok sh -c "[ -z \"\$(find '$GISTD_STORE/v1' -type f -size +8k)\" ]"
code 'of public sessions' 0 "$gistctl" cache ls --public

# --- a private conversation ---------------------------------------------------------------------------
history=$XDG_STATE_HOME/gistd/chat_history
code 'a conversation' 0 python3 tests/support/on_terminal.py '> ' 'said aloud' "$gistctl" chat -n 2
check 'its line is in the history' grep -q 'aloud' "$history"
code 'a private one' 0 python3 tests/support/on_terminal.py '> ' 'said softly' "$gistctl" chat --private -n 2
check 'its line is not' sh -c "! grep -q softly '$history'"
daemon_stop

# --- a disk that fails --------------------------------------------------------------------------------
# A file where the store's folder was: none can be made in its place.
daemon_start tests/data/tiny_smollm2.gguf --store-idle-ms 50
rm -rf "$GISTD_STORE"
: >"$GISTD_STORE"
n=0
is_degraded() {
    n=$((n + 1))
    "$gistctl" ask -n 2 --no-stdin "$n is a beginning that nobody had before, long enough for more than a page" &&
        "$gistctl" status | grep '^store .*(since [0-9:]*); sessions go on$'
}
check 'status says what does not work, while sessions go on' until_ok is_degraded
code 'df' 0 "$gistctl" cache df
check 'df says it, too' grep -q '^degraded .*; sessions go on' "$tmp/out"
check 'the log says it once' [ "$(grep -c 'warning: store: ' "$tmp/daemon.log")" = 1 ]
rm "$GISTD_STORE"
daemon_stop

# --- switched off ---------------------------------------------------------------------------------------
daemon_start tests/data/tiny_smollm2.gguf --store none
for c in ls df verify prune 'forget --yes'; do
    # shellcheck disable=SC2086
    code "$c without a store" 1 "$gistctl" cache $c
    says 'keeps nothing on disk: the store is switched off (--store none)'
    check "$c prints nothing else" [ ! -s "$tmp/out" ]
done
code 'status' 0 "$gistctl" status
check 'status says so' grep -q '^store *nothing is kept on disk: the store is switched off' "$tmp/out"
code 'status --json' 0 "$gistctl" status --json
check 'status --json' json "j['store'] is None and 'none' in j['store_off']" <"$tmp/out"
daemon_stop

# --- completion -------------------------------------------------------------------------------------------
complete() {
    PATH=$BUILD:$PATH bash -c '. ctl/gistctl.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gistctl; echo "${COMPREPLY[*]}"' - "$@"
}
check 'the commands of cache' [ "$(complete gistctl cache '')" = 'ls df verify prune forget' ]
check 'one of them' [ "$(complete gistctl cache ver)" = verify ]
check 'its options' [ "$(complete gistctl cache prune --t)" = --to ]
check 'other commands are as they were' [ "$(complete gistctl ask --priv)" = --private ]
done_testing
