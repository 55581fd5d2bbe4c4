#!/bin/sh
# lint.sh: cppcheck finds nothing in src/ and tests/ but what tests/cppcheck.supp
# lists, shellcheck nothing in shell scripts, pyflakes nothing in Python. Takes
# seconds; .ci/run runs it, `make lint` runs it and clang-tidy. A linter that is
# not installed checks nothing: scripts/setup.sh --lint installs them.
set -u
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 3
. scripts/env.sh
[ $# = 0 ] || mistake "unknown argument $1: there are none"
failures=0

# lint TOOL COMMAND...: the command uses the tool and fails when it finds something
lint() {
    tool=$1
    shift
    if ! command -v "$tool" >/dev/null; then
        echo "not checked: $tool is not here"
    elif ! "$@"; then
        echo "$tool: findings"
        failures=$((failures + 1))
    fi
}
shell_scripts() { printf '%s\n' .ci/run scripts/*.sh scripts/*.slurm tests/*.sh tests/*/*.sh; }
shellcheck_all() { shell_scripts | xargs -P "$cores" -n 4 shellcheck -x; }

# cppcheck does not know C11's _Noreturn, and so not that REQUIRE ends a path.
lint cppcheck cppcheck -q -j"$cores" --std=c11 --library=posix,openmp -D_GNU_SOURCE \
    '-D_Noreturn=__attribute__((noreturn))' -Isrc -Itests --enable=warning,performance \
    --suppressions-list=tests/cppcheck.supp --error-exitcode=1 src tests
lint shellcheck shellcheck_all
lint pyflakes3 pyflakes3 scripts tests
[ $failures = 0 ] && echo 'lint: nothing found'
