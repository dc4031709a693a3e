#!/bin/sh
# tests/test_std.sh - every program and command with descriptors 0 to 2 closed, and with an output that takes
# nothing. Would catch: an answer that goes into the protocol's socket, a log in the lock file, output that
# is lost with exit code 0, a cause that is not named, a question that fails for want of standard input.
set -eu
. tests/support/daemon.sh
adapter=$BUILD/gist-adapter train=$BUILD/gist-train gistd=$BUILD/gistd
model=tests/data/tiny_smollm2.gguf

printf 'Some text, and more of it.\n' >"$tmp/text"
printf '40\n' >"$tmp/why"
mkdir "$tmp/beacon"
cp tests/data/beacon_smollm2.safetensors "$tmp/beacon/model.safetensors"
cp tests/data/beacon_smollm2.config.json "$tmp/beacon/config.json"
"$adapter" init -m $model "$tmp/shown.safetensors" >/dev/null
for step in 1 2 3; do
    echo "{\"step\":$step,\"tokens\":64,\"ratio\":4,\"loss\":3.5,\"lm\":3.5,\"lr\":0.001,\"norm\":1,\"seconds\":$step}"
done >"$tmp/log.jsonl"
daemon_start $model
# Commands that print to standard output, as the shell reads them. Those that ask
# the daemon come last.
cat >"$tmp/commands" <<'END'
$gistctl --help
$gistctl --version
$gistctl ask --help
$gistd --help
$gistd --version
$gistd --print-config
$gistd --check-config
$adapter --help
$adapter --version
$adapter show $tmp/shown.safetensors
$adapter init -f -m $model $tmp/made.safetensors
$adapter import -f -m $model $tmp/beacon $tmp/imported.safetensors
$train --help
$train --show --model m --corpus c --out o
$train corpus --model $model $tmp/made.corpus $tmp/text
$gistctl ask -n 4 Why
$gistctl ask -n 4 -f $tmp/text Why
$gistctl score $tmp/text
$gistctl score --json $tmp/text
$gistctl tokenize $tmp/text
$gistctl tokenize --json $tmp/text
$gistctl detokenize 40 41 42
$gistctl detokenize --json 40 41 42
$gistctl status
$gistctl status --json
END
# The same for what reads standard input.
cat >"$tmp/readers" <<'END'
$gistctl chat -n 4
$gistctl score
$gistctl score -
$gistctl tokenize
$gistctl detokenize
$gistctl ask -n 4 -
$gistctl ask -n 4 -f - Why
END

# cause TEXT: the one sentence on stderr names it.
cause() {
    says "cannot write the output: $1"
    check "one sentence" [ "$(wc -l <"$tmp/err")" -eq 1 ]
}

export gistctl gistd adapter train tmp model
while read -r line; do
    for run in plain closed_in closed_err closed_in_err; do
        case $run in
        plain) how= ;;
        closed_in) how='<&-' ;;
        closed_err) how='2>&-' ;;
        closed_in_err) how='<&- 2>&-' ;;
        esac
        code "$line $how" 0 sh -c "exec $line $how"
        # Times differ, and how many clients and steps there were.
        case $line in
        *status* | *'score --json'*) check "$line $how: printed" [ -s "$tmp/out" ] ;;
        *)
            [ $run != plain ] || cp "$tmp/out" "$tmp/plain"
            check "$line $how: printed as ever" cmp "$tmp/out" "$tmp/plain"
            ;;
        esac
    done
    check "$line prints" [ -s "$tmp/plain" ]
    code "$line >&-" 1 sh -c "exec $line >&-"
    cause 'Bad file descriptor'
    code "$line, all closed" 1 sh -c "exec $line <&- >&- 2>&-"
    code "$line >/dev/full" 1 sh -c "exec $line >/dev/full"
    cause 'No space left on device'
    code "$line, a broken pipe" 1 sh -c "exec python3 tests/support/broken_pipe.py $line"
    cause 'Broken pipe'
done <"$tmp/commands"

while read -r line; do
    code "$line <&-" 1 sh -c "exec $line <&-"
    says 'cannot read standard input: Bad file descriptor'
    code "$line >&-" 1 sh -c "exec $line <'$tmp/why' >&-"
done <"$tmp/readers"

code 'chat, its output full' 1 sh -c "exec $gistctl chat -n 4 <'$tmp/why' >/dev/full"
cause 'No space left on device'
code 'bench-ring, its output full' 1 sh -c "exec $gistctl bench-ring -n 100 >/dev/full"
cause 'No space left on device'
code 'a drawing needs no standard descriptors' 0 sh -c \
    "exec '$train' plot '$tmp/log.jsonl' '$tmp/drawn.svg' <&- >&- 2>&-"
check 'the drawing' grep -q '</svg>' "$tmp/drawn.svg"
code 'a refusal keeps its exit code' 2 sh -c "exec $gistctl ask --bogus <&- >&- 2>&-"
code 'no daemon keeps its exit code' 3 sh -c "exec $gistctl --socket '$tmp/none' status <&- >&- 2>&-"

# The daemon heard nothing but its protocol.
code 'status' 0 "$gistctl" status --json
check 'no client broke the protocol' json "j['client_errors_total'] == 0" <"$tmp/out"
daemon_stop

# --- a daemon that starts with none of the three ----------------------------------------------------
"$gistd" --socket "$GISTD_SOCKET" --kv-bytes 16M --model $model --log-level debug <&- >&- 2>&- &
daemon=$!
until "$gistctl" status >/dev/null 2>&1; do
    kill -0 $daemon || exit 1
    sleep 0.1
done
for fd in 0 1 2; do
    check "descriptor $fd leads nowhere" [ "$(readlink /proc/$daemon/fd/$fd)" = /dev/null ]
done
code 'it answers' 0 "$gistctl" ask -n 4 Why
check 'the lock file holds its pid alone' [ "$(cat "$GISTD_SOCKET.lock")" = "$daemon" ]
daemon_stop
done_testing
