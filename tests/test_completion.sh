#!/bin/sh
# tests/test_completion.sh - what the Tab key gives in zsh and in fish, as they are installed (that of bash is tested with each
# command). Would catch: a candidate that bash is given and they are not, a name with a space or a colon that is cut there, an
# option without what help says of it, or that is in a table and not offered, a mark for files that is offered as it stands.
set -eu
. tests/support/daemon.sh
export PYTHONDONTWRITEBYTECODE=1

# As `make install` lays it out.
at=$tmp/at
mkdir -p "$at/bin" "$at/lib/gistd" "$at/share/bash-completion/completions" "$at/functions" "$at/fish"
for name in gistctl gistd gist-adapter gist-dbus gist-eval gist-http gist-train; do
    cp "$BUILD/$name" "$at/bin"
done
cp ctl/complete "$at/lib/gistd"
cp ctl/gist.zsh "$at/functions/_gistctl"
for completion in */*.bash; do
    for name in $(sed -n 's/^complete .* -F [^ ]* //p' "$completion"); do
        cp "$completion" "$at/share/bash-completion/completions/$name"
        cp ctl/gist.fish "$at/fish/$name.fish"
    done
done
PATH=$at/bin:$PATH
HOME=$tmp
export PATH HOME
tab=$(printf '\t')

daemon_start tests/data/tiny_smollm2.gguf
seq 1 20 >"$tmp/text"
code 'a document' 0 gistctl doc add 'a book' -f "$tmp/text"
code 'another' 0 gistctl doc add 'b:c' -f "$tmp/text"

# --- what both ask -----------------------------------------------------------------------------------

gives() {
    what=$1 want=$2
    shift 2
    check "$what" [ "$("$at/lib/gistd/complete" "$@" | paste -s -d '|')" = "$want" ]
}
gives 'a command' "score${tab}log-probabilities and perplexity of a text" gistctl sc
gives 'a command of a command' "verify${tab}read all of it, and delete what is not as it was written" gistctl cache ver
gives 'an option' "--top-k${tab}sample from the N likeliest tokens; 0: all (0)" gistctl ask --top-k
gives 'a short way beside it' "--stop${tab}end the answer before TEXT; repeatable" gistctl ask --stop
gives 'an option whose help stands in the next line' "--max-body${tab}The longest body of a request" gist-http --max-b
gives 'of a command of gist-eval' "--items${tab}Questions per task and length" gist-eval recall --it
gives 'values' 'auto|full' gistctl ask --memory ''
gives 'values of an option in a table' 'f16|f32|q8_0' gistd --kv-type ''
gives 'some of them' 'user' gist-dbus --bus us
gives 'behind a path' "--kv-type${tab}Number format of cached keys and values" gistd --model /no/such.gguf --kv-t
gives 'a number' '' gistd --threads ''
gives 'a file of an option' '/files/' gistd --model ''
gives 'behind a short option' '/files/' gist-adapter show -m ''
gives 'commands' 'corpus|plot' gist-train ''
gives 'one that is begun' 'import' gist-adapter im
gives 'a flag takes nothing' '/files/' gist-adapter init --force ''
gives 'an option of a command alone' '--long|--long-weight' gist-train corpus --long
gives 'a digit in a name' "--beta1${tab}AdamW's decay rate of the mean gradient|--beta2${tab}AdamW's decay rate of the mean squared gradient" \
    gist-train --beta
# All of the table, and each with what it is.
for name in gistd gist-http gist-dbus gist-train; do
    "$at/lib/gistd/complete" $name -- >"$tmp/offered"
    $name --help | sed -n 's/^  \(--[a-z][a-z0-9-]*\).*/\1/p' >"$tmp/listed"
    [ $name = gist-dbus ] || [ $name = gist-train ] ||
        $name --print-config | sed -n 's/^#* *\([a-z][a-z0-9-]*\) =.*/--\1/p' >>"$tmp/listed"
    check "$name: options" [ "$(wc -l <"$tmp/listed")" -ge 5 ]
    check "$name: all of them" [ -z "$(cut -f 1 "$tmp/offered" | grep -vxF -f - "$tmp/listed")" ]
    check "$name: with what they are" [ -z "$(awk -F '\t' 'NR == FNR { listed[$1]; next } $1 in listed && $2 == ""' "$tmp/listed" "$tmp/offered")" ]
done

# --- zsh -----------------------------------------------------------------------------------------------

if command -v zsh >/dev/null; then
    zsh_tab() {
        what=$1
        shift
        check "zsh: $what" python3 tests/support/tab.py "$at/bin" "$at/functions" "$@"
    }
    zsh_tab 'commands, with what they do' 'gistctl s' 'score' 'log-probabilities and perplexity of a text'
    zsh_tab 'an option is filled in' 'gistctl ask --priv' 'ate'
    zsh_tab 'a name with a space is one word' 'gistctl ask --doc a' '\ book'
    zsh_tab 'a colon is part of a name' 'gistctl ask --doc b' ':c'
    mkdir "$tmp/names"
    : >"$tmp/names/quixotic" # what is filled in stands nowhere in what is typed
    zsh_tab 'files' "gistctl ask -f $tmp/names/qui" 'xotic'
    zsh_tab 'gist-http' 'gist-http --unix' '--unix-mode' 'Permission bits'
    zsh_tab 'gistd' 'gistd --kv-b' 'ytes'
    zsh_tab 'gist-train' 'gist-train co' 'rpus'
else
    echo 'zsh is not installed: scripts/setup test'
fi

# --- fish ----------------------------------------------------------------------------------------------

if command -v fish >/dev/null; then
    fish_tab() {
        what=$1 line=$2 want=$3
        # Where completions are looked for is a list of folders; nobody's settings.
        check "fish: $what" [ "$(XDG_CONFIG_HOME=$tmp/fish fish --no-config -c \
            'set -g fish_complete_path $argv[1] $fish_complete_path; complete -C $argv[2]' "$at/fish" "$line" | paste -s -d '|')" = "$want" ]
    }
    fish_tab 'a command, with what it does' 'gistctl sc' "score${tab}log-probabilities and perplexity of a text"
    fish_tab 'an option' 'gistctl ask --top-k' "--top-k${tab}sample from the N likeliest tokens; 0: all (0)"
    fish_tab 'documents' 'gistctl ask --doc ' 'a book|b:c'
    fish_tab 'a document that is begun' 'gistctl ask --doc a' 'a book'
    fish_tab 'files' "gistctl ask -f $at/share/bash-completion/completions/gistc" "$at/share/bash-completion/completions/gistctl"
    fish_tab 'gistd' 'gistd --kv-type ' 'f16|f32|q8_0'
    fish_tab 'gist-adapter' 'gist-adapter im' 'import'
    fish_tab 'gist-http' 'gist-http --unix-' "--unix-mode${tab}Permission bits of that socket: who may connect"
else
    echo 'fish is not installed: scripts/setup test'
fi
daemon_stop
done_testing
