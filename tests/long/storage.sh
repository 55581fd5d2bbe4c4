#!/bin/sh
# timeout: 3600
# A run.dir on storage that two hosts share, as NFS does it: names, attributes and contents are kept by each host,
# locks are its own, errors of writes may come at fsync or close (tests/long/shared_storage.c, by FUSE). Runs and
# resumed runs have the bits of a local disk; slow storage is no hang; a quota, a full disk and every failing operation
# of a save end the run with one sentence, exit 3, and leave the earlier checkpoint whole. Needs root, libfuse3-dev
# and fuse3; some five minutes.
skip() {
    echo "skipped: $*"
    exit 77
}
if [ -z "${STORAGE_NAMESPACE-}" ]; then
    [ "$(id -u)" = 0 ] || skip 'mounts for two hosts need root'
    [ -e /dev/fuse ] || skip 'there is no /dev/fuse'
    pkg-config --exists fuse3 2>/dev/null || skip 'not installed: libfuse3-dev, pkg-config'
    command -v fusermount3 >/dev/null || skip 'not installed: fuse3'
    unshare -m -p -f --kill-child --mount-proc true 2>/dev/null || skip 'no mount and pid namespaces can be made here'
    STORAGE_NAMESPACE=1 exec unshare -m -p -f --kill-child --mount-proc sh "$0" # mounts and servers end with it
fi
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/../e2e/lib.sh"
trap 'unmount; finish' EXIT

# shellcheck disable=SC2046 # words
cc -O1 -D_GNU_SOURCE -Wall -Wextra -o "$work/shared_storage" tests/long/shared_storage.c \
    $(pkg-config --cflags --libs fuse3) || exit 3
