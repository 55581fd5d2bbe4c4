# env.sh: sourced by the other scripts; settings under which they and mpirun work anywhere.
# shellcheck shell=sh

# shellcheck disable=SC2034 # used where this is sourced
cores=$(nproc)

# Threads that spin while they wait take the cores from those they wait for, as soon as there are
# more ranks, threads or other programs than cores: ten times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# The commands of the MPI that this build was made with, where that is not the system's choice
# (make MPI=NAME).
mpi_commands=${BUILD:-build}/mpi
if [ -d "$mpi_commands" ]; then PATH=$(CDPATH='' cd -- "$mpi_commands" && pwd):$PATH; fi

# Open MPI refuses to start for root and with more ranks than cores. When it is told to stop, or a rank
# has failed, it waits for a time, sends SIGTERM, waits again, and sends SIGKILL; its own time of one
# second is too short for a checkpoint. The second name of a pair is for version 5. MPICH needs none of
# this and reads none of it.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout:-60}"
export PRTE_MCA_odls_base_sigkill_timeout="${PRTE_MCA_odls_base_sigkill_timeout:-60}"
# Ranks in a container may not read each other's memory; Open MPI prints an error for every try.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# MPICH's hwloc complains on stderr where a container shows it no /sys.
export HWLOC_HIDE_ERRORS="${HWLOC_HIDE_ERRORS:-2}"
# So does UCX, below MPICH, in every process.
[ -d /sys/class/net ] || export UCX_LOG_LEVEL="${UCX_LOG_LEVEL:-fatal}"

# One sentence, then the exit status of a failing environment, or of a mistake in the command.
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 3
}
mistake() { (fail "$*") || exit 2; }
# For scripts that build: this folder, as another user's, may be closed to this one.
must_write() {
    for folder in . build; do
        [ ! -e $folder ] || [ -w $folder ] || fail "this user may not write into $(realpath $folder): copy $PWD to a folder of yours"
    done
}

# For -h and --help: the comment at the top of the script that sources this, which
# stands in the project's folder by now.
case ${1-} in
    -h | --help)
        for script in "scripts/${0##*/}" "tests/${0##*/}"; do
            [ -f "$script" ] || continue
            sed -n '2,/^[^#]\|^$/s/^# \{0,1\}//p' "$script"
            exit 0
        done
        ;;
esac
