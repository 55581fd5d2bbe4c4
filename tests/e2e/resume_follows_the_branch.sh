#!/bin/sh
# A run that goes back to an earlier checkpoint stays on the branch it takes: later checkpoints are renamed,
# --resume auto and run.keep_last know nothing of them, and a kill at any moment changes none of that.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

settings='run.save_every=5 run.keep_last=3'
names() { (cd "$run" && find . -name 'step_*' -o -name 'abandon*' -o -name started_from) | sed 's|^\./||' | sort | tr '\n' ' '; }
files() { find "$run" -type f ! -name .lock -exec cksum {} + | sort; }
at() { printf '%s/step_%08d.safetensors' "$run" "$1"; }
resumed() { sed -n 's/^resumed \([^ ]*\): step .*/\1/p' "$work/out"; }
copy() { # RUN: of the first run
    rm -rf "$work/${1:?}"
    cp -r "$work/first" "$work/$1"
    run=$work/$1
}

# shellcheck disable=SC2086 # words
train 2 first run.steps=30 $settings
expect_status 'a run' 0
expect 'its checkpoints' "$(names)" \
    'step_00000020.safetensors step_00000025.safetensors step_00000030.safetensors '
mkdir "$work/alone"
cp "$(at 20)" "$work/alone"
train 2 alone run.steps=28 optim.lr=1e-3 --resume auto
expect_status 'the other branch, in a folder of its own' 0

# ---- going back --------------------------------------------------------------------------------------

copy back
files >"$work/before"
train 2 back run.steps=28 --resume "$(at 20)" --dry-run
expect_status 'a dry run' 0
files >"$work/after"
expect_same 'a dry run: files' after before
# shellcheck disable=SC2086
train 2 back run.steps=28 optim.lr=1e-3 $settings run.time_limit_minutes=0.0001 --resume "$(at 20)"
expect_status 'going back, and stopped' 4
expect 'going back: said' "$(grep '^abandoned' "$work/out")" "abandoned checkpoints of later steps: \
step_00000030.safetensors.abandoned step_00000025.safetensors.abandoned"
expect 'going back: log' "$(grep -c '"kind":"head".*"abandoned":"step_00000030.safetensors.abandoned step' \
    "$run/log.jsonl")" 1
expect 'going back: the promise' "$(tail -n 1 "$work/err")" \
    'cria: stopped after step 21 as asked (run.time_limit_minutes); --resume auto continues'
train 2 back run.steps=28 optim.lr=1e-3 --resume auto
expect_status 'going on' 0
expect 'going on: from' "$(resumed)" "$(at 21)"
expect 'going on: tensors' "$(tensors back 28)" "$(tensors alone 28)"
expect 'going on: abandoned files' "$(names | grep -o '[^ ]*abandoned' | tr '\n' ' ')" \
    'step_00000025.safetensors.abandoned step_00000030.safetensors.abandoned '
run cmp "$(at 25).abandoned" "$work/first/step_00000025.safetensors"
expect_status 'an abandoned file' 0

# run.keep_last keeps what was gone back to until there are enough newer ones, and abandoned ones.
copy kept
train 2 kept run.steps=24 run.save_every=2 run.keep_last=3 --resume "$(at 20)"
expect 'keep_last 3 after two saves' "$(names)" 'step_00000020.safetensors step_00000022.safetensors '\
'step_00000024.safetensors step_00000025.safetensors.abandoned step_00000030.safetensors.abandoned '
train 2 kept run.steps=26 run.save_every=2 run.keep_last=3 --resume auto
expect 'keep_last 3 after three saves' "$(names)" 'step_00000022.safetensors step_00000024.safetensors '\
'step_00000025.safetensors.abandoned step_00000026.safetensors step_00000030.safetensors.abandoned '
train 2 kept run.steps=30 run.save_every=0 --resume "$(at 24)"
expect 'the same step abandoned again' "$(names | tr ' ' '\n' | grep abandoned | tr '\n' ' ')" \
    'step_00000025.safetensors.abandoned step_00000026.safetensors.abandoned '\
'step_00000030.safetensors.abandoned '

# What auto passes over is abandoned as well: it neither counts nor is taken again.
copy damaged
printf 'damaged!' | dd of="$(at 30)" bs=1 seek=$(($(wc -c <"$(at 30)") - 64)) conv=notrunc 2>/dev/null
train 2 damaged run.steps=27 run.save_every=2 run.keep_last=2 --resume auto
expect_status 'a damaged newest checkpoint' 0
expect 'a damaged newest checkpoint' "$(names)" \
    'step_00000026.safetensors step_00000027.safetensors step_00000030.safetensors.abandoned '

# ---- killed on the way -------------------------------------------------------------------------------

