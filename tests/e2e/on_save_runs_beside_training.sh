#!/bin/sh
# run.on_save: for each save a command with the checkpoint in its environment, one at a time, beside training;
# its output, its end in the log; one that fails, hangs, is killed, or cannot start; the end of a run, and a
# stop. The checkpoint it works on stays.
# shellcheck disable=SC2016,SC2086 # expanded by the command's shell; words
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# "STEP OUTCOME STATUS SIGNAL" of each record
hooks() { sed -n 's/^{"kind":"hook","step":\([0-9]*\),"path":.*,"outcome":"\([a-z ]*\)","status":\([a-z0-9]*\),"signal":\([a-z0-9]*\),.*/\1 \2 \3 \4/p' "$work/$1/log.jsonl"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# ---- each save ---------------------------------------------------------------------------------------

# The next save waits for the command, as a fifo holds it: each has its turn.
cat >"$work/hook" <<'END'
echo "$CRIA_STEP $CRIA_CHECKPOINT $CRIA_RUN_DIR $(pwd) $(cat)."
echo "variables of ranks: $(env | grep -cE '^(PMI|OMPI_|HYD|MPI_LOCAL|SLURM_PROCID)')" >&2
echo "own group: $(($(sed 's/.*) //' /proc/$$/stat | cut -d ' ' -f 3) == $$))"
find /proc/$$/fd -lname 'socket:*' -o -lname 'pipe:*' >"$COPY.fds"
echo "pipes and sockets: $(wc -l <"$COPY.fds")"
"$PROGRAM" check "$CRIA_CHECKPOINT" >/dev/null && cp "$CRIA_CHECKPOINT" "$COPY"
END
export PROGRAM="$PWD/$cria" COPY="$work/copy"
train 2 each run.steps=1 run.on_save=". $work/hook"
expect_status 'a run' 0
train 2 each run.steps=2 run.on_save=". $work/hook" --resume auto
expect_status 'its second part' 0
expect 'records' "$(hooks each | tr '\n' ';')" '1 done 0 null;2 done 0 null;'
for step in 1 2; do
    file=$work/each/step_0000000$step.safetensors
    printf '%s\n' "== step $step: $file" "$step $file $work/each $PWD ." 'variables of ranks: 0' 'own group: 1' \
        'pipes and sockets: 0'
done >"$work/expected"
expect_same 'on_save.log' each/on_save.log expected
run cmp "$work/copy" "$work/each/step_00000002.safetensors"
expect_status 'the file that the command saw' 0

# ---- training goes on --------------------------------------------------------------------------------

# The first waits until training has ended: those saved meanwhile take each other's turn, and its own stays.
cat >"$work/slow" <<'END'
until grep -q '"kind":"save","step":12,' "$CRIA_RUN_DIR/log.jsonl"; do sleep 0.1; done
ls "$CRIA_CHECKPOINT"
exit $((CRIA_STEP == 12 ? 3 : 0))
END
settings='run.steps=12 run.save_every=2 run.keep_last=1'
train 2 busy $settings run.on_save=". $work/slow"
expect_status 'a slow command' 0
hooks busy >"$work/found"
printf '%s\n' '4 replaced null null' '6 replaced null null' '8 replaced null null' '10 replaced null null' \
    '2 done 0 null' '12 failed 3 null' >"$work/expected"
expect_same 'a slow command: records' found expected
expect 'a slow command: the files it works on' "$(grep '^/' "$work/busy/on_save.log" | tr '\n' ' ')" \
    "$work/busy/step_00000002.safetensors $work/busy/step_00000012.safetensors "
expect_warning 'exit status 3' 'run.on_save of step 12: exit status 3 after'
train 2 plain $settings
expect 'the same bits' "$(tensors busy 12)" "$(tensors plain 12)"

# ---- what goes wrong ---------------------------------------------------------------------------------

train 1 killed run.steps=1 run.on_save='kill -KILL $$'
expect_status 'a command that is killed' 0
expect 'a command that is killed' "$(hooks killed)" '1 failed null 9'
expect_warning 'a command that is killed' 'run.on_save of step 1: signal 9 \(Killed\) ended it'
train 1 missing run.steps=1 run.on_save=/no/such/command
expect_status 'a missing command' 0
expect 'a missing command' "$(hooks missing)" '1 failed 127 null'
expect 'a missing command: on_save.log' "$(grep -c 'no/such/command' "$work/missing/on_save.log")" 1
mkdir -p "$work/unlogged/on_save.log"
train 1 unlogged run.steps=1 run.on_save=true
expect_status 'a log that is a folder' 0
expect 'a log that is a folder' "$(hooks unlogged)" '1 failed 127 null'

# One that hangs, with a child, against SIGTERM, is ended with its group.
train 2 hangs run.steps=1 run.on_save_minutes=0.005 \
    run.on_save="trap '' TERM; sleep 1000 & echo \$! >$work/child; while :; do sleep 1000; done"
expect_status 'a command that hangs' 0
expect 'a command that hangs' "$(hooks hangs)" '1 ended null 9'
expect_warning 'a command that hangs' 'run.on_save of step 1 was ended with the run'
wait_for gone "$(cat "$work/child")"

# A stop starts no command and ends the one that runs.
start 2 stopped run.steps=1000000 run.save_every=5 run.on_save="echo \$\$ >$work/running; exec sleep 1000"
wait_for test -s "$work/running"
kill_ranks TERM
ended
expect_status 'a stop' 4
expect 'a stop: records' "$(hooks stopped | grep -v replaced | sed 's/^[0-9]* //' | sort -u | tr '\n' ';')" \
    'ended null 15;not started null null;'
wait_for gone "$(cat "$work/running")"

# What does not save starts none.
with_faults 'call=pwrite,path=step_00000002,do=ENOSPC' train 1 full run.steps=2 run.on_save=true
expect_error 'a full disk' 3 'No space left'
expect 'a full disk: records' "$(hooks full)" ''
train 1 refused run.steps=1 run.on_save_minutes=-1
expect_refused 'a negative time' 2 'run.on_save_minutes'
