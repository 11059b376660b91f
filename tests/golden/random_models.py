"""Make three tiny models with random weights, and what transformers computes with them.

Purpose: parity of the forward pass at sizes that divide badly, without any download: a mistake in a
    stride, a head mapping or a rotation shows here as a wrong number, not as a worse sentence.

    bert         3 heads of 16, 2 layers, float32; golden: last hidden state
    llama-tied   3 heads of 24 over 1 KV head, head tied, float32, head_dim left out of config.json
    llama-bf16   6 heads of 24 over 2 KV heads (wider than hidden), head of its own, bf16 weights

Run:     python3 tests/golden/random_models.py

Writes:  tests/golden/models/NAME/
             config.json, model.safetensors
             cases.jsonl     one JSON array of input ids a line, without padding or special tokens
             expected.f32    for each case, for each position, a row of little-endian float32: the
                             last hidden state (bert) or the logits (llama); computed in float32 by
                             eager attention from the weights as stored

Weights are drawn so that attention is peaked and norms matter: products with scale
1.5 / sqrt(fan-in), norms around 1, biases around 0. Seeds are fixed; two runs gave the same bits.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.
"""

import json
import pathlib
import random

import numpy as np
import safetensors.torch
import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent / "models"

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "llama",
    "num_hidden_layers": 2,
    "rope_scaling": None,
}
CONFIGS = {
    "bert": {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": 48,
        "intermediate_size": 96,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "model_type": "bert",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "vocab_size": 100,
    },
    "llama-tied": {
        **LLAMA,
        "hidden_size": 72,
        "intermediate_size": 88,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": 101,
    },
    "llama-bf16": {
        **LLAMA,
        "head_dim": 24,
        "hidden_size": 72,
        "intermediate_size": 104,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 99,
    },
}
LENGTHS = {
    "bert": [1, 2, 17, 33, 64],
    "llama-tied": [1, 2, 7, 33, 130],
    "llama-bf16": [1, 2, 7, 33, 130],
}


def draw(name, tensor):
    """Random values for one tensor of the model, by what its name says it is."""
    noise = torch.randn(tensor.shape)
    if "norm" in name.lower():
        return 0.1 * noise + (0.0 if name.endswith("bias") else 1.0)
    if name.endswith("bias"):
        return 0.1 * noise
    if "embed" in name:
        return 0.5 * noise
    return 1.5 * noise / tensor.shape[1] ** 0.5


def make_weights(name, directory, kind):
    torch.manual_seed(20250101 + list(CONFIGS).index(name))
    config = kind.config_class.from_pretrained(directory)
    dtype = getattr(torch, CONFIGS[name]["torch_dtype"])
    tied = CONFIGS[name].get("tie_word_embeddings", False)
    weights = {
        key: draw(key, tensor).to(dtype)
        for key, tensor in sorted(kind(config).state_dict().items())
        if not (tied and key == "lm_head.weight")
    }
    path = directory / "model.safetensors"
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def make_goldens(name, directory, kind):
    model = kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    if name != "bert":
        assert model.config.rope_parameters["rope_theta"] == CONFIGS[name]["rope_theta"]
    rng = random.Random(list(CONFIGS).index(name))
    rows = []
    with open(directory / "cases.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for length in LENGTHS[name]:
            ids = [rng.randrange(CONFIGS[name]["vocab_size"]) for _ in range(length)]
            f.write(json.dumps(ids, separators=(",", ":")) + "\n")
            with torch.no_grad():
                out = model(torch.tensor([ids]))
            rows.append((out.last_hidden_state if name == "bert" else out.logits)[0].numpy())
    rows = np.concatenate(rows).astype("<f4")
    (directory / "expected.f32").write_bytes(rows.tobytes())
    print(f"{name}: {rows.shape}, mean {rows.mean():.3f}, deviation {rows.std():.3f}")


def main():
    torch.set_num_threads(1)
    for name, config in CONFIGS.items():
        directory = OUT / name
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=2) + "\n"
        (directory / "config.json").write_text(text, encoding="utf-8")
        kind = transformers.BertModel if name == "bert" else transformers.LlamaForCausalLM
        make_weights(name, directory, kind)
        make_goldens(name, directory, kind)


if __name__ == "__main__":
    main()