real=$(realpath "$cria")
mkdir "$work/served" "$work/trouble" "$work/host0" "$work/host1" "$work/shared"
trouble() { echo "$2" >"$work/trouble/$1"; } # OPERATION ERROR, slow BYTES, quota BYTES
no_trouble() { rm -f "$work/trouble"/*; }

unmount() {
    for n in 0 1; do umount "$work/host$n" 2>/dev/null || true; done
}
# mounted_for MODE: both hosts mount the folder anew; MODE delayed: they keep writes
mounted_for() {
    unmount
    for n in 0 1; do
        (
            [ "$1" != delayed ] || export DELAYED=1
            "$work/shared_storage" "$work/served" "$work/trouble" "$work/host$n" \
                -o entry_timeout=60,negative_timeout=60,attr_timeout=60
        ) || exit 3
    done
    mode=$1
}

# Rank R is on host (R + $HOST_OF_0) % 2: it sees that host's mount as $work/shared. The process stays the same.
cat >"$work/cria" <<END
#!/bin/sh
rank=\${PMI_RANK:-\${OMPI_COMM_WORLD_RANK:-0}}
exec unshare -m sh -c 'mount --bind "\$0" "$work/shared" && exec "\$@"' \\
    "$work/host\$(((rank + HOST_OF_0) % 2))" "$real" "\$@"
END
chmod +x "$work/cria"
export HOST_OF_0=0
on_storage() { # RANKS RUN [ARGUMENT...]: train there
    cria=$work/cria
    ranks=$1 name=$2
    shift 2
    train "$ranks" "shared/$name" "$@"
    cria=$real run=$work/served/$name
}
whole() { # WHAT: the newest checkpoint, as a file server sees it
    run "$cria" check "$(newest)"
    expect_status "$1: newest checkpoint" 0
}
unfinished() { find "$run" -name '*.tmp'; }

train 2 local run.steps=12
expect_status 'on the local disk' 0
bits=$(tensors local 12)

# ---- two hosts -----------------------------------------------------------------------------------------

for kind in 'at once' delayed; do
    mounted_for "$kind"
    for async in true false; do
        what="writes $mode, save_async=$async"
        HOST_OF_0=0
        on_storage 2 run run.steps=4 run.save_every=2 run.save_async=$async
        expect_status "$what" 0
        HOST_OF_0=1 # which knows the folder of a minute ago
        on_storage 2 run run.steps=8 run.save_every=2 run.save_async=$async --resume auto
        expect_status "$what: resumed by the other host" 0
        expect "$what: resumed by the other host at" "$(sed -n 's/^resumed .*: step \([0-9]*\), .*/\1/p' "$work/out")" 4
        HOST_OF_0=0
        on_storage 2 run run.steps=12 --resume auto
        expect_status "$what: back on the first host" 0
        expect "$what: back on the first host at" "$(sed -n 's/^resumed .*: step \([0-9]*\), .*/\1/p' "$work/out")" 8
        expect "$what: tensors" "$(tensors served/run 12)" "$bits"
        whole "$what"
        expect "$what: unfinished files" "$(unfinished)" ''
        rm -r "$run"
    done
done

# ---- slow storage --------------------------------------------------------------------------------------

# More than twice the limit of the watchdog, and no single write takes half of it. Kept writes are sent in one
# call, which would take all that time.
sizes='model.vocab=32768 model.hidden=64 model.head_dim=8 batch.global=2 batch.micro=1'
for kind in 'at once' delayed; do
    mounted_for "$kind"
    # shellcheck disable=SC2086 # words
    {
        trouble slow 1500000
        on_storage 2 slow $sizes run.steps=1 run.watchdog_seconds=8
        expect_status "slow storage, writes $mode: a save" 0
        seconds=$(sed -n 's/.*"kind":"save",.*"seconds":\([0-9]*\)\..*"snap.*/\1/p' "$run/log.jsonl")
        expect "slow storage, writes $mode: a save of $seconds s" "$((seconds >= 16))" 1
        whole "slow storage, writes $mode"
        begin=$(date +%s)
        on_storage 2 slow $sizes run.steps=2 run.save_every=0 run.watchdog_seconds=8 --resume auto
        expect_status "slow storage, writes $mode: a resumed run" 0
        seconds=$(($(date +%s) - begin))
        expect "slow storage, writes $mode: a resumed run of $seconds s" "$((seconds >= 16))" 1
        no_trouble
    }
    rm -r "$run"
done

# ---- failures ------------------------------------------------------------------------------------------

# fails WHAT TEXT: the run that goes on from step 4 ends with one sentence, and later the run goes on from 4
fails() {
    what="$1, writes $mode"
    on_storage 2 run run.steps=8 run.save_every=8 --resume auto
    expect_refused "$what" 3 "$2"
    no_trouble
    expect "$what: unfinished files" "$(unfinished)" ''
    expect "$what: newest" "$(newest_step)" 4
    whole "$what"
    on_storage 2 run run.steps=12 --resume auto
    expect_status "$what: later" 0
    expect "$what: tensors" "$(tensors served/run 12)" "$bits"
    rm -f "$run"/step_00000012.*
}

rm -rf "$work/served/run"
for kind in 'at once' delayed; do
    mounted_for "$kind"
    on_storage 2 run run.steps=4
    expect_status "a run, writes $mode" 0
    for fault in create:EDQUOT create:EACCES truncate:ENOSPC truncate:EDQUOT write:ENOSPC write:EDQUOT write:EIO \
        fsync:EIO flush:EIO flush:EDQUOT rename:EIO; do
        trouble "${fault%:*}" "${fault#*:}"
        fails "$fault" 'earlier checkpoints are untouched'
    done
    trouble quota 300000 # of the 860,000 bytes of a checkpoint, that half of each host
    fails 'a quota' 'earlier checkpoints are untouched'
    rm -r "$run"
done

# Each write of a save, the header's at the end included, on either rank: as it comes, on the local disk.
train 2 full run.steps=4
for rank in 0 1; do
    for error in ENOSPC EDQUOT; do
        nth=1
        while with_faults "call=pwrite,path=.safetensors.tmp,rank=$rank,nth=$nth,do=$error" \
            train 2 full run.steps=5 --resume auto && [ "$status" != 0 ]; do
            what="$error in write $nth of rank $rank"
            expect_refused "$what" 3 'earlier checkpoints are untouched'
            expect "$what: unfinished files" "$(unfinished)" ''
            expect "$what: newest" "$(newest_step)" 4
            nth=$((nth + 1))
            [ $nth -lt 200 ] || break
        done
        expect "$error on rank $rank: writes of a save, at least ten" "$((nth > 10))" 1
        rm -f "$run/step_00000005.safetensors"
    done
done
whole 'after each of these'
