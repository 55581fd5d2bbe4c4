#!/usr/bin/env python3
"""Golden vectors for cria's CPU build: LLaMA and AdamW a second time, in JAX and in float64.

    make_golden.py           writes case*.safetensors beside this script
    make_golden.py --check   computes everything again and compares it with the files

The forward pass follows Hugging Face's LlamaForCausalLM; gradients come from jax.grad, so nothing
here shares a derivation with cria's hand-written backward pass. README.md describes the files."""

import argparse
import functools
import json
import math
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
STEPS = 20

OPTIM = {"lr": 3e-3, "min_lr": 3e-4, "schedule": "cosine", "warmup_steps": 5, "decay_steps": 20,
         "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}

CASES = {
    # All three bands of Llama-3 RoPE scaling: wavelength 6 is kept, 29 between, the rest scaled.
    "case1": {
        "model": {"layers": 2, "hidden": 48, "heads": 4, "kv_heads": 2, "head_dim": 12, "ffn": 80,
                  "vocab": 97, "seq_len": 32, "tie_embeddings": False, "norm_eps": 1e-5,
                  "rope_theta": 10000.0,
                  "rope_scaling": {"factor": 8.0, "low": 1.0, "high": 4.0, "original": 64}},
        "optim": OPTIM, "batch": {"global": 2}, "seed": 1,
    },
    # Tied head, three query heads per kv head, heads * head_dim != hidden, odd sizes, four steps
    # after the end of the decay; some gradients are clipped and some are not.
    "case2": {
        "model": {"layers": 2, "hidden": 40, "heads": 6, "kv_heads": 2, "head_dim": 8, "ffn": 72,
                  "vocab": 89, "seq_len": 24, "tie_embeddings": True, "norm_eps": 1e-6,
                  "rope_theta": 500000.0, "rope_scaling": {"factor": 1.0}},
        "optim": OPTIM | {"decay_steps": 16, "clip": 3.0}, "batch": {"global": 3}, "seed": 2,
    },
    # FP8 with the first layer and the head in full precision, gradients in E5M2.
    "case3": {
        "model": {"layers": 3, "hidden": 48, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 80,
                  "vocab": 97, "seq_len": 40, "tie_embeddings": False, "norm_eps": 1e-5,
                  "rope_theta": 10000.0, "rope_scaling": {"factor": 1.0}},
        "optim": OPTIM, "batch": {"global": 2}, "seed": 3, "precision": "fp8",
        "fp8": {"first_bf16": 1, "last_bf16": 0, "gradients": "e5m2", "head": False},
    },
    # FP8 everywhere, the tied head too, gradients in E4M3; 27 tokens a sequence, so that the sides
    # that products sum over are padded.
    "case4": {
        "model": {"layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "head_dim": 32, "ffn": 96,
                  "vocab": 128, "seq_len": 27, "tie_embeddings": True, "norm_eps": 1e-5,
                  "rope_theta": 10000.0, "rope_scaling": {"factor": 1.0}},
        "optim": OPTIM | {"lr": 1e-3, "min_lr": 1e-4}, "batch": {"global": 3}, "seed": 4,
        "precision": "fp8",
        "fp8": {"first_bf16": 0, "last_bf16": 0, "gradients": "e4m3", "head": True},
    },
    # z-loss, large enough for gradients to be other ones.
    "case5": {
        "model": {"layers": 1, "hidden": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "ffn": 48,
                  "vocab": 61, "seq_len": 20, "tie_embeddings": False, "norm_eps": 1e-5,
                  "rope_theta": 10000.0, "rope_scaling": {"factor": 1.0}},
        "optim": OPTIM | {"z_loss": 0.02}, "batch": {"global": 3}, "seed": 5,
    },
}


# ---- the model ----------------------------------------------------------------------------------

def inverse_frequencies(m):
    inv = m["rope_theta"] ** (-np.arange(0, m["head_dim"], 2) / m["head_dim"])
    s = m["rope_scaling"]
    if s["factor"] == 1.0:
        return inv
    wavelength = 2 * np.pi / inv
    smooth = (s["original"] / wavelength - s["low"]) / (s["high"] - s["low"])
    between = (1 - smooth) * inv / s["factor"] + smooth * inv
    scaled = np.where(wavelength > s["original"] / s["low"], inv / s["factor"], between)
    return np.where(wavelength < s["original"] / s["high"], inv, scaled)


def rmsnorm(x, w, eps):
    return w * x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def rope(x, angles):  # x[B,T,heads,D], angles[T,D/2]
    cos = jnp.cos(jnp.concatenate([angles, angles], axis=-1))[:, None, :]
    sin = jnp.sin(jnp.concatenate([angles, angles], axis=-1))[:, None, :]
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


FORMATS = {"e4m3": (3, -6, 448.0), "e5m2": (2, -14, 57344.0)}  # mantissa, least exponent, largest


def quantize(x, name):
    """x with one scale for all of it, rounded to the format's values and scaled back."""
    mantissa, least, largest = FORMATS[name]
    absmax = jnp.max(jnp.abs(x)).astype(jnp.float32)
    factor = jnp.where(absmax == 0, jnp.float32(1), jnp.float32(largest) / absmax)
    y = (x.astype(jnp.float32) * factor).astype(x.dtype)
    exponent = jnp.maximum(jnp.frexp(y)[1] - 1, least)
    step = jnp.ldexp(jnp.ones_like(y), exponent - mantissa)
    return jnp.clip(jnp.round(y / step) * step, -largest, largest) / factor.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, w, gradients):
    """x w^T by FP8 operands; gradients: the format of dy."""
    return quantize(x, "e4m3") @ quantize(w, "e4m3").T


