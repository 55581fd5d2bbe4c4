#!/bin/sh
# 20 times kill -9 at a random moment, of one rank, all, or mpirun, while every step is saved: each
# file that has a checkpoint's name is whole, --resume auto goes on from the newest, and the run ends
# with the bits of one that was left alone.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

random() { echo $(($(od -An -t u2 -N 2 /dev/urandom) % $1)); } # 0 .. N-1
settings='run.save_every=1 run.keep_last=2'
unfinished=0 announced=0 log=''

more_logged() { [ "$(steps_logged)" -gt "$logged" ]; }
started() { [ "$(grep -c . "$work/pids" 2>/dev/null)" = 2 ]; }

for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    run=$work/killed
    logged=$(steps_logged)
    # shellcheck disable=SC2086 # words
    start 2 killed $settings run.steps=1000000 --resume auto
    # Every third kill may come as early as in MPI_Init, the others when the run has got on.
    if [ $((round % 3)) = 0 ]; then wait_for started; else wait_for more_logged; fi
    delay=$(random 200) victim=$(random 4)
    sleep "$(printf '0.%03d' "$delay")"
    case $victim in
        0 | 1) kill -KILL "$(rank_pid "$victim")" ;;
        2) kill_ranks KILL ;;
        3) kill -KILL "$job" ;;
    esac
    ended
    wait_for run_ended
    what="round $round (victim $victim, $delay ms)"
    expect "$what: sentences on stderr" "$(grep -c '^cria' "$work/err")" 0
    log="$log $(newest_step)"
    if [ -n "$(find "$run" -name '*.tmp')" ]; then unfinished=$((unfinished + 1)); fi
    for file in "$run"/step_*.safetensors; do
        [ -e "$file" ] || continue
        status=0
        "$cria" check "$file" >"$work/check" 2>&1 || status=$?
        expect "$what: cria check $file" "$status" 0
    done
    resumed=$(sed -n 's/^resumed .*: step \([0-9]*\), .*/\1/p' "$work/out")
    [ -z "$resumed" ] || expect "$what: resumed at $resumed of $announced" \
        $((resumed >= announced)) 1
    saved=$(sed -n 's/^saved .*step_0*\([0-9]*\)\.safetensors .*/\1/p' "$work/out" | tail -n 1)
    announced=${saved:-$announced}
done
echo "newest step after each kill:$log; $unfinished kills left an unfinished .tmp"

steps=$((announced + 5))
# shellcheck disable=SC2086
train 2 killed $settings run.steps=$steps --resume auto
expect_status 'the last resume' 0
expect 'unfinished files at the end' "$(find "$run" -name '*.tmp')" ''
expect 'checkpoints at the end' "$(find "$run" -name 'step_*' | wc -l)" 2
train 2 alone run.steps=$steps
expect_status 'the same steps in one go' 0
logged killed loss grad_norm weights_crc >"$work/killed.curve"
logged alone loss grad_norm weights_crc >"$work/alone.curve"
expect_same "$steps steps, killed 20 times" killed.curve alone.curve
expect 'tensors at the end' "$(tensors killed $steps)" "$(tensors alone $steps)"
