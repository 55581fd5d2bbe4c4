#!/bin/sh
# --from: two branches off one plateau, each with a schedule of its own, all killed at random moments, have
# the bits of runs that were left alone, and one of them those of a run that had its schedule from the
# start. Lineage in log, checkpoint and on the console; what is refused; the parent's files stay.
# shellcheck disable=SC2086 # words
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

random() { echo $(($(od -An -t u2 -N 2 /dev/urandom) % $1)); } # 0 .. N-1
at() { printf '%s/%s/step_%08d.safetensors' "$work" "$1" "$2"; }
crc() { "$cria" check "$1" | sed -n 's/^  cria.weights_crc *//p'; }
files() { find "$1" -type f ! -name .lock -exec cksum {} + | sort; }
more_logged() { [ "$(steps_logged)" -gt "$logged" ] || job_ended; }
started() { [ "$(grep -c . "$work/pids" 2>/dev/null)" = 2 ]; }

# killed ROUNDS RUN ARGUMENT...: the same command again and again, ended by kill -9; then to its end
killed() {
    rounds=$1 name=$2 run=$work/$2
    shift 2
    for round in $(seq "$rounds"); do
        logged=$(steps_logged)
        start 2 "$name" "$@"
        if [ $((round % 2)) = 0 ]; then wait_for started; else wait_for more_logged; fi
        sleep "$(printf '0.%03d' "$(random 150)")"
        victim=$(random 3)
        if [ "$victim" = 2 ]; then kill_ranks KILL; else kill -KILL "$(rank_pid "$victim")"; fi
        ended
        wait_for run_ended
    done
    train 2 "$name" "$@"
    expect_status "$name, killed $rounds times" 0
}

# The plateau has a constant rate. wsd: the decay begins at run.steps - optim.decay_steps.
plateau='run.steps=300 run.save_every=20 run.keep_last=4'
cooldown='run.steps=420 optim.schedule=wsd optim.decay_steps=120 optim.min_lr=1e-4'
longer='run.steps=360 run.seed=1234 optim.lr=1e-3'
saves='run.save_every=20 run.keep_last=2'

# shellcheck disable=SC2086 # words
killed 3 plateau $plateau --resume auto
train 2 whole $cooldown
parent=$(at plateau 300)
files "$work/plateau" >"$work/before"

killed 4 cooldown $cooldown $saves --from "$parent" --resume auto
expect 'the branch: tensors, of a run that had this schedule from the start' "$(tensors cooldown 420)" "$(tensors whole 420)"
logged cooldown lr | awk '$1 >= 300' >"$work/found" # records of the branch alone
logged whole lr | awk '$1 > 300' >"$work/expected"
expect_same 'the branch: learning rates' found expected

# Without --resume auto the same command begins again until there is a checkpoint.
with_faults 'call=pwrite,path=step_00000320,do=kill' train 2 longer $longer $saves --from "$work/plateau"
wait_for run_ended
expect 'killed in its first save: checkpoints' "$(find "$run" -name 'step_*.safetensors')" ''
start 2 longer $longer $saves --from "$work/plateau"
wait_for test -e "$(at longer 320)"
kill_ranks KILL
ended
wait_for run_ended
train 2 longer $longer $saves --from "$work/plateau"
expect_refused 'once it has a checkpoint' 2 "$run already holds a run; --resume auto continues it"
killed 2 longer $longer $saves --resume auto
train 2 alone $longer --from "$parent"
expect_status 'the second branch, left alone' 0
expect 'the second branch: warning' "$(grep -c "^cria: warning.*: changed since $parent: run.steps 300 -> 360, optim.lr 0.002 -> 0.001; the \
learning rate of the next step is 0.001, it would have been 0.002" "$work/err")" 1
expect 'the second branch: tensors' "$(tensors longer 360)" "$(tensors alone 360)"
files "$work/plateau" >"$work/after"
expect_same 'files of the parent' after before

