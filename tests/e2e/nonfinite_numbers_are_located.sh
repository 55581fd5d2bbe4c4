#!/bin/sh
# A loss that is not finite ends the run before it touches weights or files: exit status 3, and a
# sentence that names rank, layer, tensor and samples.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

for n in 1 4; do
    train $n huge$n run.steps=1000 run.save_every=1 model.init_std=10 optim.lr=100 optim.clip=0
    expect_status "$n ranks, numbers that grow without limit" 3
    step=$(($(newest_step) + 1))
    rank=''
    [ $n = 1 ] || rank='rank [0-3]: '
    expect "$n ranks: lines on stderr" "$(grep -c '' "$work/err")" 1
    expect "$n ranks: sentence ($(cat "$work/err"))" "$(grep -cE "^cria: error: step $step: loss \
[a-z0-9.]+, gradient norm [a-z0-9.]+, and the same when run again; nothing was written: ${rank}the (output of layer [01] is the \
first tensor that is not finite|gradient of model\.[a-z0-9._]+ is not finite), \
samples [0-9]+, [0-9]+\$" "$work/err")" 1
    expect "$n ranks: steps logged" "$(steps_logged)" $((step - 1))
    expect "$n ranks: unfinished files" "$(find "$run" -name '*.tmp')" ''
    run "$cria" check "$(newest)"
    expect_status "$n ranks: the last checkpoint" 0
done

# With skip the weights stay as they were, but a run that is lost still ends.
train 2 lost run.steps=1000 model.init_std=10 optim.lr=100 optim.clip=0 run.on_nonfinite=skip \
    run.max_skips=3
expect_error 'skip, numbers that grow without limit' 3 \
    '4 updates in a row would be left out, run.max_skips is 3'
expect 'skip: records' "$(grep -c '"kind":"skip".*"found":"step.*samples [0-9]*, [0-9]*"' \
    "$run/log.jsonl")" 3
expect 'skip: weights of the last four steps' "$(logged lost weights_crc | tail -n 4 | cut -d ' ' -f 2 |
    uniq | wc -l)" 1
