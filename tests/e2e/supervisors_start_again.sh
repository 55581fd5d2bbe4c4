#!/bin/sh
# scripts/supervise.sh and scripts/train.slurm with a cria, a srun and Slurm's commands that only write
# down what they are asked for: which exit statuses start a run again, how often, and where signals go.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"
supervise=$(realpath scripts/supervise.sh) slurm=$(realpath scripts/train.slurm)

# The next start of cria ends as the first line of `plan` says: N (exit status N), save N (the same, after
# a checkpoint), or stay (until SIGTERM, then 4).
mkdir -p "$work/bin" "$work/build" "$work/scripts" "$work/run"
cp "$supervise" "$work/scripts"
cat >"$work/build/cria" <<END
#!/bin/sh
echo "\$*" >>"$work/starts"
step=\$(sed 1q "$work/plan")
sed -i 1d "$work/plan"
case \$step in
    save*) touch "$work/run/step_\$(grep -c . "$work/starts").safetensors"; exit "\${step#save }" ;;
    stay)
        trap 'kill \$!; echo TERM >>"$work/signals"; exit 4' TERM
        trap 'echo USR1 >>"$work/signals"' USR1
        touch "$work/stays"
        while :; do sleep 30 & wait; done ;;
esac
exit "\$step"
END
cat >"$work/bin/srun" <<END
#!/bin/sh
echo "\$*" >>"$work/srun"
while [ "\${1#-}" != "\$1" ]; do shift; done
"\$@" &
echo \$! >"$work/step"
wait \$!
exit \$?
END
cat >"$work/bin/scancel" <<END
#!/bin/sh
echo "scancel \$*" >>"$work/slurm"
[ "\$1" = --signal=TERM ] && kill -TERM "\$(cat "$work/step")"
END
cat >"$work/bin/scontrol" <<END
#!/bin/sh
echo "scontrol \$*" >>"$work/slurm"
END
chmod +x "$work/build/cria" "$work/bin"/*

plan() { # LINE...
    rm -f "$work"/starts "$work"/signals "$work"/stays "$work"/slurm "$work"/srun "$work"/run/*
    touch "$work/starts"
    printf '%s\n' "$@" >"$work/plan"
}
starts() { grep -c . "$work/starts"; }
stays() { [ -e "$work/stays" ]; }
# ends WHAT STATUS STARTS
ends() {
    expect_status "$1" "$2"
    expect "$1: starts" "$(starts)" "$3"
}
fake=$work/build/cria

# ---- supervise.sh ----------------------------------------------------------------------------------

plan 0 && run "$supervise" "$fake" train x.yaml a.b=1
ends 'done' 0 1
expect 'arguments' "$(cat "$work/starts")" 'train x.yaml a.b=1 --resume auto'
plan 0 && run "$supervise" "$fake" train x.yaml --resume auto
expect 'given arguments' "$(cat "$work/starts")" 'train x.yaml --resume auto'
plan 0 && run "$supervise" "$fake" train x.yaml --resume=auto
expect 'given arguments' "$(cat "$work/starts")" 'train x.yaml --resume=auto'
plan 2 0 && run "$supervise" "$fake" train
ends 'a mistake' 2 1
plan 4 4 3 137 0 && run "$supervise" -w 0 "$fake" train
ends 'stopped, failed, killed' 0 5
plan 15 134 139 255 0 && run "$supervise" -w 0 "$fake" train
ends 'statuses of MPI and of signals' 0 5
plan 4 0 && run "$supervise" -s "$fake" train
ends 'stopped, -s' 4 1
plan 3 3 3 3 0 && run "$supervise" -w 0 -n 2 "$fake" train
ends 'too many failures' 3 3
expect 'too many failures: sentence' "$(tail -n 1 "$work/err")" \
    'supervise.sh: exit status 3, the last of 3 failures in a row: giving up'
plan 3 3 'save 3' 3 0 && run "$supervise" -w 0 -n 2 -d "$work/run" "$fake" train
ends 'failures with a checkpoint between them' 0 5
plan 0 'save 0'
printf 'run:\n  steps: 2\n' >"$work/run/config.yaml"
run "$supervise" -w 0 -d "$work/run" "$fake" train
ends 'status 0 of a rank that was killed' 0 2
expect 'status 0 of a rank that was killed: sentence' "$(head -n 1 "$work/err")" \
    'supervise.sh: exit status 0, but the newest checkpoint is of step 0 of 2: taken for 3'
plan 3 3 0 && run "$supervise" -w 1 "$fake" train
expect 'pauses' "$(sed 's/.*again in //' "$work/err" | tr '\n' ' ')" '1 s 2 s '
run "$supervise" "$work/nothing"
expect_status 'no such command' 2
for wrong in '' '-n x true' '-q true' 'true --resume x.safetensors' 'true --resume=x.safetensors'; do
    # shellcheck disable=SC2086 # words
    run "$supervise" $wrong
    expect_status "supervise.sh $wrong" 2
done

plan stay 0 && { "$supervise" "$fake" train 2>"$work/err" & }
job=$!
wait_for stays && kill -USR1 $job
wait_for grep -q USR1 "$work/signals"
kill -TERM $job
ended
ends 'SIGTERM' 4 1
expect 'signals' "$(tr '\n' ' ' <"$work/signals")" 'USR1 TERM '
plan 3 0 && { "$supervise" -w 30 "$fake" train 2>"$work/err" & }
job=$!
wait_for grep -q 'in 30 s' "$work/err" && kill -TERM $job
ended
ends 'SIGTERM in a pause' 3 1

# With cria itself: stopped by its time limit after every step, until it is done
cat >"$work/wrap" <<END
#!/bin/sh
exec mpirun -n 2 "$(realpath "$cria")" "\$@"
END
chmod +x "$work/wrap"
run "$supervise" -d "$work/real" "$work/wrap" train "$config" "run.dir=$work/real" run.steps=4 \
    run.time_limit_minutes=0.0001
expect_status 'a real run' 0
expect 'a real run: starts' "$(grep -c '"kind":"head"' "$work/real/log.jsonl")" 4
expect 'a real run: newest checkpoint' "$(find "$work/real" -name 'step_00000004.safetensors' | wc -l)" 1

# Stopped by a signal, which mpirun passes on; the command names mpirun itself.
run=$work/signalled
"$supervise" -d "$run" mpirun -n 2 "$cria" train "$config" "run.dir=$run" run.steps=1000000 >"$work/out" 2>"$work/err" &
job=$!
wait_for steps_done 3 && kill -TERM $job
ended
expect_status 'a real run, SIGTERM' 4
expect 'a real run, SIGTERM: newest checkpoint' "$(newest_step)" "$(steps_logged)"

# ---- train.slurm -----------------------------------------------------------------------------------

export PATH="$work/bin:$PATH" SLURM_SUBMIT_DIR="$work" SLURM_JOB_ID=77 SLURM_CPUS_PER_TASK=8
asked() { [ ! -e "$work/slurm" ] || tr '\n' ';' <"$work/slurm"; }

plan 0 && run bash "$slurm" x.yaml a.b=1
ends 'a job' 0 1
expect 'a job: srun' "$(cat "$work/srun")" \
    '--mpi=pmi2 --wait=60 --cpus-per-task=8 build/cria train x.yaml a.b=1 --resume auto'
expect 'a job: Slurm' "$(asked)" ''
plan 2 && run bash "$slurm" x.yaml
ends 'a mistake' 2 1
expect 'a mistake: Slurm' "$(asked)" ''
plan 4 && run bash "$slurm" x.yaml
ends 'run.time_limit_minutes' 4 1
expect 'run.time_limit_minutes: Slurm' "$(asked)" 'scontrol requeue 77;'

signalled() { # SIGNAL
    plan stay 0
    bash "$slurm" x.yaml >"$work/out" 2>"$work/err" &
    job=$!
    wait_for stays
    kill "-$1" $job
    ended
}
signalled USR1
ends 'the time is nearly up' 4 1
expect 'the time is nearly up: Slurm' "$(asked)" 'scancel --signal=TERM 77;scontrol requeue 77;'
signalled TERM
ends 'cancelled' 4 1
expect 'cancelled: Slurm' "$(asked)" 'scancel --signal=TERM 77;'
# Slurm takes the number of an array, which one of its tasks has, for all of its tasks.
export SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=3
signalled USR1
ends 'a task of an array' 4 1
expect 'a task of an array: Slurm' "$(asked)" 'scancel --signal=TERM 77_3;scontrol requeue 77_3;'
plan 0 && run bash "$slurm" x-%a.yaml a.b=%a/%a
expect 'a task of an array: arguments' "$(cat "$work/starts")" 'train x-3.yaml a.b=3/3 --resume auto'
unset SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID
# What supervise.sh is given: the run.dir of the command line, of the configuration, of RUN_DIR.
mkdir -p "$work/given/scripts" "$work/given/build"
cp "$fake" "$work/given/build"
# shellcheck disable=SC2016 # expanded by the script
printf '#!/bin/sh\necho "$2 $3 $MODULES"\n' >"$work/given/scripts/supervise.sh"
chmod +x "$work/given/scripts/supervise.sh"
echo 'MODULES=loaded; export MODULES' >"$work/env.sh"
printf '# dir: no\nrun:\n  steps: 3\n  dir: runs/my run # dir: no\n' >"$work/block.yaml"
printf 'run: {steps: 3, dir: "runs/flow", seed: 1}\n' >"$work/flow.yaml"
given() { # WHAT EXPECTED ARGUMENT...
    what=$1 expected=$2
    shift 2
    SLURM_SUBMIT_DIR="$work/given" run bash "$slurm" "$@"
    expect "$what" "$(head -n 1 "$work/out")" "$expected"
}
given 'run.dir of a block' '-d runs/my run ' "$work/block.yaml" run.steps=2
given 'run.dir of a flow' '-d runs/flow ' run.steps=2 "$work/flow.yaml"
expect 'the output, beside the run' "$(readlink "$work/given/runs/flow/slurm-77.out")" "$work/out"
given 'run.dir of the command line' '-d b ' "$work/flow.yaml" run.dir=a run.dir=b
given 'no configuration to read' '-d runs/default ' none.yaml
ENV_FILE=$work/env.sh RUN_DIR=mine given 'RUN_DIR and ENV_FILE' '-d mine loaded' "$work/flow.yaml" run.dir=a
ENV_FILE=$work/none.sh given 'no ENV_FILE' '' "$work/flow.yaml"
expect_status 'no ENV_FILE' 3

export LAUNCH="$work/bin/mpiexec -ppn 8"
printf '#!/bin/sh\nshift 2\nexec "$@"\n' >"$work/bin/mpiexec"
chmod +x "$work/bin/mpiexec"
signalled USR1
ends 'mpiexec' 4 1
expect 'mpiexec: Slurm' "$(asked)" 'scontrol requeue 77;'
run bash "$slurm"
expect_status 'no configuration' 2
