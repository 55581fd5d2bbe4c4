#!/bin/sh
# bundle.sh: makes build/bundle/, which runs cria, its GPU tests and mpiexec on a
# host that has an NVIDIA driver, CUDA's runtime libraries and NCCL, and nothing
# else of what cria needs:
#   . bundle/env.sh && mpiexec -n 4 cria train ...
# It holds the programs, stripped, and every library that they or mpiexec load,
# but for those of the C and C++ runtimes and of CUDA.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. scripts/env.sh
[ $# = 0 ] || mistake "unknown argument $1: there are none; BUILD names the folder of the build"

build=${BUILD:-build}
bundle=$build/bundle
excluded='^(ld-linux|linux-vdso|libc|libm|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s|libcuda|libcudart|libcublas|libcublasLt|libnccl)[-.]'

mpiexec=$(command -v mpiexec.hydra) || fail "mpiexec.hydra is missing; install mpich"
[ -x "$build/cria" ] || fail "$build/cria is missing; run make bundle"

rm -rf "$bundle"
mkdir -p "$bundle/bin" "$bundle/lib"
cp "$build/cria" "$bundle/bin/"
find "$build/tests" -name 'gpu_*' -type f -perm -u+x -exec cp {} "$bundle/bin/" \;
strip "$bundle"/bin/*
cp -L "$mpiexec" "$bundle/bin/mpiexec"
cp -L "$(dirname "$mpiexec")/hydra_pmi_proxy" "$bundle/bin/"

# ldd lists what is loaded for what is loaded, too.
for program in "$bundle"/bin/*; do ldd "$program"; done | awk '$2 == "=>" { print $1, $3 }' |
    sort -u | while read -r name path; do
    if echo "$name" | grep -qE "$excluded"; then continue; fi
    [ -f "$path" ] || fail "the library $name is not found on this machine"
    cp -L "$path" "$bundle/lib/$name"
done
strip --strip-unneeded "$bundle"/lib/*

# CUDA may lie outside the loader's path, in a toolkit or in Python packages. Its libraries are those of
# the version that cria was built with, 12 or 13.
cuda=$(ldd "$bundle/bin/cria" | sed -n 's/.*libcublasLt\.so\.\([0-9]*\) .*/\1/p')
[ -n "$cuda" ] || fail "$build/cria is built without CUDA; run make GPU=1 bundle"
sed "s/@CUDA@/$cuda/g" >"$bundle/env.sh" <<'END'
# env.sh: to be sourced; puts this folder's programs and libraries, and CUDA's, on the paths.
# shellcheck shell=sh
bundle=${CRIA_BUNDLE:-$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE:-bundle/env.sh}")" && pwd)}
found=$bundle/lib
for library in libcublasLt.so.@CUDA@ libnccl.so.2 libcudart.so.@CUDA@; do
    if ldconfig -p | grep -q "$library"; then continue; fi
    path=$(find /usr/local /opt /usr/lib /root /home -maxdepth 10 -name "$library" 2>/dev/null |
        head -n 1)
    [ -z "$path" ] || found=$found:$(dirname "$path")
done
export PATH="$bundle/bin:$PATH" LD_LIBRARY_PATH="$found${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
END

megabytes=$(du -sm "$bundle" | cut -f1)
# With CUDA 12.4, which cannot compress kernels, on Debian 13, whose libmpich has 60 MB, it has 123; a CUDA
# library that was not left out would add hundreds.
[ "$megabytes" -lt 200 ] || fail "$bundle has $megabytes MB, more than 200"
echo "$bundle: $megabytes MB"