def product_forward(x, w, gradients):
    x, w = quantize(x, "e4m3"), quantize(w, "e4m3")
    return x @ w.T, (x, w)


def product_backward(gradients, kept, dy):
    x, w = kept
    dy = quantize(dy, gradients)
    return dy @ w, jnp.einsum("btn,btm->nm", dy, x)


product.defvjp(product_forward, product_backward)


def linear(x, weights, fp8):
    """x w^T for each of the weights, which cria multiplies as one matrix."""
    y = product(x, jnp.concatenate(weights), fp8) if fp8 else x @ jnp.concatenate(weights).T
    return jnp.split(y, np.cumsum([w.shape[0] for w in weights])[:-1], axis=-1)


def layer_format(m, layer):
    """The format of gradients of this layer (or of the head, layer None); None: not in FP8."""
    f = m.get("fp8")
    if f is None:
        return None
    inside = f["first_bf16"] <= layer < m["layers"] - f["last_bf16"] if layer is not None else f["head"]
    return f["gradients"] if inside else None


def attention(q, k, v):  # q[B,T,H,D], k and v[B,T,K,D]
    group = q.shape[2] // k.shape[2]
    k, v = jnp.repeat(k, group, axis=2), jnp.repeat(v, group, axis=2)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    causal = jnp.tril(jnp.ones((q.shape[1], q.shape[1]), bool))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(causal, scores, -jnp.inf)), v)


def token_losses(w, m, tokens):
    """Cross entropy of every token and the logarithm of its softmax's denominator (lse);
    tokens[B,T+1] -> [B,T], [B,T]."""
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    (B, T), D = inputs.shape, m["head_dim"]
    x = w["model.embed_tokens.weight"][inputs]
    angles = jnp.asarray(np.outer(np.arange(T), inverse_frequencies(m)), x.dtype)
    for layer in range(m["layers"]):
        p = lambda name: w[f"model.layers.{layer}.{name}.weight"]
        fp8 = layer_format(m, layer)
        y = rmsnorm(x, p("input_layernorm"), m["norm_eps"])
        q, k, v = (z.reshape(B, T, -1, D) for z in linear(
            y, [p(f"self_attn.{n}_proj") for n in "qkv"], fp8))
        o = attention(rope(q, angles), rope(k, angles), v).reshape(B, T, -1)
        x = x + linear(o, [p("self_attn.o_proj")], fp8)[0]
        y = rmsnorm(x, p("post_attention_layernorm"), m["norm_eps"])
        gate, up = linear(y, [p("mlp.gate_proj"), p("mlp.up_proj")], fp8)
        x = x + linear(jax.nn.silu(gate) * up, [p("mlp.down_proj")], fp8)[0]
    head = w["model.embed_tokens.weight" if m["tie_embeddings"] else "lm_head.weight"]
    y = rmsnorm(x, w["model.norm.weight"], m["norm_eps"])
    logits = linear(y, [head], layer_format(m, None))[0]
    logp = jax.nn.log_softmax(logits)
    return (-jnp.take_along_axis(logp, labels[..., None], axis=-1)[..., 0],
            jax.nn.logsumexp(logits, axis=-1))


