#!/bin/sh
# check.sh [SETTING=VALUE ...]: installs what is missing, builds, passes every
# test. Settings are those of make, for example SANITIZE=address, or T=WORD for
# tests with WORD in their name. The last line says "N passed, N failed".
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. scripts/env.sh
for word; do
    case $word in
        -*) mistake "unknown option $word: make's settings only, NAME=VALUE" ;;
        *=*) ;;
        *) mistake "unknown argument $word: make's settings only, NAME=VALUE" ;;
    esac
done

scripts/setup.sh
must_write
make -j"$cores" "$@" all tests
# As make check does, but no line of make's can follow the last one.
# shellcheck disable=SC2163 # NAME=VALUE words
[ $# = 0 ] || export "$@"
exec tests/run.sh ${T:+"$T"}