# A branch of a branch, on other ranks: data go on where its parent was.
train 1 third run.steps=426 parallel.zero=0 --from "$work/cooldown"
expect_status 'a branch of a branch' 0
train 1 fourth run.steps=426 --resume "$(at whole 420)"
logged third loss >"$work/third.curve"
logged fourth loss >"$work/fourth.curve"
expect_close 'a branch of a branch: losses' third.curve fourth.curve 6

# ---- lineage ---------------------------------------------------------------------------------------

first="{\"path\":\"$parent\",\"step\":300,\"weights_crc\":\"$(crc "$parent")\"}"
second="{\"path\":\"$(at cooldown 420)\",\"step\":420,\"weights_crc\":\"$(crc "$(at cooldown 420)")\"}"
lineages() { sed -n 's/^{"kind":"head".*"lineage":\(.*\),"config":.*/\1/p' "$work/$1/log.jsonl" | sort -u; }
expect 'lineage: log of the plateau' "$(lineages plateau)" null
expect 'lineage: log of a branch' "$(lineages cooldown)" "[$first]"
expect 'lineage: log of its branch' "$(lineages third)" "[$second,$first]"
train 1 third run.steps=428 --resume auto
expect 'lineage: console' "$(grep -cE "^  (branch of  *$(at cooldown 420): step 420|which is of  *$parent: step 300), weights" "$work/out")" 2
run "$cria" check "$work/third"
expect 'lineage: cria check' "$(sed -n '/^  branch of/,/^  which is of/p' "$work/out")" \
    "  branch of        $(at cooldown 420): step 420, weights $(crc "$(at cooldown 420)")
  which is of      $parent: step 300, weights $(crc "$parent")"

# An average of branches begins a run; it names them.
run "$cria" merge "$work/soup.safetensors" "$work/longer" "$work/alone" "$parent"
expect_status 'an average' 0
train 2 soup run.steps=362 --from "$work/soup.safetensors"
expect_status 'a run from an average' 0
expect 'a run from an average: lineage' "$(lineages soup | grep -o '"path":"[^"]*"' | tr '\n' ' ')" \
    "\"path\":\"$work/soup.safetensors\" \"path\":\"$(at longer 360)\" \"path\":\"$(at alone 360)\" \
\"path\":\"$parent\" \"path\":\"$parent\" "

# ---- refused ---------------------------------------------------------------------------------------

refused() { # WHAT TEXT RUN ARGUMENT...
    what=$1 text=$2 name=$3
    shift 3
    files "$work/$name" >"$work/before" 2>/dev/null
    train 2 "$name" "$@"
    expect_refused "$what" 2 "$text"
    files "$work/$name" >"$work/after" 2>/dev/null
    expect "$what: files" "$(cat "$work/after")" "$(cat "$work/before")"
}
refused 'no value' '--from: its value is missing, expected PATH' none --from
refused 'two beginnings' "cria train: --from begins a branch, --resume $parent goes on with a run" none \
    --from "$parent" --resume "$parent"
refused 'a missing file' "cannot open $work/nothing" none --from "$work/nothing"
refused 'a folder without one' '--from data: there is no checkpoint in this folder' none --from data
refused 'no steps left' "--from $parent: it has done 300 steps, which run.steps 300 counts, too" none run.steps=300 --from "$parent"
refused 'no steps left, of a folder' 'it has done 300 steps, which run.steps 20' none --from "$work/plateau"
refused 'another model' "$parent is a checkpoint of another model than the configuration asks for: model.ffn 32 -> 48" \
    none run.steps=400 model.ffn=48 --from "$parent"
refused 'its own run.dir' "--from $parent is of run.dir $work/plateau itself" plateau --from "$parent"
refused 'its own run.dir, with auto' "--from $work/plateau is of run.dir $work/plateau itself" plateau \
    --from "$work/plateau" --resume auto
refused 'another parent' "run.dir $work/cooldown holds a run that began from $parent, not from $(at longer 360)" cooldown \
    run.steps=500 --from "$(at longer 360)" --resume auto
refused 'no branch' "run.dir $work/whole holds a run that began at step 0, not from $parent" whole \
    run.steps=500 --from "$parent" --resume auto
refused 'other data' 'set run.allow_data_change=true' none run.steps=400 run.seed=7 --from "$parent"
