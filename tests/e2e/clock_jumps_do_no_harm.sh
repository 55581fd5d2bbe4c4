#!/bin/sh
# With a clock that is set to other days all the time, and files of the future: clock changes do not
# trigger the watchdog, the time limit is kept, durations are durations, and the newest checkpoint is the last one.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

cc -shared -fPIC -Wall -Wextra -o "$work/clock.so" tests/e2e/jumping_clock.c
expect 'cc jumping_clock.c: exit status' $? 0
days=$(LD_PRELOAD=$work/clock.so python3 -c 'import time; print(abs(time.time() - time.time()) > 86000)')
expect 'the clock jumps' "$days" True

# The ranks only: mpirun is another's program.
real=$(realpath "$cria")
cria=$work/cria
cat >"$cria" <<END
#!/bin/sh
ASAN_OPTIONS="\${ASAN_OPTIONS:+\$ASAN_OPTIONS:}verify_asan_link_order=0" LD_PRELOAD=$work/clock.so \
    exec "$real" "\$@"
END
chmod +x "$cria"
uptime() { sed 's/\..*//' /proc/uptime; }

begin=$(uptime)
train 2 jump run.steps=1000000 run.save_every=40 run.keep_last=3 run.watchdog_seconds=3600 \
    run.time_limit_minutes=0.05 log.tensorboard=true
seconds=$(($(uptime) - begin))
expect_status 'time limit' 4
expect "stopped after 3 s and before the clock's next day (took $seconds s)" $((seconds >= 2 && seconds < 3600)) 1
logged jump ms >"$work/ms"
expect 'steps of less than 0 s or more than an hour' "$(awk '!($2 > 0 && $2 < 3600000)' "$work/ms")" ''
sed -n 's/.*"kind":"save".*"seconds":\([0-9.e+-]*\),"snap.*/\1/p' "$run/log.jsonl" >"$work/saves"
expect 'saves' "$(($(wc -l <"$work/saves") > 0))" 1
expect 'saves of less than 0 s or more than an hour' "$(awk '!($1 >= 0 && $1 < 3600)' "$work/saves")" ''

last=$(newest_step)
oldest=$(find "$run" -name 'step_*' | sort | head -n 1)
touch -d '2099-01-01' "$oldest"
touch -d '1990-01-01' "$(newest)"
train 2 jump run.steps=$((last + 2)) --resume auto
expect_status 'resume' 0
expect 'resumed at' "$(sed -n 's/^resumed .*: step \([0-9]*\), .*/\1/p' "$work/out")" "$last"

# A rank that hangs is still noticed, at the right time.
start 2 stuck run.steps=1000000 run.watchdog_seconds=5
wait_for steps_done 3
kill -STOP "$(rank_pid 1)"
begin=$(uptime)
ended
seconds=$(($(uptime) - begin))
expect_status 'one of two ranks stopped' 3
expect "ended after 5 s, not after days (took $seconds s)" $((seconds >= 4 && seconds < 3600)) 1
