#!/usr/bin/env python3
"""Holds the golden files against a third implementation: Hugging Face's LlamaForCausalLM with
PyTorch's AdamW and clip_grad_norm_, started from the weights in the files.

Hugging Face computes RoPE angles in float32 even in a float64 model: seven digits can agree."""

import json
import pathlib

import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent


def load(path):
    with safe_open(path, "pt") as f:
        return f.metadata(), {name: f.get_tensor(name) for name in f.keys()}


def hugging_face_config(m):
    scaling = None
    if m["rope_scaling.factor"] != 1:
        scaling = {"rope_type": "llama3", "factor": m["rope_scaling.factor"],
                   "low_freq_factor": m["rope_scaling.low"],
                   "high_freq_factor": m["rope_scaling.high"],
                   "original_max_position_embeddings": m["rope_scaling.original"]}
    return LlamaConfig(
        num_hidden_layers=m["layers"], hidden_size=m["hidden"], num_attention_heads=m["heads"],
        num_key_value_heads=m["kv_heads"], head_dim=m["head_dim"], intermediate_size=m["ffn"],
        vocab_size=m["vocab"], max_position_embeddings=8 * m["seq_len"], rms_norm_eps=m["norm_eps"],
        tie_word_embeddings=m["tie_embeddings"], rope_theta=m["rope_theta"], rope_scaling=scaling,
        attn_implementation="eager")


def check(case):
    metadata, tensors = load(HERE / f"{case}.safetensors")
    m = {k[6:]: json.loads(v) for k, v in metadata.items() if k.startswith("model.")}
    o = {k[6:]: json.loads(v) for k, v in metadata.items()
         if k.startswith("optim.") and k != "optim.schedule"}
    golden = {k[7:]: tensors.pop(k) for k in list(tensors) if k.startswith("golden.")}
    model = LlamaForCausalLM(hugging_face_config(m)).double()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)

    decay = {2: o["weight_decay"], 1: 0.0}
    groups = [{"params": [p for p in model.parameters() if p.ndim == ndim], "weight_decay": decay[ndim]}
              for ndim in decay]
    optimizer = torch.optim.AdamW(groups, betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    apart = dict.fromkeys(("loss", "grad norm", "token loss", "first gradient", "final weight"), 0.0)

    def compare_tensors(what, path, of):
        expected = load(path)[1]
        for name, p in model.named_parameters():
            apart[what] = max(apart[what], float((of(p) - expected[name]).abs().max()))

    for t, (tokens, weights) in enumerate(zip(golden["tokens"].long(), golden["weights"].double())):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        ce = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:],
                                               reduction="none")
        loss = (ce * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        if t == 0:
            apart["token loss"] = float((ce - golden["token_loss"]).abs().max())
            compare_tensors("first gradient", HERE / f"{case}.grad.safetensors", lambda p: p.grad)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip"])
        apart["loss"] = max(apart["loss"], abs(float(loss / golden["loss"][t]) - 1))
        apart["grad norm"] = max(apart["grad norm"], abs(float(norm / golden["grad_norm"][t]) - 1))
        for group in optimizer.param_groups:
            group["lr"] = float(golden["lr"][t])
        optimizer.step()
    compare_tensors("final weight", HERE / f"{case}.final.safetensors", lambda p: p.detach())
    print(case, ", ".join(f"{what} {value:.1e}" for what, value in apart.items()))
    assert max(apart.values()) < 1e-5, "the two implementations disagree"


if __name__ == "__main__":
    for name in ("case1", "case2"):
        check(name)
