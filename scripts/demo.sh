#!/bin/sh
# demo.sh [--no-setup]: from a fresh machine to a pretrained LLaMA. Installs what
# is missing, builds, trains a small model on real text with two MPI ranks, then
# loses its last checkpoint, resumes from the one before, is stopped and resumed
# again, and ends with the same bits. Draws the loss. Then trains a few steps by
# ring attention and by MagiAttention and lays the curves over each other, and
# prints text that the model generates. All goes into runs/demo; what the demo
# left there before is moved to runs/demo.old, and what was there is deleted.
# --no-setup: the tools are there and build/cria is built (make demo).
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. scripts/env.sh

run=runs/demo
case ${1-} in
    '')
        scripts/setup.sh
        must_write
        make -j"$cores"
        ;;
    --no-setup) [ -x build/cria ] || fail 'build/cria is not there: run make first' ;;
    *) mistake "unknown argument $1: the only one is --no-setup" ;;
esac

say() { printf '\n== %s\n\n' "$*"; }

# Two ranks share the cores. Each rank leaves its process id, to be signalled by it: what mpirun does
# with a signal is another thing in every MPI.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > 1 ? cores / 2 : 1))}"
train() {
    rm -f "$run/.ranks"
    set -- run.log_every=10 "$@"
    printf '$ mpirun -n 2 build/cria train configs/tiny.yaml run.dir=%s %s\n' "$run" "$*"
    # shellcheck disable=SC2016 # expanded by the ranks' shell
    mpirun -n 2 sh -c 'echo $$ >>"$0" && exec build/cria train configs/tiny.yaml "$@"' \
        "$run/.ranks" "run.dir=$run" "$@"
}
stop_ranks() {
    # shellcheck disable=SC2046 # a list of process ids
    [ ! -s "$run/.ranks" ] || kill -TERM $(cat "$run/.ranks") 2>/dev/null || true
}
newest() { find "$run" -name 'step_*.safetensors' | sort | tail -n 1; }
steps_logged() { grep -c '"kind":"step"' "$run/log.jsonl" || true; }
# Of all weights and moments: the bytes behind the header, which starts with its length.
digest() {
    header=$(od -An -t u8 -N 8 "$1")
    tail -c "+$((header + 9))" "$1" | sha256sum | cut -c 1-16
}

for tool in mpirun python3; do
    command -v $tool >/dev/null || fail "$tool is missing: scripts/setup.sh installs what is needed"
done
made_here() { [ -e "$1/.demo" ] || mistake "$1 was not made by the demo: move it away or remove it"; }
if [ -e "$run" ]; then
    made_here "$run"
    if [ -e "$run/.lock" ] && ! flock -n "$run/.lock" true; then mistake "$run is in use by a running job"; fi
    if [ -e "$run.old" ]; then
        made_here "$run.old"
        echo "Deleting $run.old, the run of an earlier demo"
        rm -rf "$run.old"
    fi
    echo "Moving $run, the run of the last demo, to $run.old"
    mv "$run" "$run.old"
fi
mkdir -p "$run"
touch "$run/.demo"

say 'Pretraining a small LLaMA on speeches, two ranks'
train
final=$(newest)

say 'The last checkpoint is lost: resume from the one before, and stop with SIGTERM on the way'
mv "$final" "$run/unbroken.safetensors"
[ -n "$(newest)" ] || fail "configs/tiny.yaml saved no checkpoint before the last step"
before=$(steps_logged)
train --resume auto run.log_every=1 & # to be stopped at its first step
job=$!
trap stop_ranks EXIT
trap 'exit 130' INT TERM
while kill -0 $job 2>/dev/null && [ "$(steps_logged)" -le "$before" ]; do sleep 0.1; done
stop_ranks
status=0
wait $job || status=$?
trap - EXIT INT TERM
[ $status = 4 ] || fail "expected exit status 4 (stopped and saved), got $status"
[ ! -e "$final" ] || fail "the run was over before it could be stopped"
printf '\nstopped: exit status 4, saved %s\n' "$(newest)"

say 'Resume what was stopped'
train --resume auto

say 'Compare the weights and moments of both runs after the last step'
unbroken=$(digest "$run/unbroken.safetensors") resumed=$(digest "$final")
printf '%s  %s\n' "$unbroken" 'never stopped' "$resumed" 'stopped and resumed'
if [ "$unbroken" != "$resumed" ]; then
    echo 'demo.sh: the resumed run differs from the unbroken one' >&2
    exit 1
fi
rm "$run/unbroken.safetensors" "$run/.ranks"
echo 'Bit for bit the same.'

say 'The loss'
scripts/plot_loss.py "$run"

say 'Sequences shared by two ranks, with ring attention and MagiAttention, against whole sequences'
scripts/compare_loss.py configs/tiny.yaml --cp 1,2 --backends ring,magi --ranks 2 --steps 15 \
    --out "$run" --drop-checkpoints 'data.val=[]'
echo "Also in $run: the log (log.jsonl), the configuration (config.yaml) and the checkpoints."

say 'What the model has learnt to say'
for prompt in 'Gentlemen of the Senate' 'The people of the United States'; do
    printf "\$ build/cria generate %s --prompt '%s'\n" "$run" "$prompt"
    build/cria generate "$run" --prompt "$prompt" --tokens 60
done
