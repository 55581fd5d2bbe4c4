#!/bin/sh
# Whatever is wrong with arguments, configuration, data, folder or checkpoint: exit status 2 (3 for
# what the environment lacks), one sentence, printed once however many ranks there are, and no file.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

files() { find "$1" -type f ! -name .lock -exec cksum {} + 2>/dev/null | sort; }

# refused WHAT STATUS TEXT RANKS [ARGUMENT...]: in a new folder
refused() {
    what=$1 code=$2 text=$3 n=$4
    shift 4
    train "$n" refused "$@"
    expect_refused "$what" "$code" "$text"
    expect "$what: files written" "$(files "$work/refused")" ''
    rm -rf "$work/refused"
}

# ---- the command line ------------------------------------------------------------------------------

refused 'unknown option' 2 'unknown option --resum; did you mean --resume?' 2 --resum auto
refused 'option without its value' 2 '--resume: its value is missing, expected auto|PATH' 2 --resume
refused 'second configuration' 2 'unexpected argument other.yaml' 2 other.yaml
run "$cria" tarin $config
expect_refused 'unknown command' 2 'unknown command tarin; did you mean train?'
run "$cria" train
expect_refused 'no configuration' 2 'missing CONFIG; usage: cria train CONFIG'
run mpirun -n 2 "$cria" train "$work/none.yaml"
expect_refused 'missing configuration' 2 "$work/none.yaml: cannot open this config"

case $("$cria" version) in
    *cuda*) ;;
    *) refused 'a GPU without CUDA' 2 'this cria was built without CUDA (make GPU=1 needs nvcc); device=cpu runs' 2 device=cuda \
        model.head_dim=16 ;;
esac

# ---- overrides that leave a value of the file no room ---------------------------------------------

run mpirun -n 2 "$cria" train configs/tiny.yaml device=cpu run.steps=5 optim.lr=1e-4 --dry-run
expect_status 'a short run of a configuration with a warm-up' 0
expect_warning 'the warm-up' 'tiny.yaml:[0-9]+: optim.warmup_steps: found 12, lowered to 5 because of run.steps=5'
expect_warning 'the least rate' 'tiny.yaml:[0-9]+: optim.min_lr: found 0.0002, lowered to 0.0001 because of optim.lr=1e-4'
expect 'what runs' "$(grep -cE '^  (warmup_steps: 5|min_lr: 0.0001)$' "$work/out")" 2

# ---- the configuration: all problems at once -------------------------------------------------------

cat >"$work/bad.yaml" <<END
model:
  layer: 2
  hidden: wide
  hidden: 16
data:
  train: [$work/none.bin]
batch: {global: 8, micro: 3}
END
run mpirun -n 2 "$cria" train "$work/bad.yaml" "run.dir=$work/refused" optim.beta1=1
expect_status 'bad.yaml' 2
while IFS='|' read -r where what; do
    expect "bad.yaml: lines with '$where' and '$what'" \
        "$(grep -F "$where" "$work/err" | grep -cF "$what")" 1
done <<END
cria: error|problems:
bad.yaml:2:|unknown key 'model.layer', did you mean model.layers?
bad.yaml:3:|model.hidden: found 'wide', expected an integer from 1 to 65536
bad.yaml:4:|model.hidden: found twice, expected once; it is also on line 3
bad.yaml:7:|batch.micro: found 3, expected a divisor of batch.global 8
optim.beta1=1|optim.beta1: found '1', expected a number from 0 to 0.999999999
bad.yaml:|model.layers: missing
bad.yaml:|model.vocab: missing
END
expect 'bad.yaml: problems counted' "$(sed -n 's/^cria: error.*: \([0-9]*\) problems:$/\1/p' \
    "$work/err")" "$(($(grep -c '' "$work/err") - 1))"
expect 'bad.yaml: files written' "$(files "$work/refused")" ''

# ---- the number of ranks ---------------------------------------------------------------------------

refused 'cp 2 on 3 ranks' 2 'parallel.cp: found 2 on 3 ranks' 3 parallel.cp=2
refused 'a batch that 3 ranks cannot share' 2 'batch.global: found 8, expected a multiple' 3
refused 'ulysses on more ranks than heads' 2 'parallel.cp: found 3 with backend ulysses' 3 \
    parallel.cp=3 parallel.backend=ulysses
