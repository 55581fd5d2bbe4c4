#!/bin/sh
# What a supervisor may try again ends with 3, what only the user can mend with 2, and neither overwrites
# a run: checkpoints that cannot be read for a while, folders that cannot be listed or locked.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

files() { find "$run" -type f ! -name .lock -exec cksum {} + | sort; }
# unchanged WHAT STATUS TEXT RULES [ARGUMENT...]: the run `kept` goes on with these faults, and does not
unchanged() {
    what=$1 code=$2 text=$3 rules=$4
    shift 4
    with_faults "$rules" train 2 kept run.steps=6 "$@"
    expect_error "$what" "$code" "$text"
    files >"$work/after"
    expect_same "$what: files" after before
}

train 2 kept run.steps=4 run.save_every=2
expect_status 'a run' 0
files >"$work/before"

# ---- reading checkpoints ---------------------------------------------------------------------------

newer=$work/kept/step_00000004.safetensors
for error in EIO:Input/output ESTALE:Stale EMFILE:'Too many open files'; do
    rules="call=open,path=step_0000,do=${error%%:*}"
    unchanged "open: ${error%%:*}" 3 "cannot open $newer: ${error#*:}" "$rules" --resume auto
    unchanged "open of a file: ${error%%:*}" 3 "cannot open $newer: ${error#*:}" "$rules" --resume "$newer"
done
unchanged 'open: EACCES' 2 'Permission denied' 'call=open,path=step_0000,do=EACCES' --resume "$newer"
# One fault that passes must not make an older checkpoint the newest.
unchanged 'one EIO' 3 'Input/output error' 'call=open,path=step_00000004,nth=1,do=EIO' --resume auto
unchanged 'one EIO in pread' 3 'Input/output error' 'call=pread,path=step_00000004,nth=4,do=EIO' \
    --resume auto
unchanged 'readdir: EIO' 3 "cannot list $work/kept: Input/output error" \
    "call=readdir,path=$work/kept,do=EIO" --resume auto
unchanged 'opendir: EMFILE' 3 "cannot list $work/kept: Too many" \
    "call=opendir,path=$work/kept,do=EMFILE" --resume auto

mkfifo "$work/fifo.safetensors"
for command in "check $work/fifo.safetensors" "export $work/fifo.safetensors $work/hf" \
    "train $config run.dir=$work/other --resume $work/fifo.safetensors"; do
    # shellcheck disable=SC2086 # words
    run timeout 60 "$cria" $command
    expect_refused "a FIFO: $command" 2 "$work/fifo.safetensors is not a regular file"
done
cp -r "$work/kept" "$work/fifo"
mkfifo "$work/fifo/step_00000005.safetensors"
train 2 fifo run.steps=5 --resume auto
expect_status 'a FIFO among the checkpoints' 0
expect_warning 'a FIFO among the checkpoints' 'passed over: .*/step_00000005.safetensors is not a regular'

run "$cria" check "$work/kept"
expect_status 'check of a folder' 0
expect 'check of a folder: file' "$(head -n 1 "$work/out" | cut -d : -f 1)" "$newer"
expect 'check: lines about checksums' "$(grep checksum "$work/out" | sed 's/^ *//; s/  */ /g')" \
    'checksums 60 of 60 tensors have one, all match'
run "$cria" check "$work"
expect_refused 'check of a folder without checkpoints' 2 "there is no checkpoint in $work"
head -c -1 "$newer" >"$work/cut"
printf x >>"$work/cut"
run "$cria" check "$work/cut"
expect_refused 'check of a damaged file' 2 'is damaged'
expect 'check of a damaged file: its description' \
    "$(grep -c 'tensors have one, but the file is damaged' "$work/out")" 1

# ---- folders that hold something -------------------------------------------------------------------

