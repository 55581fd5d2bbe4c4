#!/bin/sh
# scripts/lm_eval.sh as run.on_save, with a stand-in for lm_eval that writes what that writes: it gets a directory
# that transformers reads, its results become a line each of run.dir/lm_eval.jsonl, and nothing else stays.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

mkdir "$work/bin"
cat >"$work/bin/lm_eval" <<'END'
#!/bin/sh
echo "arguments: $*" >>"$LOG"
while [ $# != 0 ]; do
    case $1 in
        --model_args) hf=${2#pretrained=} ;;
        --output_path) out=$2 ;;
        --fail) exit 5 ;;
    esac
    shift
done
(cd "$hf" && ls config.json model.safetensors tokenizer.json) >>"$LOG" || exit 9
mkdir -p "$out/name"
echo '{"results": {"piqa": {"alias": "piqa", "acc,none": 0.5, "acc_stderr,none": 0.25}}}' >"$out/name/results_2026.json"
END
chmod +x "$work/bin/lm_eval"
export LOG="$work/calls" CRIA="$PWD/$cria"
path=$PATH
export PATH="$work/bin:$PATH"

hook() { sed -n 's/.*"kind":"hook","step":\([0-9]*\),.*"outcome":"\([a-z ]*\)","status":\([a-z0-9]*\),.*/\1 \2 \3/p' "$work/$1/log.jsonl" | tr '\n' ';'; }
expect_no_leftovers() { expect "$1: leftovers" "$(find "$work/$1" -name 'lm_eval.?*' ! -name lm_eval.jsonl)" ''; }

train 2 good run.steps=1 data.tokenizer=data/tokenizer.json run.on_save='scripts/lm_eval.sh piqa,lambada -- --limit 3'
expect_status 'a run' 0
expect 'how the command ended' "$(hook good)" '1 done 0;'
expect 'a line of results' "$(cat "$work/good/lm_eval.jsonl")" \
    '{"step": 1, "results": {"piqa": {"acc": 0.5, "acc_stderr": 0.25}}}'
expect 'what lm_eval got' "$(sed "s|$work/good/lm_eval\.[A-Za-z0-9]*|EXPORT|g" "$work/calls")" "arguments: --model hf --model_args \
pretrained=EXPORT/hf --tasks piqa,lambada --output_path EXPORT/out --limit 3
config.json
model.safetensors
tokenizer.json"
expect_no_leftovers good

train 2 bad run.steps=1 data.tokenizer=data/tokenizer.json run.on_save='scripts/lm_eval.sh piqa -- --fail'
expect_status 'a run whose evaluation fails' 0
expect 'lm_eval fails' "$(hook bad)" '1 failed 5;'
expect_no_leftovers bad

script=scripts/lm_eval.sh
by_hand() { CRIA_CHECKPOINT="$work/good/step_00000001.safetensors" sh "$script" "$@"; }
run by_hand piqa
expect_status 'by hand' 0
expect 'by hand: lines' "$(wc -l <"$work/good/lm_eval.jsonl") $(sort -u "$work/good/lm_eval.jsonl" | wc -l)" '2 1'
run by_hand piqa --limit
expect 'an option without --' "$status $(cat "$work/err")" '2 lm_eval.sh: unknown argument --limit: options of lm_eval follow --'
run sh "$script" piqa
expect 'no checkpoint' "$status $(cat "$work/err")" '2 lm_eval.sh: CRIA_CHECKPOINT is not set: run.on_save sets it'
run env CRIA_CHECKPOINT="$work/none" sh "$script" piqa
expect_status 'no such checkpoint' 2
if ! PATH=$path command -v lm_eval >/dev/null; then
    export PATH="$path"
    run by_hand piqa
    expect 'no lm_eval' "$status $(cat "$work/err")" "3 lm_eval.sh: lm_eval is not in PATH: pip install 'lm_eval[hf]'"
fi