refused 'ring and an odd length' 2 'model.seq_len: found 31' 2 \
    parallel.cp=2 parallel.backend=ring model.seq_len=31

# ---- token files -----------------------------------------------------------------------------------

: >"$work/empty.bin"
printf 'abc' >"$work/odd.bin"
head -c 64 data/sotu_train.bin >"$work/short.bin"
head -c 4096 /dev/zero >"$work/zeros.bin"
refused 'missing token file' 2 "cannot open token file $work/none.bin" 2 "data.train=$work/none.bin"
refused 'missing token file: advice' 2 'scripts/prepare.py makes token files of texts' 2 "data.train=$work/none.bin"
refused 'missing evaluation file' 2 "cannot open token file $work/none.bin" 2 \
    "data.val=$work/none.bin" run.eval_every=1
refused 'empty token file' 2 'empty.bin is empty' 2 "data.train=$work/empty.bin"
refused 'odd size' 2 'odd.bin has an odd size of 3 bytes' 2 "data.train=$work/odd.bin"
refused 'too short' 2 'short.bin has 32 tokens, but one sample of model.seq_len 32 needs 33' 2 \
    "data.train=$work/short.bin"
refused 'a folder' 2 'is a directory, but a token file is expected' 2 data.train=data
refused 'ids beyond the vocabulary' 2 'but model.vocab is 300' 2 model.vocab=300
refused 'ids beyond the vocabulary, evaluation' 2 'but model.vocab is 300' 2 model.vocab=300 \
    "data.train=$work/zeros.bin" data.val=data/sotu_val.bin run.eval_every=1

# A disk or a server that fails may do better next time: 3, for supervisors.
for error in EIO ESTALE EMFILE; do
    with_faults "call=open,path=sotu_train.bin,do=$error" train 1 refused
    expect_refused "$error of open" 3 'cannot open token file data/sotu_train.bin'
    rm -rf "$work/refused"
done

# ---- names that would command a terminal -----------------------------------------------------------

escape=$(printf 'x\033[31m\302\2331m\233')
cp data/sotu_val.bin "$work/$escape.bin"
clean() { expect "$1: control characters" "$(LC_ALL=C tr -d '\n\040-\176' <"$work/$2" | wc -c)" 0; }
run "$cria" data inspect "$work/$escape.bin"
expect_status 'inspect of a name with escapes' 0
clean 'inspect' out
run "$cria" data pack --to nanogpt --out "$work/$escape" "$work/$escape.bin"
expect_refused 'pack to a name with escapes' 2 'exists'
clean 'pack' err
run "$cria" data pack --to nanogpt --out "$work/${escape}y" "$work/$escape.bin"
expect_status 'pack to a name with escapes' 0
clean 'pack' out
train 1 refused "data.train=$work/none$escape.bin"
clean 'train' err
rm -rf "$work/refused"

# ---- masks and configurations that are no files ----------------------------------------------------

mkfifo "$work/fifo"
for file in "$work/fifo" /dev/zero "$work"; do
    run timeout 20 "$cria" plan $config --mask-file "$file"
    expect_refused "mask file $file" 2 "$file: cannot read the slice list: it is a"
done
run timeout 20 "$cria" plan "$work/fifo"
expect_refused 'a FIFO as configuration' 2 'cannot read this config: it is a FIFO'
run "$cria" plan $config --svg "$work/none/plan.svg"
expect_refused 'a picture in no folder' 2 'plan.svg: No such file or directory'

# ---- evaluation ------------------------------------------------------------------------------------

train 1 unevaluated run.steps=2 data.val=data/sotu_val.bin run.eval_every=0
expect_status 'run.eval_every=0' 0
expect 'run.eval_every=0: evaluations' "$(grep -c '"kind":"eval"' "$work/unevaluated/log.jsonl")" 0
train 1 evaluated run.steps=2 data.val=data/sotu_val.bin run.eval_every=5 run.eval_sequences=4
expect 'run.eval_every=5: evaluations' "$(grep -c '"kind":"eval"' "$work/evaluated/log.jsonl")" 2

# ---- run.dir ---------------------------------------------------------------------------------------

