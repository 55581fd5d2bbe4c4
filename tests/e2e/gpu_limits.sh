#!/bin/sh
# Models that the GPU kernels cannot run are refused before anything is opened, exit 2, naming the key,
# by train, --dry-run and plan, also where there is no GPU; and every kernel and every REQUIRE that could
# meet such a model is listed here with what keeps models from it. With DEVICE=cuda, as tests/run_gpu.sh
# runs it: what is not refused runs.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"
bundle=${BUILD:-build}
[ ! -x "$bundle/mpiexec" ] || mpirun() { "$bundle/mpiexec" "$@"; } # a host without MPI

# ---- refusals --------------------------------------------------------------------------------------

heads='model.head_dim: found'
for command in "train $config run.dir=$work/run" "train $config run.dir=$work/run --dry-run" "plan $config"; do
    for dim in 4 24 100 160 256; do
        # shellcheck disable=SC2086 # words
        run "$cria" $command device=cuda model.head_dim=$dim
        expect_refused "$command: heads of $dim" 2 "$heads $dim, expected a multiple of 16 up to 128"
    done
    # shellcheck disable=SC2086
    run "$cria" $command device=cuda model.head_dim=0 model.hidden=3200 model.heads=32 model.kv_heads=32
    expect_refused "$command: OpenLLaMA-3B" 2 "$heads 100 (model.hidden 3200 / model.heads 32), expected"
    # shellcheck disable=SC2086
    run "$cria" $command device=cuda model.head_dim=64 model.hidden=58081
    expect_refused "$command: hidden" 2 'model.hidden: found 58081, expected at most 58080 on H100'
done
run mpirun -n 2 "$cria" train "$config" "run.dir=$work/run" device=cuda model.head_dim=24
expect_refused 'two ranks' 2 "$heads 24, expected"
expect 'no run.dir' "$(find "$work" -name run)" ''

run "$cria" plan "$config" device=cuda model.head_dim=16
expect_status 'heads of 16' 0
run "$cria" plan "$config" device=auto model.head_dim=24
expect_status 'plan, auto' 0
expect_warning 'plan, auto' "on GPUs this plan cannot run: $heads 24, expected"
run "$cria" plan "$config" device=cpu model.head_dim=24
expect 'plan, cpu' "$status $(cat "$work/err")" '0 '

# ---- a CPU that was not asked for: one warning, whatever the ranks -----------------------------------

if [ ! -e /dev/nvidia0 ]; then
    run mpirun -n 2 "$cria" train "$config" "run.dir=$work/run" --dry-run device=auto model.hidden=2048 \
        model.layers=4 model.ffn=8192
    expect_status 'auto' 0
    expect_warning 'auto' 'device: auto takes the CPU'
    run "$cria" train "$config" "run.dir=$work/run" --dry-run device=cpu
    expect 'cpu' "$status $(cat "$work/err")" '0 '
    for program in "$bundle/tests/gpu_ops" "$bundle/tests/gpu_attention"; do
        [ -x "$program" ] || continue # not in a build without CUDA
        run "$program"
        expect "$program without a GPU: exit status, lines" "$status $(cat "$work/out" "$work/err" | wc -l)" '3 1'
    done
fi

# ---- on a GPU ----------------------------------------------------------------------------------------

if [ "${DEVICE:-cpu}" = cuda ]; then
    small="run.steps=2 run.eval_every=0 model.layers=1 device=cuda"
    config=configs/tiny.yaml
    for hidden in 12257 12288; do # rmsnorm's shared memory just above and at 48 KiB
        # shellcheck disable=SC2086 # words
        train 1 hidden$hidden $small model.hidden=$hidden optim.warmup_steps=0
        expect_status "hidden $hidden" 0
    done
    for dim in 16 48 112; do
        # shellcheck disable=SC2086
        train 1 dim$dim $small model.head_dim=$dim optim.warmup_steps=0
        expect_status "heads of $dim" 0
    done
    for what in attention cp; do
        run "$cria" bench $what device=cuda S=1k D=24
        expect_refused "bench $what" 2 'a multiple of 16 up to 128, found 24'
    done
    run "$cria" train "$config" "run.dir=$work/auto" --dry-run device=auto
    expect 'auto on a GPU' "$status $(cat "$work/err")" '0 '
    run env CUDA_VISIBLE_DEVICES= "$cria" train "$config" "run.dir=$work/auto" --dry-run device=auto
    expect_status 'auto, the GPU hidden' 0
    expect_warning 'auto, the GPU hidden' 'device: auto takes the CPU: no usable NVIDIA GPU: '
fi

# ---- what keeps models from each kernel and each REQUIRE -------------------------------------------
# A kernel that is not listed is one whose limits nobody has compared with ops/limits.c; then
# tests/test_ops_limits.c, which repeats the conditions, and this list need a line.
#   limit   gpu_model_problems() refuses what it cannot run
#   any     runs every size that the bounds of the keys in config/keys.c and the memory of a GPU allow
#   bug     only a mistake in cria can reach it

