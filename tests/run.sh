#!/bin/sh
# run.sh [WORD]: runs what is built, or what of it has WORD in its name. Prints a line for each program,
# the output of those that fail, and at the end "N passed, N failed": cmocka programs count by test
# case, others as one.
#
#   BUILD/tests/test_*     unit tests
#   BUILD/tests/mpi_*      under mpirun -n 1, 2 and 4, or as a line "ranks: 1 2 4 8" says
#   BUILD/tests/replay_*   with tests/fuzz/corpus/NAME
#   tests/e2e/*.sh         the whole program
#   tests/long/*.sh        what takes minutes, when LONG is set
#
# A test that hangs is killed after 600 seconds, or as a line "timeout: SECONDS" among the first five of
# its source says; programs with sanitizers have three times as long. An idle machine needs a tenth of
# that or less, so that no test fails because the machine is busy.
# BUILD names the folder of the build.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 3
# Open MPI's mpirun takes twice this time to end a job in which a rank has failed (scripts/env.sh).
export OMPI_MCA_odls_base_sigkill_timeout="${OMPI_MCA_odls_base_sigkill_timeout:-0}"
. scripts/env.sh

word=${1-} tests=${BUILD:-build}/tests
logs=$tests/logs
mkdir -p "$logs"
passed=0 failed=0 left_out=0 job='' slow=1
! grep -qs fsanitize "${BUILD:-build}/flags" || slow=3
trap '[ -z "$job" ] || kill "$job"; exit 130' INT TERM

# Threads that wait for each other sleep: beside other load, spinning takes the cores from those that work.
export OMP_WAIT_POLICY=passive

# A program of this tree, neither an object file nor left from a source that is gone.
built() { [ -x "$program" ] && [ -f "$source" ]; }

# setting FILE NAME DEFAULT: what a line "NAME: VALUE" near the top of FILE says
setting() {
    value=$(sed -n "1,5s|.*\<$2: *\([0-9 ]*[0-9]\).*|\1|p" "$1")
    echo "${value:-$3}"
}

# total WORD LOG: sum of cmocka's lines "[  WORD  ] N test(s)"
total() { awk -v word="$1" '$1 == "[" && $2 == word && $5 ~ /^test\(s\)/ { n += $4 } END { print n + 0 }' "$2"; }

# run TITLE SOURCE COMMAND...
run() {
    title=$1 limit=$((slow * $(setting "$2" timeout 600)))
    shift 2
    case $title in *"$word"*) ;; *) return ;; esac
    log="$logs/$(echo "$title" | tr ' /' '__').log"
    begin=$(date +%s%3N)
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null &
    job=$!
    wait "$job" 2>/dev/null
    status=$?
    job=''
    ms=$(($(date +%s%3N) - begin))
    good=$(total PASSED "$log") bad=$(total FAILED "$log") skipped=$(total SKIPPED "$log")
    if [ $status = 0 ] && [ $((good + bad + skipped)) = 0 ]; then good=1; fi
    if [ $status = 77 ]; then
        skipped=1 left_out=$((left_out + 1)) # a script that cannot run here; its last line says why
    elif [ $status != 0 ] && [ "$bad" = 0 ]; then
        bad=1 # a crash, a leak, a limit
    fi
    passed=$((passed + good)) failed=$((failed + bad))
    verdict=ok note=''
    [ "$skipped" = 0 ] || note="  ($skipped skipped)"
    if [ $status = 77 ]; then verdict=skip note="  ($(tail -n 1 "$log"))"; fi
    if [ "$bad" != 0 ]; then
        verdict=FAIL note="  (exit status $status)"
        [ $status != 124 ] || note="  (over the limit of $limit s)"
    fi
    printf '%-4s %4d.%01d s  %s%s\n' $verdict $((ms / 1000)) $((ms % 1000 / 100)) "$title" "$note"
    [ "$bad" = 0 ] || tail -n 200 "$log" | sed 's/^/     | /'
}

for program in "$tests"/test_*; do
    source=tests/${program##*/}.c
    built || continue
    run "${program##*/}" "$source" "$program"
done

for program in "$tests"/replay_*; do
    name=${program##*/replay_}
    source=tests/fuzz/fuzz_$name.c
    built || continue
    run "replay_$name" "$source" "$program" "tests/fuzz/corpus/$name"
done

# From here on many ranks share few cores, and MPI libraries have leaks of their own.
export OMP_NUM_THREADS=1 ASAN_OPTIONS="${ASAN_OPTIONS:-fast_unwind_on_malloc=0}"
export LSAN_OPTIONS="${LSAN_OPTIONS:-suppressions=$PWD/tests/mpi.supp:print_suppressions=0}"

for program in "$tests"/mpi_*; do
    source=tests/${program##*/}.c
    built || continue
    for n in $(setting "$source" ranks '1 2 4'); do
        run "${program##*/} -n $n" "$source" mpirun -n "$n" "$program"
    done
done

for script in tests/e2e/*.sh ${LONG:+tests/long/*.sh}; do
    name=${script#tests/}
    if [ ! -f "$script" ] || [ "${name#*/}" = lib.sh ]; then continue; fi # sourced by the others
    run "${name%.sh}" "$script" sh "$script"
done

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $((passed + left_out)) != 0 ]
