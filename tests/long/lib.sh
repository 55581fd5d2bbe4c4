# lib.sh: sourced by the long tests that need several hosts. Each host is a set of network, UTS, mount and
# pid namespaces on this machine, with a name, an address, a boot id and a /dev/shm of its own; files are
# shared. The test runs in such namespaces, too, so that it meets no port, no daemon and no process of the
# machine's, and everything that it started ends with it, even when it is killed. It sources
# tests/e2e/lib.sh. `needs` names the commands that the test uses, beside those named here.
# shellcheck shell=sh
set -u

# skip REASON: this machine cannot run the test (tests/run.sh knows exit status 77)
skip() {
    echo "skipped: $*"
    exit 77
}

if [ -z "${LONG_NAMESPACE-}" ]; then
    [ "$(id -u)" = 0 ] || skip 'hosts in namespaces of this machine need root'
    missing=''
    for command in unshare nsenter ip ${needs:-}; do
        command -v "$command" >/dev/null || missing="$missing $command"
    done
    [ -z "$missing" ] || skip "not installed:$missing"
    unshare -n -m -u -p -f --kill-child --mount-proc sh -c 'ip link add type veth && mount -t tmpfs t /mnt' \
        2>/dev/null || skip 'no network, mount and pid namespaces with veth devices can be made here'
    outer=$(mktemp -d "${TMPDIR:-/tmp}/cria-long.XXXXXX") || exit 3
    inner=''
    trap '[ -z "$inner" ] || { kill "$inner"; wait "$inner"; }; rm -rf "$outer"' EXIT
    trap 'exit 130' INT TERM
    LONG_NAMESPACE=1 TMPDIR=$outer unshare -n -m -u -p -f --kill-child --mount-proc sh "$0" "$@" &
    inner=$!
    result=0
    wait $inner || result=$?
    inner=''
    exit $result
fi

# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"

network=10.99.0
hostname head
printf '127.0.0.1 localhost\n%s.254 head\n' $network >"$work/hosts"
for n in 1 2 3 4; do echo "$network.$n n$n" >>"$work/hosts"; done
mount --bind "$work/hosts" /etc/hosts
ip link set lo up
ip link add bridge type bridge
ip addr add $network.254/24 dev bridge
ip link set bridge up

# host N: starts the host nN, address $network.N. The variable host_N has the process id of its first process.
host() {
    od -An -N 16 -t x1 /dev/urandom |
        sed 's/ //g; s/\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)/\1-\2-\3-\4-/' >"$work/boot_id.$1"
    # shellcheck disable=SC2016 # expanded by the host's shell, which is its init: it waits for orphans
    unshare -n -m -u -p -f --kill-child --mount-proc sh -c '
        hostname "n$1" && mount -t tmpfs shm /dev/shm && ip link set lo up &&
            mount --bind "$2/boot_id.$1" /proc/sys/kernel/random/boot_id && echo $$ >"$2/up.$1"
        while :; do sleep 1000 & wait $!; done' init "$1" "$work" &
    eval "unshare_$1=$!"
    wait_for test -s "$work/up.$1"
    first=$(sed -n 1p "/proc/$!/task/$!/children")
    eval "host_$1=${first% }"
    ip link add "veth$1" type veth peer name eth0 netns "${first% }"
    ip link set "veth$1" master bridge up
    on "$1" ip addr add "$network.$1/24" dev eth0
    on "$1" ip link set eth0 up
}

# on N COMMAND...: on the host nN
on() {
    eval "first=\$host_$1"
    shift
    nsenter -t "$first" -n -m -u -p -- "$@"
}

# crash N: the host nN is gone with all its processes
crash() {
    eval "kill -KILL \$unshare_$1"
    eval "wait \$unshare_$1 2>/dev/null" || true
    ip link del "veth$1" 2>/dev/null || true # at once: its host's end would delete it later
    rm -f "$work/up.$1"
}
