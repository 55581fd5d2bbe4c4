#!/usr/bin/env python3
"""Holds the error of cria's bf16 attention against fp64 beside that of PyTorch's
kernels.

    scripts/check_attention_error.py [WORD ...] [--device cpu]

Needs PyTorch, and a GPU unless --device cpu, which tries everything on small
shapes with cria's CPU kernels. Words pick the cases whose names hold all of
them. The same bf16 inputs go through cria (files in a temporary folder), cuDNN,
FlashAttention (both through scaled_dot_product_attention, document by document)
and a reference in fp64. Errors are ||x - ref|| / ||ref||; cria's gradients are
fp32, and are compared as they are and rounded to bf16. A row passes when the
larger of the two is at most 1.5 times the error of cuDNN, or where cuDNN does
not run, of FlashAttention. The log-sum-exp, which PyTorch does not give out,
passes when it is within 2e-4 of the largest one (at least of 1).

Exit status: 0 when all pass, 1 when one does not, 3 when something could not be
run."""

import itertools
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

from runlog import Parser, fail, package_missing

parser = Parser(__doc__)
parser.add_argument("words", metavar="WORD", nargs="*", help="of the names of cases")
parser.add_argument("--program", default=shutil.which("gpu_attention_files") or "build/tests/gpu_attention_files",
                    help="default: %(default)s")
parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    package_missing(error, parser, "torch")

LIMIT, LSE_LIMIT = 1.5, 2e-4
NO_LO = -(1 << 30)  # BAND_NO_LO of src/attn/band.h
SHAPES = {"cuda": ([(64, 32, 8), (128, 24, 8)], [1024, 4096]), "cpu": ([(64, 8, 2), (128, 6, 2)], [300])}
KINDS = ("normal", "large scores", "growing keys")
BACKENDS = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


class Case:
    def __init__(self, D, H, K, S, mask, kind, number):
        self.D, self.H, self.K, self.S, self.kind, self.number = D, H, K, S, kind, number
        self.name = f"D={D} {H}/{K} S={S} {mask}, {kind}"
        self.documents = [S] if mask == "causal" else lengths(S)

    def inputs(self, device):
        """q[S,H,D], kv[S,2,K,D] and do[S,H,D] in bf16, the same on every machine."""
        draw = torch.Generator().manual_seed(self.number)
        q, kv, do = (torch.randn(shape, generator=draw) for shape in
                     ((self.S, self.H, self.D), (self.S, 2, self.K, self.D), (self.S, self.H, self.D)))
        if self.kind == "large scores":
            q *= 8
        if self.kind == "growing keys":  # the running maximum rises with nearly every key
            kv[:, 0] *= torch.linspace(0.1, 8, self.S).view(-1, 1, 1)
        return [x.bfloat16().to(device) for x in (q, kv, do)]

    def ranges(self):
        ends = list(itertools.accumulate(self.documents))
        return list(zip([0, *ends], ends))

    def bands(self):
        return [[a, b, a, b, NO_LO, 0] for a, b in self.ranges()]


def lengths(S):
    """Log-uniform in [S/40, S/3], none shorter than 20."""
    draw, out = torch.Generator().manual_seed(1), []
    while sum(out) < S:
        n = int(S / 40 * (40 / 3) ** torch.rand(1, generator=draw).item())
        left = S - sum(out)
        out.append(left if left - n < 20 else n)
    return out


def all_cases(device):
    shapes, tokens = SHAPES[device]
    product = itertools.product(shapes, tokens, ("causal", "documents"), KINDS)
    return [Case(*shape, S, mask, kind, i) for i, (shape, S, mask, kind) in enumerate(product)]


# ---- the four ways -------------------------------------------------------------------------------

def reference(case, q, kv, do):
    """o, lse[H,S], dq, dk, dv in fp64."""
    q, kv, do = q.double(), kv.double(), do.double()
    group, scale = case.H // case.K, 1 / math.sqrt(case.D)
    o, dq, dkv = torch.empty_like(q), torch.empty_like(q), torch.empty_like(kv)
    lse = torch.empty(case.H, case.S, dtype=torch.double, device=q.device)
    for a, b in case.ranges():
        hidden = torch.ones(b - a, b - a, dtype=torch.bool, device=q.device).triu(1)
        for h in range(case.K):
            heads = slice(h * group, (h + 1) * group)
            qh, doh = q[a:b, heads].transpose(0, 1), do[a:b, heads].transpose(0, 1)
            k, v = kv[a:b, 0, h], kv[a:b, 1, h]
            scores = (qh @ k.T * scale).masked_fill_(hidden, -math.inf)
            lse[heads, a:b] = scores.logsumexp(-1)
            p = scores.softmax(-1)
            oh = p @ v
            ds = scale * p * (doh @ v.T - (doh * oh).sum(-1, keepdim=True))
            o[a:b, heads], dq[a:b, heads] = oh.transpose(0, 1), (ds @ k).transpose(0, 1)
            dkv[a:b, 0, h] = (ds.transpose(1, 2) @ qh).sum(0)
            dkv[a:b, 1, h] = (p.transpose(1, 2) @ doh).sum(0)
    return {"o": o, "lse": lse, "dq": dq, "dk": dkv[:, 0], "dv": dkv[:, 1]}


