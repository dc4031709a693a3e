#!/bin/sh
# tests/test_gist_train.sh - gist-train as a person uses it. Would catch: a run that goes on from a checkpoint and is not the run
# that was not interrupted, two processes that train something else than one, an adapter that the daemon does not
# read or that scores otherwise there, held-out loss that does not fall, bad input without a clear sentence.
set -eu
case $BUILD in
*/release*) ;;
*)
    echo 'minutes under sanitizers; test_train_step runs the same code there'
    exit 77
    ;;
esac
if [ -z "${GISTD_TEST_MODEL:-}" ]; then
    echo 'GISTD_TEST_MODEL is not set'
    exit 77
fi
. tests/support/daemon.sh
here=$PWD
train=$here/$BUILD/gist-train gistctl=$here/$gistctl
# What is tested is the program: the models are of microseconds a token. One run has a real one, at the end.
tiny=$here/tests/data/tiny_smollm2.gguf
cd "$tmp"

# --- corpora ------------------------------------------------------------------------------------
mkdir text
cp "$here"/docs/*.md "$here"/docs/man/gistctl.1 text
code 'a corpus' 0 "$train" corpus --model "$tiny" train.corpus text
check 'it says what it read' grep -q '^  text  *[0-9]* documents' "$tmp/out"
code 'held-out text' 0 "$train" corpus --model "$tiny" heldout.corpus "$here/README.md"
: >empty.txt
code 'an empty text' 1 "$train" corpus --model "$tiny" x.corpus empty.txt
says 'empty.txt'
printf 'caf\351\n' >latin1.txt
code 'not UTF-8' 1 "$train" corpus --model "$tiny" x.corpus latin1.txt
says 'UTF-8'
check 'a corpus that failed leaves no file' [ ! -e x.corpus ]

# --- a run, and the same one cut in two -------------------------------------------------------
cat >recipe.conf <<'END'
segment = 64
sequence = 256
ratios = 4 8
steps = 8
warmup = 2
batch = 2
rank = 4
lr = 3e-3
precision = f32
eval-docs = 1
eval-every = 0
save-every = 0
END
run() { "$train" --config recipe.conf --model "$tiny" --corpus train.corpus "$@"; }
code 'a run' 0 run --heldout heldout.corpus --out whole.safetensors --log whole.jsonl
code 'its first part' 0 run --out parts.safetensors --checkpoint parts.ckpt --log parts.jsonl --minutes 0.0001
check 'the first part is cut short' [ "$(grep -c '"step"' parts.jsonl)" -lt 8 ]
code 'the rest' 0 run --out parts.safetensors --checkpoint parts.ckpt --log parts.jsonl
check 'a run in two parts is the same run' cmp whole.safetensors parts.safetensors

cat >logs.py <<'END'
import json, sys
whole, parts = ([json.loads(x) for x in open(f)] for f in sys.argv[1:])
loss = lambda log: [x["loss"] for x in log if "step" in x]
assert loss(whole) == loss(parts) and len(loss(whole)) == 8, (loss(whole), loss(parts))
evals = [x for x in whole if "eval" in x]
assert evals[-1]["eval"] == 8
assert sum(evals[-1]["nll"]) < sum(evals[-1]["untrained"]), "held-out loss did not fall"
END
check 'the logs' python3 logs.py whole.jsonl parts.jsonl

# --- what is measured before anything is trained is measured once ------------------------------
measured() { run --steps 3 --heldout heldout.corpus --checkpoint once.ckpt --log once.jsonl "$@"; }
code 'a first part with evaluations' 0 measured --minutes 0.0001
sed -i 's/"full":[0-9.]*/"full":1.25/' once.jsonl
code 'its rest' 0 measured
check 'takes full attention from the log' [ "$(grep -c '"full":1.25,' once.jsonl)" -ge 3 ]
check 'and has no line twice' [ "$(grep -c '"eval":0,' once.jsonl)" -eq 1 ]
code 'the same of more documents' 0 measured --eval-docs 2 --eval-recall 1
check 'measures anew' sh -c "! tail -n 1 once.jsonl | grep -q '"'"full":1.25,'"'"

