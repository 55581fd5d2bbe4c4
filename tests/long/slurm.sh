#!/bin/sh
# timeout: 2400
# scripts/train.slurm under Slurm itself: a controller and two hosts (tests/long/lib.sh). A job on both hosts
# that is requeued at its time limit, preempted, cancelled, or loses a host goes on to the bits of a run
# without interruption; an array job's tasks end one by one. Needs Slurm and MUNGE (apt install slurm-wlm munge).
needs='slurmctld slurmd sbatch munged scontrol'
# shellcheck source=tests/long/lib.sh
. "$(dirname -- "$0")/lib.sh"

# ---- the cluster -----------------------------------------------------------------------------------

submit=$work/submit # what train.slurm expects of the folder that it is submitted from
mkdir -p "$submit/build" "$work/munge" "$work/state" "$work/dev" "$work/tmp-n1" "$work/tmp-n2" # each host's own: PMIx
chmod 755 "$work" "$work/munge"
ln -s "$(realpath "$cria")" "$submit/build/cria"
ln -s "$PWD/scripts" "$PWD/data" "$submit"
for n in 0 1 2 3; do mknod "$work/dev/gpu$n" c 1 3; done # Slurm only counts them
(umask 077 && head -c 128 /dev/urandom >"$work/munge/key")
export SLURM_CONF="$work/slurm.conf"
echo "NodeName=n[1-2] Name=gpu File=$work/dev/gpu[0-3]" >"$work/gres.conf"
cat >"$SLURM_CONF" <<END_CONF
ClusterName=test
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
TmpFS=$work/tmp-%n
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] CPUs=4 Gres=gpu:4
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 State=UP
PartitionName=high Nodes=n[1-2] PriorityTier=9 PreemptMode=OFF State=UP
END_CONF

slurmd_on() { # N
    on "$1" slurmd -D -N "n$1" >>"$work/slurmd-n$1.log" 2>&1 &
}
nodes_idle() { [ "$(sinfo -h -N -p low -o %T 2>/dev/null | tr '\n' ' ')" = 'idle idle ' ]; }
host 1
host 2
munged -F --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" >"$work/munge/out" 2>&1 &
wait_for test -S "$work/munge/socket"
slurmctld -D -f "$SLURM_CONF" >"$work/slurmctld.log" 2>&1 &
slurmd_on 1
slurmd_on 2
if ! wait_for nodes_idle; then
    tail -n 5 "$work"/slurm*.log "$work/munge/log"
    exit 1
fi

mpi=pmi2 others='none pmix' # of MPICH
if mpirun --version 2>&1 | grep -q 'Open MPI'; then
    mpi=pmix others='none pmi2'
    export LAUNCH='srun --mpi=pmix --wait=60 --cpus-per-task=1'
fi

# ---- jobs ------------------------------------------------------------------------------------------

endless=1000000
# submitted RUN [OPTION OF SBATCH...]: two ranks on each host, with a configuration of the run's own, until
# `until_step` says how far
submitted() {
    run=$work/$1 own=$work/$1.yaml name=$1
    shift
    sed "s|dir: runs/e2e|dir: $run|; s/steps: 20/steps: $endless/; s|data/sotu|$PWD/data/sotu|" "$config" >"$own"
    id=$(cd "$submit" && sbatch --parsable --nodes=2 --ntasks-per-node=2 --gpus-per-node=2 --cpus-per-task=1 \
        --time=60 --output="$work/$name.out" "$@" scripts/train.slurm "$own" run.save_every=20)
}
shown() { scontrol -o show job "$id" | sed -n "s/.* $1=\([^ ]*\).*/\1/p"; } # FIELD
is() { [ "$(shown JobState)" = "$1" ]; }                                     # STATE
requeued() { [ "$(shown Restarts)" = 1 ]; }
starts() { grep -c '"kind":"head"' "$run/log.jsonl"; }
ends_at() { sed -i "s/steps: $endless/steps: $1/" "$own"; } # STEP: from the job's next start on
said() { grep -c -- "$1" "$work/$name.out"; }             # PATTERN
saved_step() { sed -n "s/^cria: stopped after step \([0-9]*\) as asked.*/\1/p" "$work/$name.out"; }

# completes WHAT: the job, which has been put back into the queue, does its last steps
completes() {
    wait_for is COMPLETED || { tail -n 20 "$work/$name.out"; scontrol -o show job "$id"; }
    expect "$1: exit status" "$(shown ExitCode) $(said '^train.slurm: exit status 0$')" '0:0 1'
    expect "$1: starts" "$(starts)" 2
    expect "$1: requeued" "$(shown Restarts)" 1
    last=$(newest_step)
    logged "$name" loss grad_norm >"$work/$name.curve"
    tensors "$name" "$last" >"$work/$name.tensors"
    echo "$name $last" >>"$work/runs"
}
# goes_on WHAT: after it was requeued; it is given 25 steps more
goes_on() {
    wait_for requeued || tail -n 20 "$work/$name.out"
    ends_at $(($(newest_step) + 25))
    completes "$1"
}