def pytorch(case, backend, q, kv, do):
    """None where the kernel does not do this."""
    out = {name: [] for name in ("o", "dq", "dk", "dv")}
    for a, b in case.ranges():
        x = [t[None, a:b].transpose(1, 2).contiguous().requires_grad_() for t in (q, kv[:, 0], kv[:, 1])]
        try:
            with sdpa_kernel(backend):
                o = F.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=True)
                grads = torch.autograd.grad(o, x, do[None, a:b].transpose(1, 2))
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            return None
        for name, tensor in zip(out, (o.detach(), *grads)):
            out[name].append(tensor[0].transpose(0, 1))
    return {name: torch.cat(parts) for name, parts in out.items()}


def write(folder, case, q, kv, do):
    folder.mkdir()
    ints = {"shape.i32": [case.S, case.H, case.K, case.D], "bands.i32": case.bands()}
    tensors = {name: torch.tensor(x, dtype=torch.int32) for name, x in ints.items()}
    tensors |= {"q.bf16": q, "kv.bf16": kv, "do.bf16": do}
    for name, x in tensors.items():
        (folder / name).write_bytes(x.contiguous().cpu().view(torch.uint8).numpy().tobytes())


def read(folder, case, device):
    def tensor(name, dtype, *shape):
        data = bytearray((folder / name).read_bytes())
        return torch.frombuffer(data, dtype=dtype).view(shape).to(device)
    S, H, K, D = case.S, case.H, case.K, case.D
    dkv = tensor("dkv.f32", torch.float, S, 2, K, D)
    return {"o": tensor("o.bf16", torch.bfloat16, S, H, D), "lse": tensor("lse.f32", torch.float, H, S),
            "dq": tensor("dq.f32", torch.float, S, H, D), "dk": dkv[:, 0], "dv": dkv[:, 1]}


# ---- judging -------------------------------------------------------------------------------------

def error(x, ref):
    return ((x.double() - ref).norm() / ref.norm()).item()


def furthest(x, ref):
    return (x.double() - ref).abs().max().item()


def row(*cells):
    texts = ["-" if c is None else f"{c:.2e}" if isinstance(c, float) else str(c) for c in cells]
    print("| " + " | ".join(texts) + " |", flush=True)


def judge(case, ref, found, others):
    """Prints a row for each tensor; returns how many pass and how many do not."""
    verdicts = []
    for name, exact in ref.items():
        far = furthest(found[name], exact)
        if name == "lse":
            ok = far <= LSE_LIMIT * max(1, exact.abs().max().item())  # False also for a NaN
            cells = [None, None, None, None, None, far, None]
        else:
            rounded = error(found[name].bfloat16(), exact)
            plain = None if name == "o" else error(found[name], exact)
            errors = {label: error(o[name], exact) if o else None for label, o in others.items()}
            beside = next((label for label, e in errors.items() if e is not None), None)
            if beside is None:
                fail(f"{case.name}: none of PyTorch's kernels runs", 3)
            worst = rounded if plain is None else max(rounded, plain)
            ratio = worst / errors[beside]
            ok = math.isfinite(rounded) and ratio <= LIMIT
            cells = [plain, rounded, *errors.values(), f"{ratio:.2f}", far,
                     furthest(others[beside][name], exact)]
        row(case.name, name, *cells, "ok" if ok else "**over**")
        verdicts.append(ok)
    return verdicts.count(True), verdicts.count(False)


def main():
    args = parser.parse_args()
    cases = [c for c in all_cases(args.device) if all(w in c.name for w in args.words)]
    if not cases:
        parser.error("no case has these words")
    torch.set_num_threads(min(8, torch.get_num_threads()))
    passed = failed = 0
    with tempfile.TemporaryDirectory() as top:
        folders = [pathlib.Path(top) / str(c.number) for c in cases]
        for case, folder in zip(cases, folders):
            write(folder, case, *case.inputs(args.device))
        try:
            subprocess.run([args.program, args.device, *folders], check=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            fail(problem, 3)
        row("case", "", "cria, fp32", "cria", *BACKENDS, "ratio", "max: cria", "beside", "")
        print("|---|---|" + "---:|" * 7 + "---|")
        for case, folder in zip(cases, folders):
            inputs = case.inputs(args.device)
            others = {label: pytorch(case, backend, *inputs) for label, backend in BACKENDS.items()}
            good, bad = judge(case, reference(case, *inputs), read(folder, case, args.device), others)
            passed, failed = passed + good, failed + bad
            shutil.rmtree(folder)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
