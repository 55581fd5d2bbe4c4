#!/bin/sh
# README.md walked command by command, in a folder that has what a clone has: each indented line is run, shortened
# where it would take long, or is one of those that this test names as not to be run here. A new line fails until it
# is one or the other.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

root=$PWD program=$(realpath "$cria")
mkdir "$work/clone"
cd "$work/clone" || exit 3
for name in Makefile configs data scripts tests src README.md CONTRIBUTING.md CHANGELOG.md LICENSE; do ln -s "$root/$name" .; done
mkdir build
ln -s "$program" build/cria

short='run.steps=2 run.log_every=1 run.eval_every=0 optim.warmup_steps=0'
sed -n 's/^    \([^ ].*\)/\1/p' "$root/README.md" | sed 's/  *# .*//; s/^# .*//' | sed '/^$/d' >"$work/commands"
expect 'commands in README.md' "$([ "$(wc -l <"$work/commands")" -ge 20 ] || cat "$work/commands")" ''
ran=0
while read -r command <&3; do
    case $command in
        # by make demo and .ci/run; by tests/e2e/prepare.sh
        scripts/demo.sh* | scripts/check.sh* | *'pip install'* | *mine*) continue ;;
        # a cluster; eight GPUs
        sbatch* | 'mpirun -n 8 '*) continue ;;
        mpirun*'cria train configs/tiny.yaml'*) command="$command $short" ;;
        *'generate runs/demo'*)
            run sh -c "build/cria train configs/tiny.yaml run.dir=runs/demo $short"
            command="$command --tokens 4"
            ;;
        *'generate DIR --prompt TEXT '*) # the reader's own
            run build/cria export runs/demo runs/hf --tokenizer data/tokenizer.json
            command="$(echo "$command" | sed "s|DIR|runs/hf|; s|TEXT|'Once upon'|") --tokens 4"
            ;;
        *'generate CKPT'*) command=$(echo "$command" | sed 's/CKPT/runs\/demo/') ;;
        scripts/compare_loss.py*) # of a small model, 2 steps, in a folder of its own
            command=$(echo "$command batch.micro=1 --out runs/compare-$ran" |
                sed 's|configs/[a-z0-9-]*.yaml|tests/e2e/micro.yaml|; s|--steps [0-9]*|--steps 2|')
            ;;
        'build/cria '* | scripts/plot_loss.py* | scripts/report.py*) ;;
        *)
            expect "$command: is run, or named as not to be run" no yes
            continue
            ;;
    esac
    run sh -c "$command"
    expect_status "$command" 0
    ran=$((ran + 1))
done 3<"$work/commands"
expect 'commands that ran' "$((ran >= 16))" 1

# What README's links name is there.
grep -oE '\]\([^)h#][^)#]*' "$root/README.md" | cut -c3- | sort -u >"$work/links"
while read -r link; do
    expect "README.md links to $link" "$([ -e "$root/$link" ] || echo missing)" ''
done <"$work/links"
