#!/usr/bin/env python3
"""Holds exports of a checkpoint against transformers itself.

    python3 -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python scripts/check_hf.py CHECKPOINT [--cria build/cria]

The checkpoint is exported as fp32 in several files, and LlamaForCausalLM loads
the directory.
  * logits, and a greedy continuation, are those of a model made from the
    checkpoint's own tensors and of the configuration in it, by this script
  * the loss is the one that cria computes: the directory is imported, and a
    training step at learning rate 0 resumes from that on the same tokens
  * save_pretrained writes the same file, if it is to be one (transformers 4 and
    5 fill several in different orders, cria as 4)
and a bf16 export holds what PyTorch rounds the weights to. tests/test_hf.c
compares cria's logits with those of transformers one by one, on small models
(tests/golden/make_hf.py)."""

import filecmp
import json
import pathlib
import subprocess
import sys
import tempfile

from runlog import Parser, fail, package_missing

parser = Parser(__doc__)
parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .safetensors file of a run")
parser.add_argument("--cria", default="build/cria", help="the program; default: build/cria")
try:
    import numpy as np
    import torch
    import yaml
    from safetensors import safe_open
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    package_missing(error, parser, "torch transformers pyyaml")

TOKENS, NEW = 128, 32


def load_checkpoint(path):
    """A transformers model without the help of cria export, and cria's configuration."""
    with safe_open(path, "pt") as f:
        config = yaml.safe_load(f.metadata()["cria.config"])
        tensors = {k: f.get_tensor(k) for k in f.keys() if not k.startswith("optim.")}
    m = config["model"]
    for k in ("norm_eps", "init_std", "rope_theta"):
        m[k] = float(m[k])  # to YAML 1.1, 1e-05 is a string
    scaling = m["rope_scaling"] = {k: float(v) for k, v in m["rope_scaling"].items()}
    scaling["original"] = int(scaling["original"])
    rope = {"rope_type": "llama3", "factor": scaling["factor"], "low_freq_factor": scaling["low"],
            "high_freq_factor": scaling["high"],
            "original_max_position_embeddings": scaling["original"]}
    model = LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=m["layers"], hidden_size=m["hidden"], num_attention_heads=m["heads"],
        num_key_value_heads=m["kv_heads"], head_dim=m["head_dim"], intermediate_size=m["ffn"],
        vocab_size=m["vocab"], max_position_embeddings=m["seq_len"],
        rms_norm_eps=m["norm_eps"], tie_word_embeddings=m["tie_embeddings"],
        rope_theta=m["rope_theta"], rope_scaling=rope if scaling["factor"] != 1 else None))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.float().eval(), config, tensors


def load_export(directory):
    model, info = LlamaForCausalLM.from_pretrained(directory, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def greedy(model, tokens):
    for _ in range(NEW):
        tokens = torch.cat([tokens, model(input_ids=tokens).logits[:, -1:].argmax(-1)], dim=1)
    return tokens


def loss_of_cria(cria, directory, config, tokens, work):
    """What a training step reports that changes nothing."""
    start, run = work / "start.safetensors", work / "run"
    cria("import", directory, start)
    tokens.numpy().astype("<u2").tofile(work / "tokens.bin")
    (work / "config.yaml").write_text(json.dumps({
        "run": {"dir": str(run), "steps": 1}, "device": "cpu",
        "model": config["model"] | {"seq_len": tokens.shape[1] - 1},
        "data": {"train": str(work / "tokens.bin"), "format": "nanogpt"},
        "batch": {"global": 1}, "optim": {"lr": 0, "schedule": "constant"}}))
    cria("train", work / "config.yaml", "--resume", start)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return next(r["loss"] for r in records if r["kind"] == "step")


@torch.no_grad()
def check(checkpoint, binary, work):
    def cria(*words):
        subprocess.run([binary, *map(str, words)], check=True, stdout=subprocess.DEVNULL)

    model, config, tensors = load_checkpoint(checkpoint)
    vocab = min(config["model"]["vocab"], 1 << 16)
    length = min(TOKENS, config["model"]["seq_len"])
    tokens = torch.from_numpy(np.random.default_rng(1).integers(0, vocab, (1, length + 1)))
    shard = sum(t.nbytes for t in tensors.values()) // 3

    cria("export", checkpoint, work / "fp32", "--dtype", "fp32", "--shard-bytes", shard)
    exported = load_export(work / "fp32")
    logits = exported(input_ids=tokens[:, :-1]).logits
    apart = (logits - model(input_ids=tokens[:, :-1]).logits).abs().max()
    print(f"logits: {apart:.1e} apart at most, of up to {logits.abs().max():.1f}")
    assert logits.dtype == torch.float32 and apart < 1e-4
    prompt = tokens[:, :max(1, length - NEW)]
    assert torch.equal(greedy(exported, prompt), greedy(model, prompt))
    print(f"greedy: {NEW} tokens behind {prompt.shape[1]} are equal")

    loss = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:]).item()
    found = loss_of_cria(cria, work / "fp32", config, tokens, work)
    print(f"loss: transformers {loss:.6f}, cria {found:.6f}")
    assert abs(loss - found) < 1e-4

    cria("export", checkpoint, work / "one", "--dtype", "fp32", "--shard-bytes", 1 << 50)
    exported.save_pretrained(work / "again", max_shard_size=1 << 50)
    name = "model.safetensors"
    assert filecmp.cmp(work / "one" / name, work / "again" / name, shallow=False)
    print(f"files: save_pretrained writes the same {name}")

    cria("export", checkpoint, work / "bf16")
    rounded = load_export(work / "bf16").state_dict()
    assert all(torch.equal(rounded[name], t.to(torch.bfloat16)) for name, t in tensors.items())
    print(f"bf16: all {len(tensors)} tensors are rounded as PyTorch does")


if __name__ == "__main__":
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(arguments.checkpoint, arguments.cria, pathlib.Path(folder))
        except FileNotFoundError as error:
            fail(f"{error.filename or arguments.checkpoint} is not there")
        except subprocess.CalledProcessError as error:  # cria has said why
            sys.exit(error.returncode if error.returncode > 0 else 3)
