#!/bin/sh
# timeout: 2400
# One run on two hosts (tests/long/lib.sh) that mpirun reaches by ssh: the losses are those of one host; a host
# that cannot be reached any more ends every rank, with its name; the run goes on without it. A slow link
# (tests/long/slow_link.c) between ranks of one context-parallel group: how much of its time each backend hides, in
# a table without verdict. Needs an ssh server (apt install openssh-server).
needs='ssh sshd ssh-keygen mpirun gcc pgrep'
# shellcheck source=tests/long/lib.sh
. "$(dirname -- "$0")/lib.sh"
config=$PWD/$config cria=$(realpath "$cria")

# ---- two hosts -------------------------------------------------------------------------------------

keys=$work/ssh
mkdir "$keys"
chmod 755 "$work"
ssh-keygen -q -t ed25519 -N '' -f "$keys/user"
ssh-keygen -q -t ed25519 -N '' -f "$keys/host"
for n in 1 2; do echo "n$n $(cat "$keys/host.pub")"; done >"$keys/known"
cat >"$keys/sshd" <<END_CONF
HostKey $keys/host
AuthorizedKeysFile $keys/user.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
END_CONF
cat >"$keys/client" <<END_SCRIPT
#!/bin/sh
exec ssh -F none -i $keys/user -o UserKnownHostsFile=$keys/known -o LogLevel=ERROR "\$@"
END_SCRIPT
chmod 755 "$keys/client"
sed 's/^root:!*/root:*/' /etc/shadow >"$keys/shadow" # without PAM, sshd refuses a locked account
mount --bind "$keys/shadow" /etc/shadow
for n in 1 2; do
    host $n
    on $n sh -c 'mount -t tmpfs run /run && mkdir -m 755 /run/sshd && mount -t sysfs sys /sys' || exit 3
    on $n "$(command -v sshd)" -D -e -f "$keys/sshd" 2>"$keys/log.$n" &
done
answers() { on 1 "$keys/client" "$1" true 2>"$keys/refused"; }
for n in n1 n2; do wait_for answers $n || { cat "$keys/refused" "$keys"/log.*; exit 1; }; done

