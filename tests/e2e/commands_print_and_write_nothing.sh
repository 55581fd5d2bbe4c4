#!/bin/sh
# --dry-run, config, version, check and the usage: what they print, their exit status, and that they
# leave no files.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# printed WHAT TEXT...: lines of stdout that hold the text, one each
printed() {
    what=$1
    shift
    for text in "$@"; do
        expect "$what: lines with '$text'" "$(grep -cF -- "$text" "$work/out")" 1
    done
}

# ---- cria train --dry-run --------------------------------------------------------------------------

# Weights: tied embedding + per layer (q k v o + gate up down + 2 norms) + final norm.
weights=$((4096 * 16 + 2 * (16 * 32 + 2 * 16 * 16 + 32 * 16 + 3 * 16 * 32 + 2 * 16) + 16))

train 4 dry --dry-run parallel.cp=2 parallel.backend=ring
expect_status '--dry-run' 0
expect '--dry-run: stderr' "$(cat "$work/err")" ''
expect '--dry-run: run.dir' "$(ls "$work/dry" 2>&1)" \
    "ls: cannot access '$work/dry': No such file or directory"
printed '--dry-run' "  dir: \"$work/dry\"" 'layers: 2' 'warmup_steps: 0' \
    "$(awk -v n=$weights 'BEGIN { printf "%.1f k parameters: 2 layers, hidden 16, 8/4 heads of 4", n / 1e3 }')" \
    '4 ranks on cpu = dp 2 x cp 2 (ring)' 'dp 0: ranks 0 .. 1' 'dp 1: ranks 2 .. 3' \
    '8 sequences = 2 micro-batches x 2 sequences x dp 2;' '           256 tokens a step' 'flops      ' \
    'speed      not estimated for CPUs' \
    'memory per rank' '  weights ' '  gradients ' '  optimizer ' '  total '

# What it prints is a configuration, and the one that a run records.
sed -n '1,/^$/p' "$work/out" >"$work/resolved.yaml"
run "$cria" train "$work/resolved.yaml" --dry-run parallel.cp=1
expect_status 'the printed configuration' 0
train 1 real run.steps=1
expect_status 'one step' 0
run "$cria" train "$work/real/config.yaml" --dry-run
sed -n '1,/^$/p' "$work/out" | sed '$d' >"$work/resolved.yaml"
expect_same 'config.yaml printed again' resolved.yaml real/config.yaml
expect 'parameters in the log' \
    "$(sed -n 's/.*"parameters":\([0-9]*\),.*/\1/p' "$work/real/log.jsonl")" $weights

# ---- cria check ------------------------------------------------------------------------------------

checkpoint=$work/real/step_00000001.safetensors
cksum "$checkpoint" >"$work/before"
run "$cria" check "$checkpoint"
expect_status 'check of a good file' 0
printed 'check of a good file' 'tensors have one, all match' 'cria.step        1'
for group in 'weights' 'first moments' 'second moments'; do
    expect "check: elements of $group" "$(sed -n \
        "s/^  $group  *[0-9]* tensors *\([0-9]*\) elements.*/\1/p" "$work/out")" $weights
done
cksum "$checkpoint" >"$work/after"
expect_same 'a checked file' after before

size=$(wc -c <"$checkpoint")
altered() { # WHAT TEXT OFFSET: four other bytes there
    cp "$checkpoint" "$work/altered"
    printf '\001\002\003\004' | dd of="$work/altered" bs=1 seek="$3" conv=notrunc 2>/dev/null
    run "$cria" check "$work/altered"
    expect_refused "$1" 2 "$2"
}
altered 'check: header length' 'altered: not a safetensors file, or cut short' 4
altered 'check: header text' 'altered' 200
altered 'check: first tensor' "altered is damaged: tensor 'model.embed_tokens.weight'" \
    $((size - 3 * 4 * weights + 40))
altered 'check: last tensor' "altered is damaged: tensor 'optim.v." $((size - 4))
head -c $((size - 1)) "$checkpoint" >"$work/cut"
run "$cria" check "$work/cut"
expect_refused 'check: the last byte is missing' 2 "$work/cut"
run "$cria" check "$work/none"
expect_refused 'check: missing file' 2 "cannot open $work/none"
run "$cria" check README.md
expect_refused 'check: something else' 2 'README.md: not a safetensors file'
run "$cria" check
expect_refused 'check: no argument' 2 'missing CHECKPOINT'

# ---- the others ------------------------------------------------------------------------------------

