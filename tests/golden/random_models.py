"""Make tiny models with random weights, one a family, and what transformers computes with them.

Purpose: parity of the forward pass at sizes that divide badly, without any download: a mistake in a
    stride, a head mapping or a rotation shows here as a wrong number, not as a worse sentence.

    bert         3 heads of 16, 2 layers, float32; golden: last hidden state
    llama-tied   3 heads of 24 over 1 KV head, head tied, float32, head_dim left out of config.json
    llama-bf16   6 heads of 24 over 2 KV heads (wider than hidden), head of its own, bf16 weights
    llama3       4 heads of 12 over 2 KV heads, rope_scaling of Llama 3.1, bf16
    mistral      a window of 12 keys in every layer, two shards, float16
    qwen2        q, k and v with biases, head tied, bf16
    distill-qwen the same family with a head of its own and rope_theta 10000, as R1 distilled it
    qwen2-window a window of 9 keys from the second layer on
    qwen3        heads of 20 (wider than hidden), q and k normed a head, a head of its own: its
                 greedy tokens wander
    gemma3       layer_types, windows of 8, two rotary bases, norms before and after each block
    gemma3-linear rotary positions of the full layers divided by 8, layers by their pattern
    llama-fp8    matrices of fp8 with scales a block, a row, or for all
    bge          the first token's row at unit length, as modules.json says
    bert-tokens, bert-classes, xlm-roberta, xlm-roberta-tokens, xlm-roberta-classes
                 positions that begin after padding, and heads for tokens and for texts; float16

Run:     python3 tests/golden/random_models.py [NAME ...]        (all, if none is named)

Writes:  tests/golden/models/NAME/
             config.json, model.safetensors
             cases.jsonl     one JSON array of input ids a line, without padding or special tokens
             expected.f32    for each case, for each position, a row of little-endian float32: the
                             last hidden state or the logits, or one row a case: its vector (bge),
                             its classes; computed in float32 by eager attention from the weights
                             as stored
             golden.json     this script's name and the SHA-256 of config, weights and expected
                             values; decoders: "prompt" and 128 greedy "new_ids" (no end token stops
                             them), the smallest distance of the two highest logits on the way

Weights are drawn so that attention is peaked and norms matter: products with scale
1.5 / sqrt(fan-in), norms around 1, biases around 0. Seeds are fixed; two runs gave the same bits.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6.
"""