unset OMPI_MCA_orte_execute_quiet # what mpirun says of a lost host
hydra=''
! mpirun --version 2>&1 | grep -q HYDRA || hydra=1
# spread RANKS_PER_HOST HOST... -- COMMAND...: under mpirun on the first of these hosts. device: of the network
spread() {
    each=$1 first=${2#n} names='' slots='' count=0
    shift
    while [ "$1" != -- ]; do
        names="$names${names:+,}$1" slots="$slots${slots:+,}$1:$each" count=$((count + each))
        shift
    done
    shift
    if [ -n "$hydra" ]; then
        set -- -launcher ssh -launcher-exec "$keys/client" -hosts "$names" -ppn "$each" -n $count "$@"
    else
        set -- --host "$slots" --mca plm_rsh_agent "$keys/client" --mca pml ob1 --mca btl self,vader,tcp \
            --mca btl_tcp_if_include "${device:-eth0}" --mca oob_tcp_keepalive_time 4 --mca oob_tcp_keepalive_intvl 1 \
            --mca oob_tcp_keepalive_probes 4 -n $count "$@"
    fi
    on "$first" env -C "$PWD" "UCX_NET_DEVICES=${device:-eth0}" mpirun "$@"
}
# trains RUN RANKS_PER_HOST HOST... -- [key=value...]
trains() {
    run=$work/$1 hosts=''
    shift
    while [ "$1" != -- ]; do hosts="$hosts $1" && shift; done
    shift
    # shellcheck disable=SC2086 # words
    run spread $hosts -- "$cria" train "$config" "run.dir=$run" "$@"
}

# ---- the same losses -------------------------------------------------------------------------------

ranks_per_node() { sed -n '1s/.*"ranks_per_node":\([0-9]*\).*/\1/p' "$work/$1/log.jsonl"; } # RUN
for backend in $(backends); do
    for cp in 2 4; do # cp 2: groups within a host; cp 4: across, planned in two levels
        trains "one-$backend-$cp" 4 n1 -- parallel.cp=$cp parallel.backend="$backend" data.mask=document
        expect_status "$backend, cp $cp, one host" 0
        trains "two-$backend-$cp" 2 n1 n2 -- parallel.cp=$cp parallel.backend="$backend" data.mask=document
        expect_status "$backend, cp $cp, two hosts" 0
        expect "$backend, cp $cp: hosts of the banner" "$(sed -n 's/^mpi .*; //p' "$work/out")" '2 hosts with 2 ranks each'
        expect "$backend, cp $cp: ranks_per_node" "$(ranks_per_node "one-$backend-$cp") $(ranks_per_node "two-$backend-$cp")" '4 2'
        curve "one-$backend-$cp" one
        curve "two-$backend-$cp" two
        if [ "$backend-$cp" = magi-4 ]; then # other ranks hold other chunks, so sums are in another order
            expect_close "$backend, cp $cp: losses and norms" two one 20 1e-6
        else
            expect_same "$backend, cp $cp: losses and norms" two one
        fi
    done
done

# ---- a host is lost --------------------------------------------------------------------------------

ranks_left() { # HOST
    on "$1" pgrep -c -f "^$cria train" || true
}
all_ended() { [ "$(ranks_left 1) $(ranks_left 2)" = '0 0' ] && [ -s "$work/ended" ]; }
endless='parallel.cp=4 run.steps=1000000 run.save_every=10 run.keep_last=2 run.watchdog_seconds=30'
# shellcheck disable=SC2086 # words
{ trains lost 2 n1 n2 -- $endless; echo "$status" >"$work/ended"; } &
run=$work/lost
wait_for steps_done 25 || show_output
expect 'ranks on each host' "$(ranks_left 1) $(ranks_left 2)" '2 2'
ip link set veth2 down
wait_for all_ended
if [ -n "$hydra" ]; then
    expect 'a host is lost: exit status' "$(cat "$work/ended")" 3
    expect 'a host is lost: sentences, and those that name it' "$(grep -c '^cria: error' "$work/err") $(grep -c \
        "^cria: error (rank [01]): no progress for .*, waiting for .*rank [23] on host n2.*: a rank is dead or stuck" "$work/err")" '1 1'
else # its mpirun has seen it before the watchdog
    expect 'a host is lost: exit status is not 0' $(($(cat "$work/ended") != 0)) 1
    expect 'a host is lost: mpirun names it' "$(grep -c 'Remote daemon: .* on node n2' "$work/err")" 1
fi
saved=$(newest_step)
run on 1 "$cria" check "$(newest)"
expect_status 'a host is lost: the newest checkpoint' 0

until=$((saved + 20))
trains lost 2 n1 -- parallel.cp=2 run.steps=$until --resume auto
expect_status 'one host goes on' 0
expect 'one host goes on: from' "$(grep -c "^resumed .*: step $saved," "$work/out")" 1
expect 'one host goes on: hosts' "$(sed -n 's/^mpi .*; //p' "$work/out")" '1 host with 2 ranks'
trains whole 4 n1 -- parallel.cp=4 run.steps=$until
curve lost lost.curve
curve whole whole.curve
expect_close 'one host goes on: losses and norms' lost.curve whole.curve "$until"

ip link set veth2 up
wait_for answers n2
trains lost 2 n1 n2 -- parallel.cp=4 run.steps=$((until + 5)) --resume auto
expect_status 'both hosts again' 0

# ---- a slow link -----------------------------------------------------------------------------------

gcc -O2 -Wall -Wextra -D_GNU_SOURCE -o "$work/slow_link" tests/long/slow_link.c || exit 3
# link MS MBIT: the devices slow0 of both hosts; nothing: the hosts' usual network
link() {
    device=eth0
    [ $# = 2 ] || return 0
    device=slow0
    rm -f "$work/link"
    # shellcheck disable=SC2154 # host_1 and host_2, by host()
    "$work/slow_link" "$host_1" "$host_2" $device "$1" "$2" >"$work/link" &
    link=$!
    wait_for grep -qs up "$work/link"
    for n in 1 2; do
        on $n ip addr add 10.98.0.$n/24 dev $device
        on $n ip link set $device mtu 9000 up
    done
}
unlink_hosts() {
    [ $device = eth0 ] || { kill "$link"; wait "$link" 2>/dev/null; }
    device=eth0
}
number() { echo "$row" | sed -n "s/.*\"$1\":\([-0-9.e+]*\)[,}].*/\1/p"; } # KEY: of a line of JSON in $row
text() { echo "$row" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# What the table calls link is the time that the messages of a rank take on it, one after the other.
echo 'attention across the link, ms:       forward                      backward'
echo 'link            mask      backend    time exposed  link   MiB     time exposed  link   MiB'
for setting in '' '1 400' '5 100'; do
    # shellcheck disable=SC2086 # words
    link $setting
    run spread 1 n1 n2 -- "$cria" bench cp --json device=cpu backend=ring,magi,allgather mask=causal,document S=4k alone=no
    expect_status "bench cp, link '$setting'" 0
    unlink_hosts
    while read -r row; do
        echo "${setting:-0 0} $(text mask) $(text backend) $(number fwd_ms) $(number fwd_exposed_ms) $(number fwd_mib)" \
            "$(number bwd_ms) $(number bwd_exposed_ms) $(number bwd_mib)"
    done <"$work/out" >"$work/rows"
    expect "bench cp, link '$setting': rows of numbers" "$(grep -cE '^([^ ]+ ){4}([0-9.e+-]+ ?){6}$' "$work/rows")" 6
    awk '{
        of[7] = of[10] = "-"
        if ($2 > 0) for (i = 7; i <= 10; i += 3) of[i] = sprintf("%.0f", $1 + $i * 8.389e3 / $2)
        link = $2 > 0 ? $1 " ms " $2 " Mbit/s" : "none in between"
        printf "%-15s %-9s %-9s %5.0f %7.0f %5s %5.2f    %5.0f %7.0f %5s %5.2f\n", link, $3, $4, $5, $6, of[7], $7, $8, $9, of[10], $10
    }' "$work/rows"
done
