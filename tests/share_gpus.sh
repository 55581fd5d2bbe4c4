#!/bin/sh
# mpiexec -n RANKS tests/share_gpus.sh GPUS PROGRAM [ARGUMENT...]: more ranks than GPUs, rank r on GPU r % GPUs, for
# tests. NCCL, which refuses two ranks on one GPU, is told that each round of ranks is a host of its own and goes
# through sockets; copies from memory to memory work as they do between GPUs. Slow: ranks of a GPU take turns.
# HOST_RANKS=N: each N ranks are a host of their own, also where there are GPUs enough.
set -eu
gpus=$1
shift
rank=${PMI_RANK:-${OMPI_COMM_WORLD_RANK:?this is not run by mpiexec}}
export CUDA_VISIBLE_DEVICES=$((rank % gpus)) NCCL_HOSTID="round$((rank / ${HOST_RANKS:-gpus}))" NCCL_NET=Socket \
    NCCL_SOCKET_IFNAME=lo
exec "$@"