code 'a different recipe' 1 run --out parts.safetensors --checkpoint parts.ckpt --lr 1e-4
says 'a different recipe'
head -c 10000 parts.ckpt >cut.ckpt
code 'a cut checkpoint' 1 run --checkpoint cut.ckpt
says 'cut.ckpt'
head -c 5000 train.corpus >cut.corpus
code 'a cut corpus' 1 run --corpus cut.corpus
says 'cut.corpus'
code 'an unknown option' 2 run --bogus 1
says 'bogus'
code 'a ratio that does not divide' 2 run --ratios 7
code 'a rank above the width' 1 run --rank 1000
says 'option rank: found 1000, allowed: up to the model'"'"'s width, which is 96'

# --- what can't be written ---------------------------------------------------------------------
code 'no folder for the adapter' 1 run --out none/x.safetensors --log none.jsonl
says 'be written: none/x.safetensors'
check 'is found before the first step' [ ! -e none.jsonl ]
cp whole.safetensors kept.safetensors
code 'one new file twice' 1 run --out new.safetensors --checkpoint ./new.safetensors
says 'out and checkpoint must be different files'
code 'one file twice' 1 run --out kept.safetensors --checkpoint ./kept.safetensors
says 'out and checkpoint must be different files'
code 'onto what it begins with' 1 run --init kept.safetensors --out kept.safetensors
says 'out and init must be different files'
check 'and nothing is lost' cmp whole.safetensors kept.safetensors
mkdir room.ckpt.part
code 'no room for the checkpoint' 1 run --steps 1 --out room.safetensors --checkpoint room.ckpt
says 'room.ckpt: the checkpoint could not be written'
check 'the adapter is written' [ -s room.safetensors ]

# --- more projections --------------------------------------------------------------------------
code 'gists with all matrices' 0 run --projections all --steps 4 --batch 1 --heldout heldout.corpus --out all.safetensors --log all.jsonl
code 'an adapter with more than the recipe' 1 run --init all.safetensors
says 'for o in layer 0'
code 'from a smaller one' 0 run --projections all --steps 1 --init whole.safetensors --out larger.safetensors
check 'it says how both were trained' sh -c "'$here/$BUILD/gist-adapter' show larger.safetensors | grep -q '^training *8 steps.*; 1 steps'"
code 'whole matrices' 0 run --projections qkvo --rank 0 --steps 1 --out full.safetensors
check 'of attention only' sh -c "'$here/$BUILD/gist-adapter' show full.safetensors | grep -q \"^up *layers 0 to 1: the base model's matrix\$\""

# --- all weights ---------------------------------------------------------------------------------
base() { run --train-base yes --lr 1e-4 --steps 2 --batch 1 "$@"; }
code 'the base too' 0 base --heldout heldout.corpus --out base.safetensors --model-out base.gguf --log base.jsonl
code 'its first part' 0 base --out base2.safetensors --model-out base2.gguf --checkpoint base.ckpt --minutes 0.0001
code 'the rest' 0 base --out base2.safetensors --model-out base2.gguf --checkpoint base.ckpt
check 'adapters of a run in two parts' cmp base.safetensors base2.safetensors
check 'models of a run in two parts' cmp base.gguf base2.gguf
rm -f base2.gguf base.ckpt
code 'no model to write' 1 base --out x.safetensors
says 'model-out'
code 'the base as it was is the teacher' 0 base --steps 1 --loss-tie yes --loss-distill 1

# --- the teacher is asked once -----------------------------------------------------------------
distill() { run --steps 3 --loss-distill 0.5 --distill-top 16 --distill-cache teacher "$@"; }
code 'distillation' 0 distill --log first.jsonl
code 'from the cache' 0 distill --log second.jsonl
cat >cached.py <<'END'
import json, sys
first, second = ([json.loads(x) for x in open(f) if '"step"' in x] for f in sys.argv[1:])
keys = "loss", "lm", "distill", "norm"
assert [[x[k] for k in keys] for x in first] == [[x[k] for k in keys] for x in second], (first, second)
assert all(x["distill"] > 0 for x in first)
END
check 'the cache says what the teacher said' python3 cached.py first.jsonl second.jsonl
code "another run's cache" 1 distill --seed 9
says 'teacher'