run=$work/kept
rm "$run/config.yaml"
files >"$work/before"
unchanged 'checkpoints without config.yaml' 2 "$work/kept already holds a run" ''
cp "$config" "$work/mine"
mkdir "$work/linked"
ln -s "$work/mine" "$work/linked/config.yaml.tmp"
train 1 linked run.steps=1
expect_status 'config.yaml.tmp is a link' 3
run diff "$config" "$work/mine"
expect_status 'config.yaml.tmp is a link: what it points to' 0
train 1 "$(head -c 300 /dev/zero | tr '\0' x)" run.steps=1
expect_refused 'run.dir too long' 2 'File name too long'

with_faults 'call=unlink,path=step_0000,do=EPERM' train 2 crowded run.steps=5 run.save_every=1 run.keep_last=1
expect_status 'old checkpoints that cannot be deleted' 0
expect_warning 'old checkpoints that cannot be deleted' \
    "cannot delete $run/step_0000.*: Operation not permitted; old checkpoints may fill the disk"
expect 'old checkpoints that cannot be deleted: checkpoints' "$(find "$run" -name 'step_*' | wc -l)" 5

# ---- the lock --------------------------------------------------------------------------------------

# held SECONDS: the lock of run `kept`, by a process that cria knows nothing of, such as one of a dead host
held() {
    run=$work/kept
    (flock 9 && exec sleep "$1") 9>>"$run/.lock" &
    holder=$!
    while flock -n "$run/.lock" true; do sleep 0.05; done
}
held 2
train 2 kept run.steps=5 --resume auto
expect_status 'a lock that is released' 0
expect_warning 'a lock that is released' "run.dir $run is locked: waiting up to 60 s"
held 300
files >"$work/before"
unchanged 'a lock that is not released' 3 "run.dir $run is still locked after" '' --resume auto \
    run.watchdog_seconds=15
kill "$holder"
wait "$holder" 2>/dev/null

for error in EIO ENOLCK EOPNOTSUPP; do
    with_faults "call=flock,path=/kept/.lock,do=$error" train 1 kept run.steps=5 --resume auto
    expect_status "flock: $error" 0
    expect_warning "flock: $error" "cannot lock run.dir $run: .*a second job in it would not be noticed"
done

for i in 1 2 3; do
    (
        status=0
        mpirun -n 1 "$cria" train "$config" "run.dir=$work/race" run.steps=1000000 run.log_every=1000 \
            >"$work/race.out$i" 2>"$work/race.err$i" </dev/null || status=$?
        echo $status >"$work/race.status$i"
    ) &
done
two_have_ended() { [ "$(find "$work" -name 'race.status*' | wc -l)" = 2 ]; }
wait_for two_have_ended
kill -TERM "$(cut -d ' ' -f 2 "$work/race/.lock")" # the process that holds it
wait
expect 'three jobs at once: statuses' "$(sort -n "$work"/race.status* | tr '\n' ' ')" '2 2 4 '
expect 'three jobs at once: sentences' "$(cat "$work"/race.err* | grep -c 'is in use by another job (process')" 2
expect 'three jobs at once: lines' "$(cat "$work"/race.err* | grep -c '')" 3 # and that the third was stopped

# A process whose launcher is gone is what is left of a job.
run=$work/left
# shellcheck disable=SC2016 # expanded by the launcher
sh -c '"$@" >/dev/null 2>&1 & while [ ! -s "$0" ]; do sleep 0.1; done' "$run/log.jsonl" \
    "$cria" train "$config" "run.dir=$run" run.steps=1000000 run.log_every=1000
holder=$(cut -d ' ' -f 2 "$run/.lock")
train 2 left run.steps=5 run.watchdog_seconds=15 --resume auto
expect_error 'a job whose launcher is gone' 3 "run.dir $run is still locked after 2 s (by process $holder of "
kill -KILL "$holder"

# A supervisor waits with it, and does not take it for a mistake.
cat >"$work/wrap" <<END
#!/bin/sh
exec mpirun -n 2 "$(realpath "$cria")" "\$@"
END
chmod +x "$work/wrap"
held 5
run scripts/supervise.sh -w 1 -d "$run" "$work/wrap" train "$config" "run.dir=$run" run.steps=7 \
    run.watchdog_seconds=15
expect_status 'a supervised run behind a lock' 0
expect 'a supervised run behind a lock: checkpoint' "$(newest_step)" 7
