#!/bin/sh
# A resume holds every byte that each rank has read, of weights and moments, against the checksums that the
# checkpoint was saved with, and however long it reads, the watchdog sees that it moves.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname -- "$0")/lib.sh"

files() { find "$run" -type f ! -name .lock -exec cksum {} + | sort; }
resumed() { sed -n 's/^resumed \([^ ]*\): step .*/\1/p' "$work/out"; }

train 2 run run.steps=4 run.save_every=2
expect_status 'a run' 0
newer=$(newest)
files >"$work/before"

# misread RANK NTH RESUME TEXT: a bit flips in what the NTH read of the file on this rank returns
misread() {
    what="rank $1, read $2, --resume $3"
    with_faults "call=pread,path=step_00000004,rank=$1,nth=$2,do=flip" train 2 run run.steps=6 --resume "$3"
    expect_error "$what" 3 "$4"
    files >"$work/after"
    expect_same "$what: files" after before
}
# The first reads are of the header, those behind them of tensors: ten each of weights and moments.
for resume in auto "$newer"; do
    misread 1 2 "$resume" 'rank 1: '
    misread 1 3 "$resume" 'rank 1: '
    misread 1 4 "$resume" "rank 1 has read other bytes of tensor 'model.embed_tokens.weight' than the \
checkpoint holds"
    misread 1 17 "$resume" "rank 1 has read other bytes of tensor 'optim.m.model."
    misread 1 27 "$resume" "rank 1 has read other bytes of tensor 'optim.v.model."
    misread 0 20 "$resume" "rank 0 has read other bytes of tensor 'optim."
done
# A file that is damaged gives the same at every read.
with_faults 'call=pread,path=step_00000004,from=10,do=flip' train 2 run run.steps=6 --resume "$newer"
expect_error 'wrong at every read' 2 "$newer is damaged: tensor '"
with_faults 'call=pread,path=step_00000004,rank=0,nth=2,do=flip' train 2 run run.steps=4 --resume auto
expect_status 'a header that is wrong once' 0
expect 'a header that is wrong once: resumed' "$(resumed)" "$newer"
files >"$work/after"
expect_same 'nothing was written' after before

# An export reads 60 tensors to verify them, then the 20 of weights again.
for nth in 30 70; do
    with_faults "call=pread,path=step_00000004,nth=$nth,do=flip" run "$cria" export "$newer" "$work/hf" --dtype fp32
    expect "an export that misreads: status" "$status" $((nth == 30 ? 2 : 3))
    expect "an export that misreads: files" "$(find "$work" -maxdepth 1 -name 'hf*')" ''
done

# Checkpoints of earlier versions, without some of the entries, still load.
mkdir "$work/old"
python3 - "$newer" "$work/old/step_00000004.safetensors" <<'END'
import json, sys, zlib
data = open(sys.argv[1], "rb").read()
n = int.from_bytes(data[:8], "little")
header = json.loads(data[8:8 + n])
meta = header["__metadata__"]
for key in ("cria.samples", "cria.weights_crc", "cria.config", "cria.config_hash", "cria.guard"):
    del meta[key]
meta["header_crc"] = "0" * 8
text = json.dumps(header, separators=(",", ":"))
text += " " * (-(8 + len(text)) % 64)
crc = "%08x" % zlib.crc32(text.encode())
text = text.replace('"header_crc":"00000000"', '"header_crc":"%s"' % crc, 1)
open(sys.argv[2], "wb").write(len(text).to_bytes(8, "little") + text.encode() + data[8 + n:])
END
train 2 old run.steps=6 --resume auto
expect_status 'an old checkpoint' 0
expect_warning 'an old checkpoint' 'holds no configuration'
train 2 whole run.steps=6
expect 'an old checkpoint: tensors' "$(tensors old 6)" "$(tensors whole 6)"

# Only rank 1 is slow: rank 0 waits for it.
begin=$(date +%s)
with_faults 'call=pread,path=step_00000004,rank=1,do=300' train 2 run run.steps=5 run.watchdog_seconds=5 \
    --resume auto
expect_status 'a resume that takes longer than run.watchdog_seconds' 0
expect 'a resume that takes longer than run.watchdog_seconds: it did' $(($(date +%s) - begin >= 8)) 1
with_faults 'call=pread,path=step_00000005,rank=1,nth=20,do=hang' train 2 run run.steps=6 \
    run.watchdog_seconds=5 --resume auto
expect_status 'a resume that hangs' 3
expect 'a resume that hangs: phase' "$(grep -o "in phase 'loading the checkpoint'" "$work/err" | sort -u)" \
    "in phase 'loading the checkpoint'"