def total_loss(w, m, z_coefficient, tokens, weights):
    """What training minimises, and its parts: mean cross entropy and mean z-loss."""
    ce, lse = token_losses(w, m, tokens)
    mean = lambda x: jnp.sum(x * weights) / jnp.sum(weights)
    loss, z_loss = mean(ce), z_coefficient * mean(lse ** 2)
    return loss + z_loss, (loss, z_loss)


# ---- training -----------------------------------------------------------------------------------

def learning_rate(o, t):
    """Update t = 1, 2, ...: lr is reached at t = warmup_steps, min_lr at t = decay_steps."""
    if t <= o["warmup_steps"]:
        return o["lr"] * t / o["warmup_steps"]
    if t >= o["decay_steps"]:
        return o["min_lr"]
    done = (t - o["warmup_steps"]) / (o["decay_steps"] - o["warmup_steps"])
    return o["min_lr"] + 0.5 * (o["lr"] - o["min_lr"]) * (1 + math.cos(math.pi * done))


def train(case, w, tokens, weights):
    """STEPS updates of AdamW. Returns what happened and the first gradient and final weights."""
    m, o = case["model"] | {"fp8": case.get("fp8")}, case["optim"]
    z_coefficient = o.get("z_loss", 0.0)
    value_and_grad = jax.jit(jax.value_and_grad(
        lambda w, t, wt: total_loss(w, m, z_coefficient, t, wt), has_aux=True))
    log = {"loss": [], "z_loss": [], "grad_norm": [], "lr": []}
    zero = {name: jnp.zeros_like(x) for name, x in w.items()}
    m1, m2, first_grad = zero, zero, None
    for t in range(1, STEPS + 1):
        (_, (loss, z_loss)), g = value_and_grad(w, tokens[t - 1], weights[t - 1])
        first_grad = first_grad or g
        norm = math.sqrt(sum(float(jnp.sum(x * x)) for x in g.values()))
        clip, lr = min(1.0, o["clip"] / (norm + 1e-6)), learning_rate(o, t)
        for name, value in zip(log, (float(loss), float(z_loss), norm, lr)):
            log[name].append(value)
        g = {n: clip * x for n, x in g.items()}
        m1 = {n: o["beta1"] * m1[n] + (1 - o["beta1"]) * g[n] for n in w}
        m2 = {n: o["beta2"] * m2[n] + (1 - o["beta2"]) * g[n] ** 2 for n in w}
        c1, c2 = 1 - o["beta1"] ** t, 1 - o["beta2"] ** t
        step = {n: (m1[n] / c1) / (jnp.sqrt(m2[n] / c2) + o["eps"]) for n in w}
        decay = {n: o["weight_decay"] if x.ndim == 2 else 0.0 for n, x in w.items()}  # norms: none
        w = {n: x - lr * (step[n] + decay[n] * x) for n, x in w.items()}
    if z_coefficient == 0:
        del log["z_loss"]
    return log, first_grad, w


# ---- the data -----------------------------------------------------------------------------------

def initial_weights(m, rng):
    C, D, F, V = m["hidden"], m["head_dim"], m["ffn"], m["vocab"]
    q, kv = m["heads"] * D, m["kv_heads"] * D
    layer = {"self_attn.q_proj": (q, C), "self_attn.k_proj": (kv, C), "self_attn.v_proj": (kv, C),
             "self_attn.o_proj": (C, q), "mlp.gate_proj": (F, C), "mlp.up_proj": (F, C),
             "mlp.down_proj": (C, F), "input_layernorm": (C,), "post_attention_layernorm": (C,)}
    shapes = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,)}
    shapes |= {f"model.layers.{i}.{n}.weight": s
               for i in range(m["layers"]) for n, s in layer.items()}
    if not m["tie_embeddings"]:
        shapes["lm_head.weight"] = (V, C)
    # Large enough for attention to be far from uniform; norm weights away from 1.
    draw = lambda s: 0.15 * rng.standard_normal(s) + (1.0 if len(s) == 1 else 0.0)
    return {name: draw(s).astype(np.float32) for name, s in shapes.items()}


