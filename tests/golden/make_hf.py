#!/usr/bin/env python3
"""Golden Hugging Face directories: small LlamaForCausalLM models as transformers itself writes them,
and what it computes with them.

    make_hf.py           writes hf_untied/ and hf_tied/ beside this script
    make_hf.py --check   computes expected.safetensors again and compares (with any version)"""

import argparse
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
PROMPT, NEW = 16, 16

CASES = {
    # One file of fp32. All three bands of Llama-3 RoPE scaling, as in make_golden.py.
    "hf_untied": {
        "dtype": torch.float32, "shard": "5GB",
        "config": {"num_hidden_layers": 2, "hidden_size": 40, "num_attention_heads": 4,
                   "num_key_value_heads": 2, "intermediate_size": 72, "vocab_size": 73,
                   "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                   "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
                   "bos_token_id": 1, "eos_token_id": [72, 71]},
    },
    # Several files of bf16, some tensors too large for any; heads * head_dim is not hidden.
    "hf_tied": {
        "dtype": torch.bfloat16, "shard": 12000,
        "config": {"num_hidden_layers": 2, "hidden_size": 36, "num_attention_heads": 6, "head_dim": 8,
                   "num_key_value_heads": 2, "intermediate_size": 160, "vocab_size": 200,
                   "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 500000.0,
                   "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None},
    },
}


def make(directory, dtype, shard, config):
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig(**config, initializer_range=0.15))
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms start as ones, which would hide one taken for another
            torch.nn.init.normal_(weight, 1.0, 0.2)
    shutil.rmtree(directory, ignore_errors=True)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    for file in directory.iterdir():
        file.chmod(0o644)


def expect(directory, config):
    """Logits over the prompt and its greedy continuation, from the files, in float32."""
    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32,
                                             attn_implementation="eager")
    prompt = torch.arange(1, PROMPT + 1)[None] * 37 % config["vocab_size"]
    with torch.no_grad():
        logits = model(input_ids=prompt).logits[0]
        text = prompt
        for _ in range(NEW):  # not generate(), which would stop at eos_token_id
            text = torch.cat([text, model(input_ids=text).logits[:, -1:].argmax(-1)], dim=1)
    best = logits.topk(2, dim=-1).values
    print(directory.name, f"logits to {logits.abs().max():.1f},",
          f"closest two {(best[:, 0] - best[:, 1]).min():.1e}")
    return {"logits": logits.contiguous(), "greedy": text[0].to(torch.int32)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    only_check = parser.parse_args().check
    for name, case in CASES.items():
        if not only_check:
            make(HERE / name, **case)
        expected = expect(HERE / name, case["config"])
        if not only_check:
            save_file(expected, HERE / name / "expected.safetensors")
        stored = load_file(HERE / name / "expected.safetensors")
        apart = (stored["logits"] - expected["logits"]).abs().max()
        print(name, f"apart {apart:.1e}")
        assert apart < 1e-4 and torch.equal(stored["greedy"], expected["greedy"])