# The first rename makes abandon_after, the next two abandon the files; then it is deleted.
for kill in rename:1 rename:2 rename:3 unlink:1; do
    copy killed
    with_faults "call=${kill%:*},path=$run,nth=${kill#*:},rank=0,do=kill" \
        train 2 killed run.steps=28 optim.lr=1e-3 --resume "$(at 20)"
    wait_for run_ended
    # by its trace: MPICH 4.2's mpirun ends with 0 at times when a rank was killed
    expect "$kill: killed" "$(resumed), step 28: $(find "$(at 28)" 2>/dev/null)" "$(at 20), step 28: "
    train 2 killed run.steps=28 optim.lr=1e-3 --resume auto
    expect_status "$kill: going on" 0
    if [ $kill = rename:1 ]; then # nothing was abandoned yet
        expect "$kill: going on from" "$(grep -c 'of step 30, run.steps is 28: nothing to do' "$work/out")" 1
        continue
    fi
    expect "$kill: going on from" "$(resumed)" "$(at 20)"
    expect "$kill: tensors" "$(tensors killed 28)" "$(tensors alone 28)"
    expect "$kill: names" "$(names)" 'step_00000020.safetensors step_00000025.safetensors.abandoned '\
'step_00000028.safetensors step_00000030.safetensors.abandoned '
done
# One that was interrupted ends with the choice of the next start.
copy killed
with_faults "call=rename,path=$run,nth=2,rank=0,do=kill" train 2 killed run.steps=28 --resume "$(at 20)"
wait_for run_ended
train 2 killed run.steps=31 --resume "$(at 30)"
expect_status 'back to the first branch' 0
expect 'back to the first branch' "$(names)" 'step_00000020.safetensors step_00000025.safetensors '\
'step_00000030.safetensors step_00000031.safetensors '
copy failing
with_faults "call=rename,path=step_00000025,do=EACCES" train 2 failing run.steps=28 --resume "$(at 20)"
expect_error 'a file that cannot be renamed' 3 "cannot rename $(at 25) to step_00000025.safetensors.abandoned"

# ---- checkpoints of other folders --------------------------------------------------------------------

copy mixed
files >"$work/before"
for from in "$work/first/step_00000020.safetensors" "$work/first" "$work/alone/../first"; do
    train 2 mixed run.steps=40 --resume "$from"
    expect_refused "--resume $from" 2 "run.dir $run holds checkpoints, the newest of step 30, and $work/"
done
cp "$(at 20)" "$run/best.safetensors"
files >"$work/before"
train 2 mixed run.steps=40 --resume "$run/best.safetensors"
expect_refused 'a file of another name' 2 'is none of them'
mv "$run/best.safetensors" "$(at 40)"
files >"$work/before"
train 2 mixed run.steps=50 --resume auto
expect_refused 'a renamed file' 2 "$(at 40) is of step 20: rename it to $(at 20)"
files >"$work/after"
expect_same 'a renamed file: files' after before
train 2 mixed run.steps=31 --resume "$run/../mixed/step_00000030.safetensors"
expect_status 'a path with ..' 0

train 2 fresh run.steps=28 optim.lr=1e-3 --resume "$work/alone"
expect_status 'a folder that is done' 0
expect 'a folder that is done' "$(grep -c "^all 28 steps are done, as $work/alone/step_00000028.safetensors \
has them; run.steps=56 goes on" "$work/out")" 1
mkdir "$work/few"
cp "$work/first/step_00000020.safetensors" "$work/few"
train 2 fresh run.steps=28 optim.lr=1e-3 --resume "$work/few"
expect_status 'a folder' 0
expect 'a folder: taken' "$(resumed)" "$work/few/step_00000020.safetensors"
expect 'a folder: tensors' "$(tensors fresh 28)" "$(tensors alone 28)"
expect 'a folder: names' "$(names)" 'started_from step_00000028.safetensors '

# Killed before its first save, it still begins where it was told to.
rm -r "$work/fresh"
with_faults 'call=pwrite,path=step_00000028,do=kill' train 2 fresh run.steps=28 optim.lr=1e-3 \
    --resume "$work/few/step_00000020.safetensors"
wait_for run_ended
train 2 fresh run.steps=28 optim.lr=1e-3 --resume auto
expect_status 'killed before the first save' 0
expect 'killed before the first save: tensors' "$(tensors fresh 28)" "$(tensors alone 28)"
rm "$(at 28)" "$run/config.yaml"
train 2 fresh run.steps=2
expect_status 'a new run there' 0
expect 'a new run there: names' "$(names)" 'step_00000002.safetensors '

# ---- nothing left to do ------------------------------------------------------------------------------

run=$work/first
files >"$work/before"
nothing() { # STEPS TEXT RUN [ARGUMENT...]
    steps=$1 text=$2 where=$3
    shift 3
    train 2 "$where" run.steps="$steps" optim.lr=9e-3 "$@"
    expect_status "$text" 0
    expect "$text: said" "$(grep -cF -- "$text" "$work/out")" 1
    expect "$text: warnings" "$(cat "$work/err")" ''
}
done30="all 30 steps are done, as $(at 30) has them; run.steps=60 goes on"
less="$(at 30) is of step 30, run.steps is 29: nothing to do; run.steps=60 goes on"
nothing 30 "$done30" first --resume auto
nothing 29 "$less" first --resume auto
nothing 29 "$less" first --resume "$(at 30)"
nothing 30 "$done30" none --resume "$(at 30)"
expect 'a folder for nothing' "$(find "$work" -maxdepth 1 -name none)" ''
run=$work/first
files >"$work/after"
expect_same 'nothing left to do: files' after before