# --- a device ----------------------------------------------------------------------------------
# The GPU's program on the CPU: libgistd-cuda-shim.so.
device() { run --sequence 128 --ratios 8 --steps 2 --batch 1 "$@"; }
code 'a device' 0 device --device cuda-shim --log device.jsonl --out device.safetensors
code 'the CPU' 0 device --log cpu.jsonl
cat >device.py <<'END'
import json, sys
a, b = ([json.loads(x) for x in open(f) if '"step"' in x] for f in sys.argv[1:])
assert len(a) == len(b) == 2
for x, y in zip(a, b):
    for k in "loss", "norm":
        assert abs(x[k] / y[k] - 1) < 1e-4, (k, x, y)
END
check 'a device trains as the CPU does' python3 device.py device.jsonl cpu.jsonl
code 'begun on a device' 0 device --device cuda-shim --checkpoint device.ckpt --log both.jsonl --minutes 0.0001
code 'ended on the CPU' 0 device --checkpoint device.ckpt --log both.jsonl
check 'is the same run' python3 device.py both.jsonl cpu.jsonl
head -c 700 /dev/zero >lost
code 'a device that is lost' 1 env GISTD_SHIM_LOST="$PWD/lost" "$train" --config recipe.conf --model "$tiny" --corpus train.corpus \
    --device cuda-shim --checkpoint lost.ckpt
says 'device cuda-shim failed'
check 'leaves no checkpoint that is not one' [ ! -e lost.ckpt ]
code 'a plan' 0 device --plan --device cuda-shim
check 'says how much' grep -q '^On cuda-shim: this takes ' "$tmp/out"
check 'and of what' grep -q ' MB  attention$' "$tmp/out"
code 'of the CPU' 0 device --plan
code 'a device without room' 1 env GISTD_SHIM_MEMORY=8000000 "$train" --config recipe.conf --model "$tiny" \
    --corpus train.corpus --sequence 128 --ratios 8 --batch 1 --device cuda-shim
says 'device cuda-shim has no room for this: it takes '
says ', and 8.0 MB are free'
code 'a device rebuilds' 0 device --loss-ae 0.5 --device cuda-shim --log device-ae.jsonl --heldout heldout.corpus
code 'the CPU rebuilds' 0 device --loss-ae 0.5 --log cpu-ae.jsonl
check 'the same' python3 device.py device-ae.jsonl cpu-ae.jsonl
check 'and measures it' grep -q '"rebuilt"' device-ae.jsonl
whole() { device --train-base yes --lr 3e-3 --loss-distill 0.5 "$@"; }
code 'a device trains all weights' 0 whole --device cuda-shim --log device-base.jsonl --out device-base.safetensors --model-out device-base.gguf
code 'the CPU trains all weights' 0 whole --log cpu-base.jsonl --out cpu-base.safetensors --model-out cpu-base.gguf
check 'the same way' python3 device.py device-base.jsonl cpu-base.jsonl
for by in device cpu; do
    code "from the model of the $by" 0 device --model $by-base.gguf --log from-$by.jsonl
done
check 'the same model' python3 device.py from-device.jsonl from-cpu.jsonl
cat >other.py <<'END'
import json, sys
a, b = (json.loads(open(f).readline())["loss"] for f in sys.argv[1:])
assert abs(a / b - 1) > 1e-3, (a, b)
END
check 'that is another one' python3 other.py from-device.jsonl cpu.jsonl
code 'no such device' 2 device --device abacus
says 'option device: found abacus, allowed: cpu, cuda:0'

# --- two processes -----------------------------------------------------------------------------
if command -v mpirun >/dev/null; then
    root=
    [ "$(id -u)" -ne 0 ] || root=--allow-run-as-root
    cat >one <<END
#!/bin/sh
exec "$train" --config recipe.conf --model "$tiny" --threads 1 "\$@"
END
    chmod +x one
    mpi() { mpirun $root --oversubscribe "$@"; }
    code 'two processes' 0 mpi -n 2 ./one --corpus train.corpus --log two.jsonl
    cat >two.py <<'END'
