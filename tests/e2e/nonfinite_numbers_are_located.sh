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
