#!/bin/sh
# setup.sh [--lint]: installs what building, testing and plotting need and this
# machine lacks; with --lint also what scripts/lint.sh needs. Debian 12 and Ubuntu
# 24.04, as root or with sudo. Installs nothing, and asks no network, when all is
# there. Exit status 3: something is missing and cannot be installed from here.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. scripts/env.sh
lint=''
[ "${1-}" != --lint ] || { lint=1 && shift; }
[ $# = 0 ] || mistake "unknown argument $1: the only one is --lint"

cc=${CC:-gcc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

has_header() { printf '#include <%s>\n' "$1" | "$cc" -DPCRE2_CODE_UNIT_WIDTH=8 -E - >/dev/null 2>&1; }

# A start of two ranks that find each other. To have mpicc and mpirun is not enough: they may belong
# to different MPIs, and the MPICH of Ubuntu 24.04 starts two worlds of one (Launchpad bug 2072338).
has_mpi() {
    command -v mpicc >/dev/null && command -v mpirun >/dev/null || return 1
    cat >"$scratch/two.c" <<'END'
#include <mpi.h>
int main(int argc, char **argv) {
    int ranks = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Finalize();
    return ranks != 2;
}
END
    mpicc -o "$scratch/two" "$scratch/two.c" >/dev/null 2>&1 &&
        timeout 60 mpirun -n 2 "$scratch/two" >/dev/null 2>&1 </dev/null
}

# Debian's python3 gets Debian's matplotlib; another python3 may come first in PATH.
has_matplotlib() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import matplotlib' >/dev/null 2>&1 && return 0
    done
    return 1
}

mpi_packages() {
    case $(. /etc/os-release && echo "${ID:-} ${VERSION_ID:-}") in
        'ubuntu 24.04') echo openmpi-bin libopenmpi-dev ;;
        *) echo mpich libmpich-dev ;;
    esac
}

# Sets `missing` for people and `packages` for apt-get.
look() {
    missing='' packages=''
    command -v make >/dev/null || lack make make
    command -v "$cc" >/dev/null || lack "$cc" gcc
    has_header stdlib.h || lack 'the C library headers' libc6-dev
    has_header yaml.h || lack libyaml libyaml-dev
    has_header zlib.h || lack zlib zlib1g-dev
    has_header pcre2.h || lack pcre2 libpcre2-dev
    has_header cmocka.h || lack cmocka libcmocka-dev
    has_mpi || lack 'a working MPI (mpicc, mpirun)' "$(mpi_packages)"
    has_matplotlib || lack 'Python 3 with matplotlib' 'python3 python3-matplotlib'
    for tool in ${lint:+cppcheck shellcheck pyflakes3}; do
        command -v "$tool" >/dev/null || lack "$tool" "$tool"
    done
}
lack() {
    missing="$missing${missing:+, }$1"
    packages="$packages $2"
}

look
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    fail "this is neither Debian nor Ubuntu: install these, with headers, and try again: $missing"
fi
as_root=''
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=sudo
    else
        fail "run as root, then try again: apt-get update && apt-get install -y$packages"
    fi
fi

echo "setup: installing$packages"
apt() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" >"$scratch/apt.log" 2>&1; }
# shellcheck disable=SC2086 # a list of words
if ! { apt update && apt install -y --no-install-recommends $packages; }; then
    tail -n 20 "$scratch/apt.log" >&2
    fail "apt-get could not install:$packages (its last words are above)"
fi
look
[ -z "$missing" ] || fail "still missing after installing$packages: $missing"