import json, sys
one, two = ([json.loads(x)["loss"] for x in open(f) if '"step"' in x] for f in sys.argv[1:])
assert len(one) == len(two) == 8 and all(abs(a - b) < 1e-3 for a, b in zip(one, two)), (one, two)
END
    check 'two processes train what one does' python3 two.py whole.jsonl two.jsonl

    each() { mpi -n 2 ./one --corpus train.corpus --sequence 128 --ratios 8 --steps 2 --batch 2 "$@"; }
    code 'two processes, each with a device' 0 each --device cuda-shim:1,0 --checkpoint devices.ckpt --log devices.jsonl
    code 'two processes without' 0 each --log processors.jsonl
    check 'the same' python3 device.py devices.jsonl processors.jsonl
    code 'more devices than processes' 1 each --device cuda-shim:0,1,2
    says 'found cuda-shim:0,1,2, expected one device for each process'
    code 'one with, one without' 1 mpi -n 1 ./one --corpus train.corpus --device cuda-shim : -n 1 ./one --corpus train.corpus
    says 'give all of them a device, or none'

    # Of two machines one has the checkpoint.
    two() { mpi -n 1 "$@" --checkpoint mine.ckpt : -n 1 "$@" --checkpoint none.ckpt; }
    code 'a first part' 0 two ./one --corpus train.corpus --log shared.jsonl --minutes 0.0001
    code 'goes on by the first one' 0 two ./one --corpus train.corpus --log shared.jsonl
    check 'and is the same run' python3 two.py two.jsonl shared.jsonl
    code 'different corpora' 1 mpi -n 1 ./one --corpus train.corpus : -n 1 ./one --corpus heldout.corpus
    says 'process 1 has a different recipe, model or corpus'

    mpirun $root --oversubscribe -n 2 ./one --corpus train.corpus --steps 10000 --log long.jsonl --checkpoint long.ckpt \
        >long.out 2>&1 &
    tries=600
    until [ -s long.jsonl ] || [ $tries -eq 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    kill -USR1 $!
    code 'a signal ends both' 0 wait $!
    check 'with a checkpoint' [ -s long.ckpt ]
fi

# --- what the daemon makes of it ------------------------------------------------------------------
cd "$here"
cat >"$tmp/score.py" <<'END'
import json, sys
score, log = json.load(open(sys.argv[1])), [json.loads(x) for x in open(sys.argv[2])]
nll = -sum(score["logprobs"][64:256]) / 192  # behind the first segment
trained = [x for x in log if "eval" in x][-1]["nll"][0]
print(nll, trained)
assert abs(nll - trained) < 0.02, (nll, trained)  # the daemon multiplies in int8
END
daemon_start "$tiny" --adapter "$tmp/whole.safetensors:$tmp/all.safetensors"
for adapter in whole all; do
    code 'score' 0 "$gistctl" score --compressor fine-kv --adapter $adapter --ratio 4 --segment 64 --window 256 --json README.md
    check "the daemon scores as the trainer: $adapter" python3 "$tmp/score.py" "$tmp/out" "$tmp/$adapter.jsonl"
done
daemon_stop
daemon_start "$tmp/base.gguf" --adapter "$tmp/base.safetensors"
code 'score' 0 "$gistctl" score --compressor fine-kv --adapter base --ratio 4 --segment 64 --window 256 --json README.md
check "the daemon scores as the trainer: its own base" python3 "$tmp/score.py" "$tmp/out" "$tmp/base.jsonl"
daemon_stop

# --- a real model: a base whose loss there is something to learn from ---------------------------
cd "$tmp"
real() { "$train" "$@" --model "$GISTD_TEST_MODEL"; }
code 'its corpus' 0 real corpus real.corpus text
code 'its held-out text' 0 real corpus real-heldout.corpus "$here/README.md"
code 'its run' 0 real --config recipe.conf --corpus real.corpus --steps 4 --heldout real-heldout.corpus --out real.safetensors --log real.jsonl
cd "$here"
daemon_start "$GISTD_TEST_MODEL" --adapter "$tmp/real.safetensors"
code 'score' 0 "$gistctl" score --compressor fine-kv --adapter real --ratio 4 --segment 64 --window 256 --json README.md
check 'the daemon scores as the trainer: a real model' python3 "$tmp/score.py" "$tmp/out" "$tmp/real.jsonl"
daemon_stop

code 'a picture' 0 "$train" plot "$tmp/whole.jsonl" "$tmp/whole.svg"
check 'the picture is whole' grep -q '</svg>' "$tmp/whole.svg"
done_testing
