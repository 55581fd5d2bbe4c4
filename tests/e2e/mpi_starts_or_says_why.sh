#!/bin/sh
# One rank needs no MPI. More than one: where MPI cannot start, or where ranks do not find each other, one
# sentence says why and what to do, and the exit status is 3. The banner says which MPI it is and where
# ranks may run; more threads than cores are warned of.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

dry="train $config --dry-run run.dir=$work/run"
# shellcheck disable=SC2086 # words
{

# ---- ranks that do not find each other ---------------------------------------------------------

# alone WHAT TEXT VARIABLE=VALUE...: this process is rank 0 of several, by the variables of a launcher that
# cria's MPI does not know
alone() {
    what=$1 text=$2
    shift 2
    run env "$@" "$cria" $dry
    expect_refused "$what" 3 "$text"
}
library='cria is built with MPICH'
mpirun --version 2>&1 | grep -q HYDRA || library='cria is built with Open MPI'
alone "Open MPI's mpirun" "this is process 0 of 8 that Open MPI's mpirun has started, but $library" \
    OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=0
alone 'srun without PMI' "this is process 0 of 4 that srun has started, but $library" \
    SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 SLURM_NTASKS=4
run env SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 "$cria" $dry
expect 'srun without PMI, rank 3: exit status and stderr' "$status $(cat "$work/err")" '3 '
run env SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 "$cria" bench gemm T=64 shape=o
expect_refused 'bench under srun without PMI' 3 'this is process 0 of 4'
# in an allocation, but not in a step of several tasks
run env SLURM_JOB_ID=1 SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 "$cria" $dry
expect_status 'one task of an allocation' 0
# A shell of srun --pty is used by hand.
run python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)' \
    env SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 "$cria" $dry
expect_status 'a shell of srun --pty' 0

# The mpirun of the other MPI itself, where there is one
case $library in *MPICH) other=openmpi name="Open MPI's mpirun" ;; *) other=mpich name="MPICH's mpirun" ;; esac
if ! command -v mpirun.$other >/dev/null; then
    echo "not tried: there is no mpirun.$other"
else
    run mpirun.$other -n 2 "$cria" $dry
    expect_error "mpirun.$other" 3 "this is process 0 of 2 that $name has started, but $library"
fi

# ---- MPI, cores and threads --------------------------------------------------------------------

banner() { sed -n "s/^$1  *//p" "$work/out"; } # LABEL
own='rank 0 may run on [0-9]* cores\{0,1\} ([0-9,.-]*)'
run "$cria" $dry
expect 'banner of one process: mpi' "$(banner mpi)" 'not started: one process without mpirun'
expect 'banner of one process: cores' "$(banner cores | sed "s/^$own/OWN/")" 'OWN; OMP_NUM_THREADS=1'
expect 'banner of one process: number of cores' "$(banner cores | sed 's/.* on \([0-9]*\) .*/\1/')" "$(env -u OMP_NUM_THREADS nproc)"
run env -u OMP_NUM_THREADS mpirun -n 2 "$cria" $dry
expect 'banner of two ranks: mpi' "$(banner mpi | sed "s/^${library#cria is built with } v\{0,1\}[0-9][0-9.a-z]*,/VERSION/")" \
    'VERSION MPI_THREAD_MULTIPLE; 1 host with 2 ranks'
expect 'banner of two ranks: cores' "$(banner cores | sed "s/^$own/OWN/")" 'OWN; OMP_NUM_THREADS is not set'

threads=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=$((threads + 1))
train 2 crowded run.steps=1
expect 'more threads than cores: warning' "$status $(sed 's/ on [0-9]* cores\{0,1\},.*/ on N/' "$work/oversubscribed")" \
    "0 cria: warning (rank 0): oversubscribed: 2 ranks of host $(uname -n) have $((2 * threads + 2)) threads on N"
export OMP_NUM_THREADS=1
train 1 alone run.steps=1
expect 'fewer threads than cores: warnings' "$status $(cat "$work/oversubscribed")" '0 '


for threads in 0 abc -1 1.5; do
    run env OMP_NUM_THREADS=$threads "$cria" $dry
    expect_status "OMP_NUM_THREADS=$threads" 0
    expect_warning "OMP_NUM_THREADS=$threads" "OMP_NUM_THREADS is '$threads', .* here $(env -u OMP_NUM_THREADS nproc)$"
done
for threads in 3 4,2 ' 2' ''; do
    run env "OMP_NUM_THREADS=$threads" "$cria" $dry
    expect "OMP_NUM_THREADS='$threads': exit status and warnings" "$status $(grep '^cria' "$work/err")" '0 '
done

# ---- MPI_Init fails ----------------------------------------------------------------------------

with_faults 'call=MPI_Init_thread,do=EIO' run "$cria" $dry
expect_status 'one rank without mpirun' 0
for rank in 0 1; do
    with_faults "call=MPI_Init_thread,rank=$rank,do=EIO" run mpirun -n 2 "$cria" $dry
    expect_error "MPI_Init fails on rank $rank" 3 "MPI_Init_thread failed on rank $rank of 2"
done

# in COMMANDS PROGRAM...: in a mount namespace of its own after these commands
in_namespace() {
    commands=$1
    shift
    # shellcheck disable=SC2016
    run unshare -m sh -c "$commands && exec \"\$@\"" sh "$@"
}
if ! unshare -m sh -c 'mount -t tmpfs tmpfs /sys' 2>/dev/null; then
    echo 'no file system can be mounted here: machines without /dev/shm, /proc and /sys are not tried'
else
    small='mount -t tmpfs -o size=1m tmpfs /dev/shm'
    in_namespace "$small" "$cria" train "$config" "run.dir=$work/small" run.steps=2
    expect_status 'one rank and 1 MiB of shared memory' 0
    if mpirun --version 2>&1 | grep -q HYDRA; then
        for ranks in 1 2; do
            in_namespace "$small" mpirun -n $ranks "$cria" $dry
            expect_error "$ranks ranks under mpirun and 1 MiB of shared memory" 3 \
                ' MiB to spare, of which MPI takes about 5 MiB a rank: make it larger (docker run'
            expect "MPICH's own words" "$(grep -c 'error stack' "$work/err")" 0
        done
        in_namespace 'mount -t tmpfs tmpfs /proc' mpirun -n 2 "$cria" $dry
        expect_error 'two ranks without /proc' 3 '/proc is not mounted here, which MPI needs'
    fi
    for gone in proc sys; do
        # LeakSanitizer needs /proc itself.
        if [ $gone = proc ] && grep -q fsanitize "${BUILD:-build}/flags"; then continue; fi
        in_namespace "mount -t tmpfs tmpfs /$gone" "$cria" plan "$config" --json
        expect_status "plan without /$gone" 0
        cp "$work/out" "$work/json"
        run python3 -m json.tool "$work/json"
        expect_status "plan without /$gone: JSON" 0
        in_namespace "mount -t tmpfs tmpfs /$gone" "$cria" version
        expect "version without /$gone: lines" "$(grep -c '^cria ' "$work/out") $(grep -vc '^CUDA 12' "$work/out")" '1 1'
    done
    in_namespace 'mount -t tmpfs tmpfs /sys' mpirun -n 2 "$cria" train "$config" "run.dir=$work/run" --dry-run
    expect 'two ranks without /sys: first line' "$status $(head -n 1 "$work/out")" '0 run:'
fi
}