mkdir "$work/readonly"
chmod a-w "$work/readonly"
train_unprivileged() {
    # root may write anywhere unless it gives that up
    run setpriv --bounding-set=-dac_override,-dac_read_search,-fowner mpirun -n 2 "$cria" train \
        "$config" "run.dir=$1"
}
if [ "$(id -u)" != 0 ]; then train 2 readonly/run; else train_unprivileged "$work/readonly/run"; fi
expect_refused 'run.dir in a read-only folder' 3 "cannot make run.dir $work/readonly/run: Permission"
refused 'run.dir below a file' 2 'Not a directory' 2 "run.dir=$work/odd.bin/run"
# shellcheck disable=SC2088,SC2016 # nothing expands them
for dir in '~/cria-e2e' '$CRIA_E2E/run' '${CRIA_E2E}'; do
    run mpirun -n 2 "$cria" train $config "run.dir=$dir" run.steps=1
    expect_refused "run.dir=$dir" 2 "run.dir $dir: found no folder"
    expect "run.dir=$dir: made" "$(ls -d "${dir%%/*}" 2>/dev/null)" ''
done
refused 'a name too long' 2 'File name too long' 1 "run.dir=$work/$(printf '%0300d' 0)"

train 2 used run.steps=2 run.save_every=1
expect_status 'a first run' 0
files "$work/used" >"$work/before"
train 2 used run.steps=3
expect_refused 'run.dir of an earlier run' 2 "$work/used already holds a run; --resume auto continues"

start 2 used run.steps=1000000 --resume auto
wait_for steps_done 3
run mpirun -n 2 "$cria" train "$config" "run.dir=$work/used" --resume auto
expect_refused 'run.dir of a job that runs' 2 "$work/used is in use by another job"
kill_ranks KILL
ended
wait_for run_ended

# ---- checkpoints -----------------------------------------------------------------------------------

# resume_refused WHAT TEXT [ARGUMENT...]: by run `used`, whose files stay as they are
resume_refused() {
    what=$1 text=$2
    shift 2
    files "$work/used" >"$work/before"
    train 2 used "$@"
    expect_refused "$what" 2 "$text"
    files "$work/used" >"$work/after"
    expect_same "$what: files" after before
}
newer=$work/used/step_00000002.safetensors
damage() { # FILE: eight bytes near its end
    size=$(wc -c <"$1")
    printf 'damaged!' | dd of="$1" bs=1 seek=$((size - 64)) conv=notrunc 2>/dev/null
}

refused '--resume of a missing file' 2 "cannot open $work/none.safetensors" 2 \
    --resume "$work/none.safetensors"
refused '--resume of something else' 2 'README.md: not a safetensors file' 2 --resume README.md
resume_refused 'checkpoint of another model' "$newer is a checkpoint of another model than the \
configuration asks for: model.ffn 32 -> 48" model.ffn=48 --resume auto
resume_refused 'checkpoint of fewer layers' 'model.layers 2 -> 3' model.layers=3 --resume "$newer"

damage "$newer"
resume_refused '--resume of a damaged file' "$newer is damaged: tensor '" --resume "$newer"
cp "$newer" "$work/damaged"
train 2 used run.steps=3 --resume auto
expect_status '--resume auto with a damaged newest checkpoint' 0
expect 'resumed file' "$(sed -n 's/^resumed \([^ ]*\): step.*/\1/p' "$work/out")" \
    "$work/used/step_00000001.safetensors"
expect 'sentences about the damaged checkpoint' \
    "$(grep '^cria: warning' "$work/err" | grep -cF "$newer is damaged: tensor '")" 1
train 2 whole run.steps=3
expect 'bits after a damaged checkpoint' "$(tensors used 3)" "$(tensors whole 3)"

for file in "$work"/used/step_*.safetensors; do damage "$file"; done
head -c 1000 "$work/damaged" >"$newer"
files "$work/used" >"$work/before"
train 2 used run.steps=4 --resume auto
expect_status 'only damaged checkpoints' 2
expect 'only damaged checkpoints: sentence' "$(head -n 1 "$work/err" |
    grep -cF "cria: error: rank 0: no checkpoint in $work/used can be used")" 1
expect 'only damaged checkpoints: files listed' "$(grep -cF "$work/used/step_0" "$work/err")" 3
files "$work/used" >"$work/after"
expect_same 'only damaged checkpoints: files' after before
