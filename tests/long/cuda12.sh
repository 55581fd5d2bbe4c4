#!/bin/sh
# timeout: 5400
# The oldest CUDA that cria builds with, 12.4, of Debian 13 in a chroot: everything compiles and links,
# `cria version` says what stands in, the bundle finds the libraries of CUDA 12. What CUDA 12.6 and 12.8 have in
# another form compiles with their headers, of which PyPI has no nvcc. No GPU is needed.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"
# shellcheck source=tests/chroot.sh
. tests/chroot.sh

# ---- headers of 12.6 and 12.8 --------------------------------------------------------------------

if ! python3 -m pip --version >/dev/null 2>&1; then
    echo 'not tested: headers of CUDA 12.6 and 12.8, for lack of pip'
else
    for version in 12.6 12.8; do
        wheels=$work/wheels-$version
        if ! python3 -m pip download -q --no-deps -d "$wheels" "nvidia-cuda-runtime-cu12==$version.*" \
            "nvidia-cuda-nvcc-cu12==$version.*" "nvidia-nccl-cu12==2.26.*" >"$work/pip" 2>&1; then
            echo "not tested: headers of CUDA $version, which pip cannot get"
            continue
        fi
        for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$wheels/"; done
        # These files are C++ without kernels.
        for file in comm_ipc comm_ipc_connect ops_cuda comm_nccl; do
            run g++ -std=c++17 -x c++ -fsyntax-only -Wall -Wextra -Isrc -Icuda "-I$wheels/nvidia/cuda_runtime/include" \
                "-I$wheels/nvidia/cuda_nvcc/include" "-I$wheels/nvidia/nccl/include" "cuda/$file.cu"
            expect "cuda/$file.cu with CUDA $version: errors and warnings" "$(grep -E 'error|warning' "$work/err")" ''
            expect_status "cuda/$file.cu with CUDA $version" 0
        done
        rm -rf "$wheels"
    done
fi

# ---- CUDA 12.4 -----------------------------------------------------------------------------------

reason=$(lacking 12)
[ -z "$reason" ] || skip "$reason"
debian trixie main,contrib,non-free
packages nvidia-cuda-toolkit libnccl-dev make gcc libc6-dev mpich libmpich-dev libyaml-dev zlib1g-dev libpcre2-dev libcmocka-dev
inside 'nvcc --version'
release=$(sed -n 's/.*release \([0-9.]*\),.*/\1/p' "$work/out")
inside "make -j$cores GPU=1 all gpu-tests"
expect_status "make GPU=1 with CUDA $release" 0
expect "CUDA $release: warnings but for spilled registers and 32-bit libraries" "$(grep -i warning "$work/err" | grep -vE 'spilled|Skipping incompatible')" ''
grep -i spill "$work/err"

inside 'build/cria version'
expect 'version: the toolkit and what stands in' "$status $(sed -n '2s/:.*batches.*/: said/p' "$work/out")" "0 CUDA $release: said"
inside 'build/cria train tests/e2e/micro.yaml device=cpu run.dir=/tmp/run run.steps=3'
expect_status 'training on the CPU' 0
inside 'build/cria train configs/tiny.yaml device=cuda run.dir=/tmp/run2'
expect_refused 'training without a GPU' 3 'no usable NVIDIA GPU'

# Away from the loader's path, the libraries are found by env.sh.
inside 'make GPU=1 bundle && mkdir -p /opt/cuda && mv /usr/lib/x86_64-linux-gnu/libcublasLt.so.12* /opt/cuda/ && ldconfig &&
    ! build/bundle/bin/cria version && CRIA_BUNDLE=build/bundle && . build/bundle/env.sh && cria version && ! ldd build/bundle/bin/cria | grep "not found"'
expect_status "the bundle finds CUDA $release" 0
