#!/bin/sh
# check.sh [SETTING=VALUE ...]: installs what is missing, builds, passes every test. Settings go to
# make, for example SANITIZE=address; T=WORD in the environment runs only tests with WORD in their
# name. The last line says "N passed, N failed".
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. scripts/env.sh

scripts/setup.sh
make -j"$cores" "$@" tests
exec tests/run.sh # as make check does, but no line of make's can follow the last one
