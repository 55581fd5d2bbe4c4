#!/bin/sh
# timeout: 10800
# Many ranks on few cores: 16, 64 and 256, each with replicas (dp) and with attention shared by all (cp), of the tests'
# tiny model. Prints a table of what a start takes: time to the first step, processor time, and memory of a rank,
# beside that of MPI alone. Rank 0 alone prints; what a rank holds grows in step with the number of ranks, no faster;
# one rank of 64 (or of the last of RANKS) with another configuration or binary is named. RANKS="16 64" picks
# numbers.
# Some 20 minutes on two idle cores.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"

endless=1000000
ticks=$(getconf CLK_TCK)
now() { sed 's/ .*//' /proc/uptime; }

# Of the processes $work/pids: mean seconds of processor time; in MiB the greatest VmHWM, which counts what ranks
# share once for each, the greatest memory of its own (RssAnon) and the mean PSS.
usage() {
    kill_ranks STOP # all of them run, on few cores
    # shellcheck disable=SC2016 # expanded by awk
    sed 's|.*|/proc/&/stat /proc/&/status /proc/&/smaps_rollup|' "$work/pids" | xargs -x -n 3000 awk -v hz="$ticks" '
        FILENAME ~ /stat$/ { sub(/.*\) /, ""); cpu += ($12 + $13) / hz; n++ }
        $1 == "VmHWM:" && $2 > top { top = $2 }
        $1 == "RssAnon:" && $2 > own { own = $2 }
        $1 == "Pss:" { pss += $2 }
        END { printf "%.2f %.1f %.1f %.1f", cpu / n, top / 1024, own / 1024, pss / 1024 / n }'
    kill_ranks CONT
}

# until_one_step: of the job that runs, however long a busy machine takes for it
until_one_step() { until steps_done 1 || job_ended; do sleep 0.1; done; }

# row RANKS LAYOUT [ARGUMENT...]: a job up to its first step, then SIGTERM
row() {
    n=$1 what="$1 ranks, $2"
    shift 2
    begin=$(now)
    start "$n" many "run.steps=$endless" run.save_every=0 run.watchdog_seconds=3600 batch.micro=1 "$@"
    until_one_step
    seconds=$(awk -v begin="$begin" -v end="$(now)" 'BEGIN { printf "%.1f", end - begin }')
    used=$(usage)
    kill_ranks TERM
    ended
    expect_status "$what" 4
    expect "$what: saved" "$(newest_step)" "$(steps_logged)"
    expect "$what: stderr" "$(grep -vE '^cria: (stopped after step|warning \(rank 0\))' "$work/err")" ''
    # Each of these comes from one rank, or from all.
    expect "$what: lines of rank 0 alone" "$(grep -c "^world  *$n ranks on cpu" "$work/out") $(
        grep -cE "^step +1/$endless " "$work/out") $(grep -c '^saved ' "$work/out") $(
        grep -c '^cria: stopped after step' "$work/err")" '1 1 1 1'
    expect "$what: lines that come again" "$(sort "$work/out" | uniq -d | grep .)" ''
    # shellcheck disable=SC2086 # words
    printf '| %s | %s | %s | %s | %s | %s |\n' "$what" "$seconds" $used >>"$work/table"
    rm -r "$run"
}

cat >"$work/alone.c" <<'END'
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int level;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
    MPI_Barrier(MPI_COMM_WORLD);
    fclose(fopen(argv[1], "w"));
    while (access(argv[2], F_OK) != 0) usleep(100000);
    return MPI_Finalize();
}
END
mpicc -o "$work/alone" "$work/alone.c" || exit 3
mpi_alone() { # RANKS: MPI_Init and a barrier
    rm -f "$work/pids" "$work/up" "$work/go"
    begin=$(now)
    # shellcheck disable=SC2016 # expanded by the ranks' shell
    mpirun -n "$1" sh -c 'echo $$ >>"$0" && exec "$@"' "$work/pids" "$work/alone" "$work/up" "$work/go" >"$work/out" 2>&1 &
    job=$!
    until [ -e "$work/up" ] || job_ended; do sleep 0.1; done
    seconds=$(awk -v begin="$begin" -v end="$(now)" 'BEGIN { printf "%.1f", end - begin }')
    used=$(usage)
    touch "$work/go"
    ended
    expect_status "$1 ranks, MPI alone" 0
    # shellcheck disable=SC2086 # words
    printf '| %s | %s | %s | %s | %s | %s |\n' "$1 ranks, MPI alone" "$seconds" $used >>"$work/table"
}

for n in ${RANKS:-16 64 256}; do
    mpi_alone "$n"
    row "$n" "dp $n" "batch.global=$n"
    for backend in magi ring; do
        row "$n" "cp $n $backend" "parallel.cp=$n" parallel.backend=$backend batch.global=1 "model.seq_len=$((8 * n))"
    done
done

# 64 KiB for each rank more: what a rank keeps of every other, many times over. A table of pairs would be beyond.
expect 'rows whose memory grows faster' "$(awk -F '|' '{
    split($2, word, " ")
    kind = word[3] " " word[5]
    n = word[1]
    if (!(kind in least)) { least[kind] = n; own[kind] = $6; mean[kind] = $7 }
    more = 8 + (n - least[kind]) / 16
    if ($6 > own[kind] + more || $7 > mean[kind] + more) print $2
}' "$work/table")" ''

# ---- one of 64 is another ------------------------------------------------------------------------------

[ "$n" -lt 64 ] || n=64
odd=$((n * 5 / 8))
usual="train $config run.dir=$work/run batch.global=$n batch.micro=1"
differs() { # WHAT TEXT COMMAND...: rank $odd is started with COMMAND
    what=$1 text=$2
    shift 2
    # shellcheck disable=SC2086 # words
    set -- -n "$odd" "$cria" $usual : -n 1 "$@"
    # shellcheck disable=SC2086 # words
    [ $((n - odd)) = 1 ] || set -- "$@" : -n $((n - odd - 1)) "$cria" $usual
    run mpirun "$@"
    expect_refused "$what" 2 "$text"
    expect "$what: run.dir" "$(find "$work" -name run)" ''
}
# shellcheck disable=SC2086 # words
differs 'another configuration' "rank $odd: the configuration differs from that of rank 0: found run.seed=5" \
    "$cria" $usual run.seed=5
cp "$cria" "$work/cria" && printf x >>"$work/cria"
# shellcheck disable=SC2086 # words
differs 'another binary' "rank $odd: the binary differs from that of rank 0" "$work/cria" $usual

echo '| | seconds to the first step | processor seconds of a rank | most MiB of a rank (VmHWM) | its own (RssAnon) | mean (PSS) |'
echo '|---|---:|---:|---:|---:|---:|'
cat "$work/table"
