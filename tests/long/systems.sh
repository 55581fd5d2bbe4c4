#!/bin/sh
# timeout: 14400
# The two commands that README.md begins with, scripts/demo.sh and scripts/check.sh, on the bare base of Debian 12
# and of Debian 13 in a chroot: for a user with no rights, who is told what is missing; for root, without /sys and
# without git, whole; with both, the demo and the tests of MPI. SUITES="bookworm trixie" picks releases.
# Some 40 minutes a release on two idle cores.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"
# shellcheck source=tests/chroot.sh
. tests/chroot.sh

nobody='setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp'

# told WHAT STATUS TEXT: the last command ended so, with one line on stderr that holds TEXT
told() {
    expect_status "$suite: $1" "$2"
    expect "$suite: $1: lines on stderr, and with '$3'" "$(grep -c '' "$work/err") $(grep -cF -- "$3" "$work/err")" '1 1'
}

# demo WHAT: the demo runs to its end, and no library complains on stderr
demo() {
    inside 'scripts/demo.sh'
    expect_status "$suite, $1: demo" 0
    expect "$suite, $1: demo: resumed" "$(grep -c '^Bit for bit the same.$' "$work/out")" 1
    expect "$suite, $1: demo: ends with text" "$(grep -c '^The people of the United States' "$work/out")" 1
    expect "$suite, $1: demo: complaints" "$(grep -iE 'warning|error|hwloc|ucx|not found' "$work/err")" ''
}

# check WHAT [ARGUMENT]: the tests pass
check() {
    inside "scripts/check.sh ${2-}"
    expect_status "$suite, $1: check ${2-}" 0
    grep -E '^ +\||^(FAIL|skip)' "$work/out"
    tail -n 1 "$work/out" | sed "s|^|$suite, $1: |"
}

reason=$(lacking 4)
[ -z "$reason" ] || skip "$reason"
for suite in ${SUITES:-bookworm trixie}; do
    debian "$suite" main
    mounts=''
    for command in demo check; do
        inside "$nobody scripts/$command.sh"
        told "$command of a user with no rights" 3 'setup.sh: run as root, then try again: apt-get update && apt-get install -y'
    done

    demo 'without /sys and git'
    check 'without /sys and git'
    for command in demo check; do
        inside "$nobody scripts/$command.sh"
        told "$command of a user who may not write here" 3 'this user may not write into /srv/cria'
    done
    inside 'build/cria version'
    sed "s|^|$suite: |" "$work/out"

    packages git
    inside 'git init -q . && git add . && git -c user.name=test -c user.email=test@localhost commit -q -m copy'
    # shellcheck disable=SC2016 # expanded by the namespace's shell
    mounts='mount --rbind /sys "$1/sys"'
    demo 'with /sys and git'
    check 'with /sys and git' T=mpi
    # shellcheck disable=SC2016 # expanded in the chroot
    inside 'build/cria version | grep -F "$(git describe --always)"'
    expect_status "$suite: version names the commit" 0
    rm -rf --one-file-system "$root"
done
