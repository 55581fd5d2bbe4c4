"""summary.py OUT JOBS TITLE [NAME=LOG.jsonl...]: what the scripts of jobs.sh measured into OUT, as Markdown. JOBS: the
rows of the table of jobs. The losses in LOG.jsonl stand beside those of OUT/loss."""
import itertools, json, pathlib, statistics, sys

out, jobs, title = pathlib.Path(sys.argv[1]), *sys.argv[2:4]
references = dict(argument.split("=", 1) for argument in sys.argv[4:])
BACKENDS = ("ring", "magi", "allgather", "ulysses")
# TFLOP/s per GPU, forward and backward, 64k tokens on 8 H100s, 64/8 heads, D=128: MagiAttention's
# benchmark pages, read off their charts (within 1). Its documents have other lengths.
PUBLISHED = {"causal": ("421/432", "645/529", "602/516", "602/582"),
             "document": ("89/97", "459/360", "288/179", "278/332")}


def lines(path):
    """The objects in a file; what was being written when its job was killed is none."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            pass


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    print()


def number(value, form=".0f", factor=1):
    return None if value is None else format(value * factor, form)


def attention():
    found, notes = {}, {}
    for r in lines(out / "cp.jsonl"):
        key = int(r["tokens"]), r["D"], r["heads"], r["mask"]
        cell = None if r["fwd_ms"] is None else f"{r['fwd_tflops_gpu']:.3g}/{r['bwd_tflops_gpu']:.3g}"
        found.setdefault(key, {})[r["backend"]] = cell or r["note"]
        if r["backend"] == "magi" and cell:
            notes[key] = f"{r['fwd_exposed_ms'] / r['fwd_ms']:.0%}, {r['bwd_exposed_ms'] / r['bwd_ms']:.0%}"
    print("## Attention of one layer, TFLOP/s per GPU over allowed pairs, forward/backward\n")
    rows = []
    for key in sorted(found, key=lambda k: (k[1], k[2], k[3], k[0])):
        tokens, D, heads, mask = key
        rows.append((f"{mask}, {heads} heads, D={D:.0f}", f"{tokens:,}", found[key].get("none"),
                     *(found[key].get(b) for b in BACKENDS), notes.get(key)))
    for mask, cells in PUBLISHED.items():
        rows.append((f"published, 8 H100: {mask}, 64/8 heads, D=128", "65,536", None, *cells, None))
    table(("mask, heads", "tokens", "one GPU", *BACKENDS, "magi: exposed"), rows)


def steps():
    base, rows = {}, []
    print("## Training: steps on random tokens\n")
    for r in lines(out / "step.jsonl"):
        if r["cp"] == 1:
            base[r["config"]] = r["tok_s"]
        of = base.get(r["config"])
        rows.append((r["what"], number(r["tok_s"], ",.0f"), number(r["tok_s_gpu"], ",.0f"), number(of and r["tok_s"] / of, ".0%"),
                     number(r["mfu"], ".1%"), number(r["mem_gib"], ".1f"),
                     number(r["phases"]["comm_exposed"] / r["metered_ms"], ".1%")))
    table(("", "tok/s", "per GPU", "of dp above", "MFU", "GiB", "exposed transfers"), rows)


def curves():
    print("## Loss curves on real text\n")
    logs = {folder.name: folder / "log.jsonl" for folder in sorted((out / "loss").glob("*-*/"))}
    logs |= {name: pathlib.Path(path) for name, path in references.items()}
    losses, rows = {}, []
    for name, log in logs.items():
        records = [r for r in lines(log) if r["kind"] == "step"]
        if not records:
            continue
        losses[name] = {r["step"]: r["loss"] for r in records}
        speeds = [r["tok_s"] for r in records if "tok_s" in r]
        rows.append((name, records[-1]["step"], f"{records[0]['loss']:.4f}", f"{records[-1]['loss']:.4f}",
                     f"{statistics.median(speeds):,.0f}" if speeds else None))
    table(("", "steps", "first loss", "last loss", "tok/s"), rows)
    for a, b in itertools.combinations(losses, 2):
        common = sorted(losses[a].keys() & losses[b].keys())
        if common:
            apart = [abs(losses[a][s] - losses[b][s]) for s in common]
            half = max(apart[:(len(common) + 1) // 2])
            last = common[-(len(common) + 3) // 4:]
            mean = statistics.mean(losses[b][s] - losses[a][s] for s in last)
            print(f"{a} and {b} differ by at most {max(apart):.1e} over {len(common)} steps, {half:.1e} over the first half; "
                  f"the second less the first is {mean:+.1e} in the mean of the last {len(last)}.\n")


print(f"# {title}\n")
attention()
steps()
curves()
text = out / "torch.txt"
if text.is_file():
    print("## PyTorch\n")
    print("".join(f"    {line}\n" for line in text.read_text().splitlines()))
print("## Jobs\n")
table(("part", "job", "result", "seconds"), [line.strip("| ").split(" | ") for line in open(jobs).read().splitlines()])
