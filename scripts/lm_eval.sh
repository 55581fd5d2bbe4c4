#!/bin/sh
# lm_eval.sh TASKS [-- OPTION...]: lm-evaluation-harness on a checkpoint, as the
# command of run.on_save or by hand.
#
#   python3 -m venv venv && venv/bin/pip install 'lm_eval[hf]'
#   PATH=$PWD/venv/bin:$PATH mpirun -n 7 build/cria train FILE \
#       run.save_every=1000 run.on_save_minutes=60 \
#       run.on_save='scripts/lm_eval.sh hellaswag,arc_easy -- --device cuda:7'
#   CRIA_CHECKPOINT=runs/x/step_00001000.safetensors scripts/lm_eval.sh piqa
#
# It exports $CRIA_CHECKPOINT with its tokenizer, which data.tokenizer of the run
# names, beside the checkpoint, runs lm_eval on that, deletes it, and appends a
# line to lm_eval.jsonl in $CRIA_RUN_DIR, or the checkpoint's folder by hand:
# {"step": N, "results": {TASK: {METRIC: VALUE, ...}, ...}}.
#
# OPTIONs go to lm_eval, such as --batch_size 16, --limit 100, or --device cpu:
# without --device it takes the first GPU, which training may be using.
# CRIA names the program (build/cria). Exit status: lm_eval's; 2: a mistake in the
# command; 3: something is missing.
set -u
from=$PWD
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 3
project=$PWD
. scripts/env.sh
cd "$from" || exit 3

case ${1-} in
    '') mistake 'which tasks? --help explains' ;;
    -*) mistake "unknown option $1: options of lm_eval follow --" ;;
esac
tasks=$1
shift
[ "${1---}" = -- ] || mistake "unknown argument $1: options of lm_eval follow --"
[ $# = 0 ] || shift
checkpoint=${CRIA_CHECKPOINT-}
[ -n "$checkpoint" ] || mistake 'CRIA_CHECKPOINT is not set: run.on_save sets it'
[ -f "$checkpoint" ] || mistake "CRIA_CHECKPOINT: $checkpoint is no file"
command -v lm_eval >/dev/null || fail "lm_eval is not in PATH: pip install 'lm_eval[hf]'"

step=${CRIA_STEP:-$(basename "$checkpoint" .safetensors | sed 's/^step_0*//')}
dir=${CRIA_RUN_DIR:-$(dirname "$checkpoint")}
work=$(mktemp -d "$dir/lm_eval.XXXXXX") || exit 3
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM

"${CRIA:-$project/build/cria}" export "$checkpoint" "$work/hf" || exit
lm_eval --model hf --model_args "pretrained=$work/hf" --tasks "$tasks" --output_path "$work/out" "$@" || exit
python3 - "$work/out" "$step" >>"$dir/lm_eval.jsonl" <<'END'
import json, pathlib, sys

(path,) = pathlib.Path(sys.argv[1]).rglob("results_*.json")
results = {
    task: {name.removesuffix(",none"): x for name, x in values.items() if isinstance(x, (int, float))}
    for task, values in json.loads(path.read_text())["results"].items()
}
print(json.dumps({"step": int(sys.argv[2]), "results": results}))
END