cat >"$work/expected" <<'LIST'
any adamw.cu adamw_kernel
any attention_portable_bwd.cu wait_kv_ready_kernel
any attention_portable_bwd.cu signal_dkv_done_kernel
limit attention_portable_bwd.cu bwd_kv_kernel
limit attention_portable_bwd.cu bwd_q_kernel
limit attention_portable_fwd.cu fwd_kernel
limit attention_sm90_bwd.cu bwd_kernel
limit attention_sm90_fwd.cu fwd_kernel
limit attention_delta.cu delta_kernel
any cross_entropy.cu cross_entropy_kernel
any cross_entropy.cu kept_kernel
any device.cu probe_kernel
any embedding.cu embedding_bwd_kernel
any embedding.cu embedding_fwd_kernel
any embedding.cu row_numbers_kernel
any fp8.cu absmax_kernel
any fp8.cu fp8_cast_kernel
any reduce.cu add_parts_kernel
any reduce.cu checksum_kernel
any reduce.cu map_kernel
any reduce.cu part_sums_kernel
any rmsnorm.cu add_parts_kernel
limit rmsnorm.cu rmsnorm_bwd_kernel
any rmsnorm.cu rmsnorm_bwd_row_kernel
any rmsnorm.cu rmsnorm_fwd_kernel
any rope.cu rope_kernel
any rows.cu move_rows_kernel
any rows.cu sum_rows_kernel
limit swiglu.cu swiglu_bwd_kernel
limit swiglu.cu swiglu_fwd_kernel
bug attention_sm90.cuh REQUIRE(result == CUDA_SUCCESS);
bug attention_launch.cu REQUIRE(!(a->accumulate_dq || a->accumulate_dkv) || a->work->remote.n == 0);
bug attention_launch.cu REQUIRE(bands[i].q_begin >= 0 && bands[i].q_end <= shape.Sq && bands[i].k_begin >= 0 &&
bug attention_launch.cu REQUIRE(shape.H % shape.K == 0);
bug attention_launch.cu REQUIRE(work->remote.n == 0 || (!a->resume && a->o != NULL && a->o_acc != NULL));
bug comm_nccl.cu REQUIRE(!ops->host_memory);
bug comm_nccl.cu REQUIRE(!x->open);
bug comm_nccl.cu REQUIRE(false);
bug comm_nccl.cu REQUIRE(group->n_recv_flags < COMM_GROUP_FLAGS_MAX);
bug comm_nccl.cu REQUIRE(nccl_of(c)->open);
bug comm_nccl.cu REQUIRE(ticket.id > 0 && ticket.id <= x->groups);
bug comm_nccl.cu REQUIRE(x->open);
bug comm_ipc.cu REQUIRE(*next < t->rings[r].n[slot] &&
bug comm_ipc.cu REQUIRE(offset >= 0 && offset + bytes <= t->bytes);
bug cross_entropy.cu REQUIRE(a->z_loss == NULL || a->grad);
bug cp.c REQUIRE(batch->S == rt->S && !rt->prefetched);
bug batch.c REQUIRE(cp_mask(&mask, o, mb->doc_begin, mb->n_docs) == OK);
bug batch.c REQUIRE(cp_plan(&b->plan, o, mask) == OK);
bug magi.c REQUIRE(n <= MAX_STAGES);
bug gemm.cu REQUIRE(type == DT_F8_E5M2);
bug gemm.cu REQUIRE(dtype_is_fp8(x->b.type) == fp8 && (x->a.scale != NULL) == fp8 &&
bug gemm.cu REQUIRE(!fp8 || (!x->transpose_a && x->transpose_b && x->k % FP8_UNIT == 0));
bug fp8.cu REQUIRE(dtype_is_fp8(a->type) && aligned16({a->columns}));
bug magi_fused.c REQUIRE(m->rt.plan->stages[s].own_row <= 0);
LIST

# A kernel's name ends with _kernel and is in the first lines of its definition.
for file in cuda/*.cu cuda/*.cuh; do
    awk -v file="${file#cuda/}" '
        /__global__/ { open = 1 }
        open && match($0, /[a-z0-9_]*_kernel\(/) { print file, substr($0, RSTART, RLENGTH - 1); open = 0 }
        open && /[;{]/ { print file, "a kernel whose name does not end with _kernel"; open = 0 }' "$file"
done >"$work/unsorted"
grep -o 'REQUIRE(.*' cuda/*.cu cuda/*.cuh src/cp/*.c | sed 's|^[^:]*/\([^:/]*\):|\1 |' >>"$work/unsorted"
sort -u "$work/unsorted" >"$work/found"
sed 's/^[a-z]* //' "$work/expected" | sort -u >"$work/listed"
expect_same 'kernels and REQUIREs' found listed