import hashlib
import json
import pathlib
import random
import sys

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
SMALL = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 72,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
    "vocab_size": 131,
}
GEMMA = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": [1, 9],
    "final_logit_softcapping": None,
    "head_dim": 16,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 48,
    "intermediate_size": 72,
    "max_position_embeddings": 512,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 24,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 131,
}
BERT = {
    "hidden_act": "gelu",
    "hidden_size": 36,
    "intermediate_size": 60,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "model_type": "bert",
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "torch_dtype": "float16",
    "type_vocab_size": 2,
    "vocab_size": 101,
}
XLM_R = {
    **BERT,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
    "model_type": "xlm-roberta",
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
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
    "llama3": {
        **LLAMA,
        "eos_token_id": [2, 7],
        "hidden_size": 48,
        "intermediate_size": 72,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 131,
    },
    "mistral": {
        **SMALL,
        "architectures": ["MistralForCausalLM"],
        "head_dim": 12,
        "model_type": "mistral",
        "rope_theta": 1000000.0,
        "sliding_window": 12,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    },
    "qwen2": {
        **SMALL,
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 2,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": 16,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "distill-qwen": {
        **SMALL,
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 1,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "qwen2-window": {
        **SMALL,
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 1,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "sliding_window": 9,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
    },
    "qwen3": {
        **SMALL,
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "head_dim": 20,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "gemma3": {
        **GEMMA,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_theta": 1000000.0, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
        },
    },
    "gemma3-linear": {
        **GEMMA,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "rope_theta": 1000000.0,
        "sliding_window_pattern": 2,
    },
    "llama-fp8": {
        **LLAMA,
        "hidden_size": 48,
        "intermediate_size": 72,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "quantization_config": {
            "activation_scheme": "dynamic",
            "quant_method": "fp8",
            "weight_block_size": [16, 32],
        },
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 131,
    },
    "bge": {**BERT, "architectures": ["BertModel"]},
    "bert-tokens": {
        **BERT,
        "architectures": ["BertForTokenClassification"],
        "id2label": {"0": "O", "1": "B", "2": "I", "3": "E", "4": "S"},
        "label2id": {"B": 1, "E": 3, "I": 2, "O": 0, "S": 4},
    },
    "bert-classes": {
        **BERT,
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "no", "1": "yes", "2": "open"},
        "label2id": {"no": 0, "open": 2, "yes": 1},
    },
    "xlm-roberta": {**XLM_R, "architectures": ["XLMRobertaModel"]},
    "xlm-roberta-tokens": {**XLM_R, "architectures": ["XLMRobertaForTokenClassification"]},
    "xlm-roberta-classes": {
        **XLM_R,
        "architectures": ["XLMRobertaForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    },
}
LENGTHS = {
    "bert": [1, 2, 17, 33, 64],
    "llama-tied": [1, 2, 7, 33, 130],
    "llama-bf16": [1, 2, 7, 33, 130],
}
SHORT = [1, 2, 7, 33]
ENCODERS = ["bert", "bge", "bert-tokens", "bert-classes", "xlm-roberta", "xlm-roberta-tokens"]
ENCODERS += ["xlm-roberta-classes"]
SHARDED = ["mistral"]
GREEDY = 128
MARGIN_LEAST = 1e-3
VARIETY = {"qwen3": 32}         # so many different tokens among the greedy ones, at least


def draw(name, tensor, around_zero):
    """Random values for one tensor of the model, by what its name says it is; around_zero: the
    family stores the gains of its norms less one."""
    noise = torch.randn(tensor.shape)
    if "norm" in name.lower():
        return 0.1 * noise + (0.0 if name.endswith("bias") or around_zero else 1.0)
    if name.endswith("bias"):
        return 0.1 * noise
    if "embed" in name:  # these are scaled by the root of their width when they are read
        return 0.5 * noise / (tensor.shape[1] ** 0.5 if around_zero else 1.0)
    return 1.5 * noise / tensor.shape[1] ** 0.5


def make_weights(name, directory, kind):
    torch.manual_seed(20250101 + list(CONFIGS).index(name))
    config = kind.config_class.from_pretrained(directory)
    dtype = getattr(torch, CONFIGS[name]["torch_dtype"])
    weights = {
        key: draw(key, tensor, name.startswith("gemma")).to(dtype)
        for key, tensor in sorted(kind(config).state_dict().items())
        if not (config.tie_word_embeddings and key == "lm_head.weight")
    }
    if "quantization_config" in config.to_dict():
        weights = to_fp8(weights, CONFIGS[name]["quantization_config"]["weight_block_size"])
    if name == "bge":
        write_json(directory / "modules.json", MODULES)
        (directory / "1_Pooling").mkdir(exist_ok=True)
        write_json(directory / "1_Pooling" / "config.json", POOLING)
    if name in SHARDED:
        save_shards(directory, weights)
        return
    path = directory / "model.safetensors"
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def blow_up(scales, block, shape):
    """A scale for each element of a matrix."""
    wide = scales.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return wide[: shape[0], : shape[1]]


def to_fp8(weights, block):
    """Attention in blocks with a scale each, up with one a row, gate and down with one for all."""
    out = {}
    for key, tensor in weights.items():
        out[key] = tensor
        if "proj" not in key:
            continue
        whole = tensor.float()
        if "attn" in key:
            rows, columns = (-(-tensor.shape[i] // block[i]) for i in (0, 1))
            scale = torch.empty(rows, columns)
            for r in range(rows):
                for c in range(columns):
                    part = whole[r * block[0] : (r + 1) * block[0], c * block[1] : (c + 1) * block[1]]
                    scale[r, c] = part.abs().max() / 448
            out[key + "_scale_inv"] = scale
            out[key] = (whole / blow_up(scale, block, tensor.shape)).to(torch.float8_e4m3fn)
        else:
            scale = whole.abs().amax(1, keepdim=True) / 448
            scale = scale if "up_proj" in key else scale.max().reshape(())
            out[key + "_scale"] = scale
            out[key] = (whole / scale).to(torch.float8_e4m3fn)
    return out


def load(name, directory, kind):
    """The model in float32. The reference runs fp8 on a GPU only: widened here, by the definition."""
    if "quantization_config" not in CONFIGS[name]:
        return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    block = CONFIGS[name]["quantization_config"]["weight_block_size"]
    stored, wide = safetensors.torch.load_file(directory / "model.safetensors"), {}
    for key, tensor in stored.items():
        scale = stored.get(key + "_scale")
        if key + "_scale_inv" in stored:
            scale = blow_up(stored[key + "_scale_inv"], block, tensor.shape)
        if "_scale" not in key:
            wide[key] = tensor.float() * (1.0 if scale is None else scale)
    config = {key: v for key, v in CONFIGS[name].items() if key != "quantization_config"}
    config["torch_dtype"] = "float32"
    model = kind._from_config(kind.config_class(**config), attn_implementation="eager")
    model.load_state_dict(wide)
    return model


def expected(name, out):
    """What one case should give: rows of the last hidden state, of logits, or a sentence vector."""
    if name == "bge":
        return torch.nn.functional.normalize(out.last_hidden_state[:, 0])
    if hasattr(out, "logits"):
        return out.logits if out.logits.dim() == 2 else out.logits[0]
    return out.last_hidden_state[0]


def save_shards(directory, weights):
    keys, names = sorted(weights), ["model-00001-of-00002", "model-00002-of-00002"]
    halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": {}}
    for shard, half in zip(names, halves):
        path = directory / f"{shard}.safetensors"
        part = {key: weights[key] for key in half}
        safetensors.torch.save_file(part, path, metadata={"format": "pt"})
        path.chmod(0o644)
        index["weight_map"].update({key: path.name for key in half})
    write_json(directory / "model.safetensors.index.json", index)


def greedy(model, prompt):
    """The likeliest next token, GREEDY times, and the smallest margin it won by."""
    ids, margin = list(prompt), float("inf")
    for _ in range(GREEDY):
        with torch.no_grad():
            high = torch.topk(model(torch.tensor([ids])).logits[0, -1], 2)
        margin = min(margin, float(high.values[0] - high.values[1]))
        ids.append(int(high.indices[0]))
    return ids[len(prompt) :], margin


def digest(directory):
    """SHA-256 of config, weights and expected values, in the order of the files' names."""
    names = ["config.json", "expected.f32"] + [p.name for p in directory.glob("*.safetensors")]
    whole = hashlib.sha256()
    for name in sorted(names):
        whole.update((directory / name).read_bytes())
    return whole.hexdigest()


def make_greedy(name, model):
    """The first seed whose prompt keeps the least margin to the end, and wanders enough."""
    for seed in range(200):
        rng = random.Random(1000 * seed + list(CONFIGS).index(name))
        prompt = [rng.randrange(CONFIGS[name]["vocab_size"]) for _ in range(9)]
        new_ids, margin = greedy(model, prompt)
        if margin > MARGIN_LEAST and len(set(new_ids)) >= VARIETY.get(name, 1):
            break
    else:
        raise SystemExit(f"{name}: no prompt keeps a margin of {MARGIN_LEAST} and varies")
    golden = {"margin_min": margin, "seed": seed, "prompt": prompt, "new_ids": new_ids}
    print(f"{name}: seed {seed}, margin {margin:.4f}, {len(set(new_ids))} different tokens")
    return golden


def make_goldens(name, directory, kind):
    model = load(name, directory, kind).eval()
    rng = random.Random(list(CONFIGS).index(name))
    rows = []
    with open(directory / "cases.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for length in LENGTHS.get(name, SHORT):
            ids = [rng.randrange(CONFIGS[name]["vocab_size"]) for _ in range(length)]
            f.write(json.dumps(ids, separators=(",", ":")) + "\n")
            with torch.no_grad():
                out = model(torch.tensor([ids]))
            rows.append(expected(name, out).numpy())
    rows = np.concatenate(rows).astype("<f4")
    (directory / "expected.f32").write_bytes(rows.tobytes())
    print(f"{name}: {rows.shape}, mean {rows.mean():.3f}, deviation {rows.std():.3f}")
    golden = {} if name in ENCODERS else make_greedy(name, model)
    golden = {"script": "tests/golden/random_models.py", "sha256": digest(directory), **golden}
    text = json.dumps(golden, separators=(",", ":")) + "\n"
    (directory / "golden.json").write_text(text, encoding="utf-8")


def main():
    torch.set_num_threads(1)
    for name, config in CONFIGS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        directory = OUT / name
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", config)
        kind = getattr(transformers, config["architectures"][0])
        make_weights(name, directory, kind)
        make_goldens(name, directory, kind)


if __name__ == "__main__":
    main()
