#!/bin/sh
# Ranks that were started with different configurations, arguments, binaries or data are refused with
# one sentence, exit status 2, that names the rank and what differs; no file is made.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

# differ WHAT TEXT COMMAND...: rank 1 is started with COMMAND, rank 0 and 2 as usual
differ() {
    what=$1 text=$2
    shift 2
    usual="train $config run.dir=$work/run batch.global=12"
    # shellcheck disable=SC2086 # words
    run mpirun -n 1 "$cria" $usual : -n 1 "$@" : -n 1 "$cria" $usual
    expect_refused "$what" 2 "$text"
    expect "$what: run.dir" "$(find "$work" -name run)" ''
}
alike="$config run.dir=$work/run batch.global=12"

# shellcheck disable=SC2086
{
differ 'another seed' 'rank 1: the configuration differs from that of rank 0: found run.seed=5, expected run.seed=1234; start every rank' \
    "$cria" train $alike run.seed=5
differ 'another way to share attention' 'found parallel.backend=ring, expected parallel.backend=magi' \
    "$cria" train $alike parallel.backend=ring
sed 's/lr: 2e-3/lr: 3e-3/' "$config" >"$work/other.yaml"
differ 'another file' 'found optim.lr=0.003, expected optim.lr=0.002' \
    "$cria" train "$work/other.yaml" "run.dir=$work/run" batch.global=12
differ 'another --resume' 'found --resume auto, expected nothing' \
    "$cria" train $alike --resume auto
differ '--dry-run' 'found --dry-run, expected nothing' "$cria" train $alike --dry-run

cp "$cria" "$work/cria" && printf x >>"$work/cria"
differ 'another binary' 'rank 1: the binary differs from that of rank 0: found cria ' \
    "$work/cria" train $alike

# The same name, on a node whose copy of the data is another one
mkdir -p "$work/node/tests/e2e" "$work/node/data"
cp "$config" "$work/node/tests/e2e"
head -c 100000 data/sotu_train.bin >"$work/node/data/sotu_train.bin"
differ 'other data' 'rank 1: what is used differs from that of rank 0: found sotu_train.bin 100000 ' \
    -wdir "$work/node" "$(realpath "$cria")" train $alike
}