def batches(case, rng):
    """Text with something to learn: mostly next = 5 * this + 3. One label in six does not count."""
    B, T, V = case["batch"]["global"], case["model"]["seq_len"], case["model"]["vocab"]
    tokens = rng.integers(0, V, (STEPS, B, T + 1))
    follow = rng.random((STEPS, B, T + 1)) < 0.75
    for t in range(1, T + 1):
        after = (5 * tokens[:, :, t - 1] + 3) % V
        tokens[:, :, t] = np.where(follow[:, :, t], after, tokens[:, :, t])
    weights = rng.random((STEPS, B, T)) >= 1 / 6
    weights[0, 0, T // 2:] = False  # half a sequence without any
    return tokens.astype(np.int32), weights.astype(np.float32)


def flatten(prefix, tree):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def build(case):
    """The files of one case: {suffix: (tensors, metadata)}."""
    rng = np.random.default_rng(case["seed"])
    w32 = initial_weights(case["model"], rng)
    tokens, weights = batches(case, rng)
    wide = lambda tree: {n: jnp.asarray(x, jnp.float64) for n, x in tree.items()}
    narrow = lambda tree: {n: np.asarray(x, np.float32) for n, x in tree.items()}
    log, grad, final = train(case, wide(w32), tokens, weights.astype(np.float64))
    ce, _ = token_losses(wide(w32), case["model"] | {"fp8": case.get("fp8")}, tokens[0])

    log32, grad32, final32 = train(case, w32, tokens, weights)  # what single precision costs
    far = lambda a, b: max(float(np.max(np.abs(np.asarray(a[n], float) - b[n]))) for n in b)
    relative = lambda n: max(abs(x / y - 1) for x, y in zip(log32[n], log[n]))
    print(f"  float64: loss {log['loss'][0]:.6f} -> {log['loss'][-1]:.6f}, "
          f"clipped {sum(n > case['optim']['clip'] for n in log['grad_norm'])} of {STEPS}")
    print(f"  JAX in float32 is off by: loss {relative('loss'):.1e}, grad norm "
          f"{relative('grad_norm'):.1e} (relative); first gradient {far(grad32, grad):.1e} of "
          f"{max(float(jnp.max(jnp.abs(x))) for x in grad.values()):.2f}, final weights "
          f"{far(final32, final):.1e} (absolute)")

    golden = {"golden.tokens": tokens, "golden.weights": weights,
              "golden.token_loss": np.asarray(ce, np.float64)}
    golden |= {f"golden.{n}": np.array(v, np.float64) for n, v in log.items()}
    config = {k: case[k] for k in ("model", "optim", "batch", "precision", "fp8") if k in case}
    config |= {"run": {"steps": STEPS}}
    return {"": (w32 | golden, {"format": "pt"} | dict(flatten("", config))),
            ".grad": (narrow(grad), {"format": "pt"}), ".final": (narrow(final), {"format": "pt"})}


def differences(path, tensors, metadata):
    with safe_open(path, "np") as f:
        if f.metadata() != metadata or set(f.keys()) != set(tensors):
            return [f"{path.name}: other names or other metadata"]
        return [f"{path.name}: {n} differs" for n, x in tensors.items()
                if not np.allclose(f.get_tensor(n), x, rtol=1e-6, atol=1e-9)]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    wrong = []
    for name, case in CASES.items():
        print(name)
        for suffix, (tensors, metadata) in build(case).items():
            path = HERE / f"{name}{suffix}.safetensors"
            if args.check:
                wrong += differences(path, tensors, metadata)
            else:
                save_file(tensors, path, metadata)
                path.chmod(0o644)
                print(f"  {path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")
    if args.check:
        print("\n".join(wrong) if wrong else "files and computation agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