run "$cria" version
# the commit, or `unknown` in a tree without git's history, and what it runs on; then what an older CUDA lacks
expect 'version' "$status $(sed 's/^cria [^ ]* (cpu\(, cuda\)*)$/cria N/; 2{/^CUDA 12\.[0-9]: ./d}' "$work/out")$(cat "$work/err")" \
    '0 cria N'

# Every key of the table is there; a resolved config.yaml holds every key, too.
run "$cria" config
expect_status 'cria config' 0
awk '/^[a-z]/ { section = /:$/ ? $1 : ""; if ($0 ~ /:$/) sub(":", ".", section); else print $1 }
     /^  [a-z]/ { print section $1 }' "$work/real/config.yaml" | sed 's/:$//' >"$work/keys"
expect 'keys in config.yaml, at least 40' "$(($(wc -l <"$work/keys") >= 40))" 1
while read -r key; do
    expect "cria config: $key" "$(grep -cE "^ *$key\b" "$work/out" | sed 's/[1-9][0-9]*/some/')" some
done <"$work/keys"

run "$cria" --help
expect_status 'cria --help' 0
cp "$work/out" "$work/usage"
run "$cria" help
expect_same 'cria help' usage out

# The texts beside options and settings that do not begin with a capital or a number, or do not end with a
# full stop, before a default in brackets if there is one.
help_sentences() {
    awk 'function judge() {
             if (text != "" && (text !~ /^[A-Z0-9]/ || text !~ /\.( \[.*\])?$/)) print text
             text = ""
         }
         /^  [^ ]/ { judge(); n = split(substr($0, 3), part, /  +/); text = part[n]; next }
         /^    / && text != "" { sub(/^ */, ""); text = text " " $0; next }
         { judge() }
         END { judge() }' "$work/out"
}

# Every command of the usage has help, that fits 80 columns.
sed -n 's/^  \([a-z][a-z]*\( [a-z][a-z]*\)\{0,1\}\)   *.*/\1/p' "$work/usage" >"$work/commands"
expect 'commands in the usage, at least 15' "$(($(wc -l <"$work/commands") >= 15))" 1
while read -r command; do
    # shellcheck disable=SC2086 # words
    run "$cria" $command --help
    expect "cria $command --help" "$status $(grep -c "^usage: cria $command" "$work/out")" '0 1'
    expect "cria $command --help: widest line" "$(awk 'length > 80' "$work/out")" ''
    # shellcheck disable=SC2016 # awk's
    expect "cria $command --help: sentences that begin small or do not end" "$(help_sentences)" ''
    cp "$work/out" "$work/help"
    # shellcheck disable=SC2086
    run "$cria" help $command
    expect_same "cria help $command" help out
done <"$work/commands"
expect 'widest line of the usage' "$(awk 'length > 80' "$work/usage")" ''
run "$cria" --version
expect '--version' "$status $(sed -n '1s/^\(cria \).*/\1/p' "$work/out")" '0 cria '
run "$cria" config optim.lr
expect 'config optim.lr' "$status $(grep -c '^  optim.lr: a number' "$work/out") $(grep -c . "$work/out")" '0 1 3'
run "$cria" config optin
expect_refused 'config optin' 2 'did you mean optim?'
run "$cria" data --help
expect 'cria data --help' "$status $(grep -c '^  data ' "$work/out") $(grep -c '^  train ' "$work/out") $(
    grep -c '^usage: cria data COMMAND' "$work/out") $(grep -c mpirun "$work/out")" '0 3 0 1 0'
cp "$work/out" "$work/help"
run "$cria" help data
expect_same 'cria help data' help out
run "$cria" data
expect_refused 'cria data' 2 "cria data: the command behind it is missing, expected inspect, pack or order"
run "$cria" plan $config --optim.lr=1e-4
expect_refused 'a key with dashes' 2 'write the key without dashes: optim.lr=1e-4'
run "$cria" help --man
expect 'the man page' "$status $(grep -c '^\.SS' "$work/out")" "0 $(wc -l <"$work/commands")"
run "$cria" help plan --man
expect_refused 'the man page of one command' 2 "--man is of all commands: found 'plan'"
"$cria" help --completion bash >"$work/completion"
expect 'completion' "$(bash -c ". '$work/completion'; COMP_WORDS=(cria data pa) COMP_CWORD=2; _cria
    echo \"\${COMPREPLY[*]}\"; COMP_WORDS=(cria plan --ra) COMP_CWORD=2; _cria; echo \"\${COMPREPLY[*]}\"" |
    tr '\n' ' ')" 'pack --ranks --ranks-per-node '

run "$cria"
expect_status 'cria' 2
cp "$work/err" "$work/found"
expect_same 'usage without arguments' found usage