submitted limit
wait_for steps_done 30 && scontrol update "JobId=$id" TimeLimit=6 # the signal comes 5 minutes before
goes_on 'time limit'
expect 'time limit: saved, then resumed' \
    "$(said "^resumed $run/step_0*$(saved_step)\.safetensors: step $(saved_step),")" 1
expect 'time limit: the output beside the run' "$(readlink "$run/slurm-$id.out")" "$work/limit.out"

submitted preempted
wait_for steps_done 30
urgent=$(sbatch --parsable -p high --nodes=2 --exclusive --output=/dev/null --wrap 'sleep 2')
goes_on 'preempted'
expect 'preempted: saved, then resumed' \
    "$(said "^resumed $run/step_0*$(saved_step)\.safetensors: step $(saved_step),")" 1
expect 'preempted: the other job' "$(scontrol -o show job "$urgent" | grep -c JobState=COMPLETED)" 1

submitted crash
wait_for steps_done 50
crash 2
wait_for requeued
host 2
slurmd_on 2
goes_on 'a host is lost'
expect 'a host is lost: resumed' "$(said "^resumed $run/step_")" 1

submitted cancelled
wait_for steps_done 30
scancel "$id"
wait_for is CANCELLED
expect 'cancelled: newest checkpoint' "$(newest_step)" "$(saved_step)"
expect 'cancelled: requeued' "$(shown Restarts)" 0

# ---- array jobs ------------------------------------------------------------------------------------

# Two configurations, one host each. Slurm gives one of the tasks the number of the array, and takes
# that number for all of it: what happens to a task must leave the other alone.
for task in 1 2; do
    sed "s|dir: runs/e2e|dir: $work/task$task|; s/steps: 20/steps: $endless/; s/seed: .*//; s|data/sotu|$PWD/data/sotu|" \
        "$config" >"$work/task$task.yaml"
done
array=$(cd "$submit" && sbatch --parsable --array=1-2 --nodes=1 --ntasks-per-node=2 --gpus-per-node=2 \
    --cpus-per-task=1 --time=60 --output="$work/task%a.out" scripts/train.slurm "$work/task%a.yaml" run.seed=%a)
of_array() { # TASK
    name=task$1 run=$work/task$1 own=$work/task$1.yaml id=${array}_$1
}
of_array 1 && wait_for steps_done 30
of_array 2 && wait_for steps_done 30
first=2
! scontrol -o show job "${array}_1" | grep -q "^JobId=$array " || first=1
for task in $first $((3 - first)); do # first the one that has the array's number
    of_array "$task"
    scontrol update "JobId=$id" TimeLimit=6
    wait_for requeued || tail -n 20 "$work/$name.out"
    ends_at $(($(newest_step) + 25))
    of_array $((3 - task))
    [ "$task" != $first ] || expect 'array: the other task goes on' "$(shown JobState) $(shown Restarts) $(starts)" 'RUNNING 0 1'
done
for task in 1 2; do
    of_array $task
    completes "array, task $task"
    expect "array, task $task: seed" "$(sed -n 's/^ *seed: *//p' "$run/config.yaml")" $task
done

# ---- ways of starting ------------------------------------------------------------------------------

wait_for nodes_idle
for plugin in $others; do
    run srun --mpi="$plugin" -N 2 --ntasks-per-node=1 "$cria" train "$config" --dry-run "run.dir=$work/none"
    expect_status "srun --mpi=$plugin" 3
    expect "srun --mpi=$plugin: sentence" "$(grep -cE '^cria: error: (MPI cannot start: )?this is process 0 of 2 that srun has started, but ' "$work/err")" 1
done
run srun --mpi=$mpi -N 2 --ntasks-per-node=2 "$cria" train "$config" "run.dir=$work/$mpi" run.steps=5
expect_status "srun --mpi=$mpi" 0
expect "srun --mpi=$mpi: hosts" "$(sed -n 's/^mpi .*; //p' "$work/out")" '2 hosts with 2 ranks each'

# ---- the same bits ---------------------------------------------------------------------------------

longest=$(awk '$1 !~ /^task/ && $2 > n { n = $2 } END { print n }' "$work/runs")
train 4 whole run.steps="$longest" run.save_every=0
expect_status 'without interruption' 0
curve $mpi $mpi.curve
logged whole loss grad_norm | head -n 5 >"$work/whole.curve"
expect_same "srun --mpi=$mpi: loss and norm of each step" $mpi.curve whole.curve
while read -r name last; do
    case $name in task*) continue ;; esac # of another world
    logged whole loss grad_norm | head -n "$last" >"$work/whole.curve"
    expect_same "$name: loss and norm of each step" "$name.curve" whole.curve
    [ "$last" != "$longest" ] || expect "$name: weights and moments" "$(cat "$work/$name.tensors")" "$(tensors whole "$last")"
done <"$work/runs"
