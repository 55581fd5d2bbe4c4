# chroot.sh: sourced after tests/e2e/lib.sh by tests/long/*.sh; Debian of another version in a folder of $work,
# by debootstrap. What is mounted there is mounted in a namespace of its own, so that nothing is left when a
# command ends and `rm -rf` never crosses a mount. MIRROR is Debian's archive.
# shellcheck shell=sh disable=SC2034,SC2154 # variables of lib.sh
mirror=${MIRROR:-http://deb.debian.org/debian}

# lacking GB: why no chroot with that many gigabytes can be made here; nothing when one can
lacking() {
    if [ "$(id -u)" != 0 ]; then
        echo 'a chroot needs root'
    elif ! command -v debootstrap >/dev/null; then
        echo 'there is no debootstrap'
    elif ! unshare -m true 2>/dev/null; then
        echo 'mount namespaces are not allowed here'
    elif [ "$(df -Pk "$work" | awk 'NR == 2 { print int($4 / 1048576) }')" -lt "$1" ]; then
        echo "$work has less than $1 GB free; TMPDIR names another folder"
    elif ! python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=30)' \
        "$mirror/dists/stable/Release" 2>/dev/null; then
        echo "$mirror is not reached"
    fi
}
# skip REASON: the end of a test that can do nothing more here
skip() {
    [ "$failures" = 0 ] || exit 1
    echo "skipped: $1"
    exit 77 # tests/run.sh shows the line
}

# debian SUITE COMPONENTS: makes $root, a minimal Debian with a copy of this tree, less what was built,
# in /srv/cria
debian() {
    root=$work/$1
    unshare -m debootstrap --variant=minbase --components="$2" "$1" "$root" "$mirror" >"$work/debootstrap" 2>&1 ||
        { tail -n 3 "$work/debootstrap" && skip "debootstrap could not make Debian $1"; }
    mkdir -p "$root/srv/cria"
    tar -c --exclude=./build --exclude='./build-*' --exclude=./runs --exclude=./.git . | tar -x -C "$root/srv/cria"
}
# inside COMMAND: of a shell, in $root with /proc, terminals and shared memory, in the folder of the copy,
# with the environment of a new login. mounts: commands that mount more.
inside() {
    # shellcheck disable=SC2016 # expanded by the namespace's shell
    run unshare -m --pid --fork --kill-child sh -c 'mount -t proc proc "$1/proc" &&
        mount -t devpts -o newinstance,ptmxmode=666 pts "$1/dev/pts" && mount -t tmpfs shm "$1/dev/shm" &&
        eval "$2" && exec env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+http_proxy="$http_proxy"} chroot "$1" sh -c "cd /srv/cria && { $3
        }"' sh "$root" "${mounts:-:}" "$1"
}
packages() { # NAME...
    inside "apt-get update -q && apt-get install -y -q --no-install-recommends $*"
    [ "$status" = 0 ] || { show_output && skip "apt-get could not install $*"; }
}
