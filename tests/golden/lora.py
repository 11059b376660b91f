"""Make LoRA adapters of the tiny random models, and what peft computes with them.

Purpose: parity of adapters with the library that defines their files: every way to say which
    matrices change and by how much, at ranks that divide badly.

    llama-all    all seven matrices by name, r 5, float32
    llama-some   four of them by a pattern, r 4, rsLoRA, ranks and alphas by patterns, bf16
    qwen2-late   attention of the second layer alone (layers_to_transform), float16
    gemma3-all   "all-linear", r 3: the blocks have norms behind them
    tiny-loud, tiny-quiet
                 of examples/models/tiny-llama, which has a tokenizer: for tests of whole jobs
    bert-all     attention and MLP of an encoder: no gate, and a bias beneath

Run:     python3 tests/golden/lora.py

Writes:  tests/golden/lora/NAME/
             adapter_config.json, adapter_model.safetensors    as peft saves them
             cases.jsonl     one JSON array of input ids a line
             expected.f32    for each case, for each position, a row of little-endian float32: the
                             logits; bert-all: one row a case, the mean of its last hidden
                             states, at unit length
             golden.json     this script's name, `base` (a folder of tests/golden/models), SHA-256
                             of config, weights and expected values; decoders: "prompt" and 128
                             greedy "new_ids", the smallest distance of the two highest logits on
                             the way, and how many of them the plain model would have written;
                             tiny-*: "text", the prompt, 40 new_ids or fewer, up to an end token,
                             and "plain_ids" of the model without the adapter

Seeds are fixed; two runs gave the same bits.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2, numpy 2.4.6.
"""

import json
import pathlib
import random
import zlib

import numpy as np
import peft
import random_models
import tokenizers
import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent / "lora"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SOME = r"model\.layers\.\d+\.(?:self_attn\.(?:q|v)_proj|mlp\.(?:up|down)_proj)"
TINY = OUT.parent.parent.parent / "examples" / "models" / "tiny-llama"
TINY_PROMPTS = ["The press on line two", "The robot", "Board 417 has", "The furnace", "The Buyer"]
TINY_TOKENS = 40
ADAPTERS = {
    "llama-all": ("llama-tied", torch.float32, {
        "r": 5, "lora_alpha": 8,
        "target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj"],
    }),
    "llama-some": ("llama-tied", torch.bfloat16, {
        "r": 4, "lora_alpha": 4, "use_rslora": True, "target_modules": SOME,
        "rank_pattern": {"v_proj": 3, r"layers\.1\.mlp\.down_proj": 11},
        "alpha_pattern": {"q_proj": 7, r".*\.0\.mlp\..*": 2},
    }),
    "qwen2-late": ("qwen2", torch.float16, {
        "r": 2, "lora_alpha": 4, "target_modules": ATTENTION, "layers_to_transform": [1],
    }),
    "gemma3-all": ("gemma3", torch.bfloat16, {
        "r": 3, "lora_alpha": 6, "target_modules": "all-linear",
    }),
    "tiny-loud": ("tiny-llama", torch.bfloat16, {
        "r": 3, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj", "down_proj"],
    }),
    "tiny-quiet": ("tiny-llama", torch.bfloat16, {
        "r": 2, "lora_alpha": 3, "target_modules": ["o_proj", "up_proj"],
        "layers_to_transform": [1, 2],
    }),
    "bert-all": ("bert", torch.float32, {
        "r": 6, "lora_alpha": 9,
        "target_modules": r".*encoder\.layer\.\d+\..*(?:query|key|value|dense)",
    }),
}
LENGTHS = [1, 2, 7, 33]


def load(base):
    """The plain model in float32."""
    if base == TINY.name:
        return transformers.LlamaForCausalLM.from_pretrained(
            TINY, dtype=torch.float32, attn_implementation="eager").eval()
    directory = random_models.OUT / base
    config = random_models.CONFIGS[base]
    kind = getattr(transformers, config["architectures"][0])
    return random_models.load(base, directory, kind).eval()


def make_adapter(name):
    """The adapter's files, and the model with it."""
    base, dtype, settings = ADAPTERS[name]
    directory = OUT / name
    torch.manual_seed(zlib.crc32(name.encode()))
    model = peft.get_peft_model(load(base), peft.LoraConfig(**settings)).eval()
    for key, tensor in sorted(model.state_dict().items()):
        if "lora_" in key:  # each factor keeps about the size of what it is applied to
            scale = (0.8 if "lora_A" in key else 0.6) / tensor.shape[1] ** 0.5
            tensor.copy_((scale * torch.randn(tensor.shape)).to(dtype))
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    path = directory / "adapter_model.safetensors"
    narrow = {k: v.to(dtype) for k, v in random_models.safetensors.torch.load_file(path).items()}
    random_models.safetensors.torch.save_file(narrow, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("target_modules", "exclude_modules"):  # sets, whose order changes from run to run
        if isinstance(config.get(key), list):
            config[key].sort()
    random_models.write_json(directory / "adapter_config.json", config)
    return model


def make_goldens(name, model):
    base, directory = ADAPTERS[name][0], OUT / name
    vocab, encoder = random_models.CONFIGS[base]["vocab_size"], base in random_models.ENCODERS
    rng = random.Random(zlib.crc32(name.encode()))
    rows = []
    with open(directory / "cases.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for length in LENGTHS:
            ids = [rng.randrange(vocab) for _ in range(length)]
            f.write(json.dumps(ids, separators=(",", ":")) + "\n")
            with torch.no_grad():
                row = random_models.expected(base, model(torch.tensor([ids])))
                if encoder:
                    row = torch.nn.functional.normalize(row.mean(0, keepdim=True))
                rows.append(row.numpy())
    rows = np.concatenate(rows).astype("<f4")
    (directory / "expected.f32").write_bytes(rows.tobytes())
    print(f"{name}: {rows.shape}, mean {rows.mean():.3f}, deviation {rows.std():.3f}")
    return {} if encoder else make_greedy(name, model, vocab)


def make_greedy(name, model, vocab):
    plain = load(ADAPTERS[name][0])
    for seed in range(200):
        rng = random.Random(f"{name} {seed}")
        prompt = [rng.randrange(vocab) for _ in range(9)]
        new_ids, margin = random_models.greedy(model, prompt)
        if margin > random_models.MARGIN_LEAST:
            break
    else:
        raise SystemExit(f"{name}: no prompt keeps a margin of {random_models.MARGIN_LEAST}")
    without, _ = random_models.greedy(plain, prompt)
    same = sum(a == b for a, b in zip(new_ids, without))
    print(f"{name}: seed {seed}, margin {margin:.4f}, {same} tokens as without the adapter")
    return {"margin_min": margin, "seed": seed, "same_as_plain": same, "prompt": prompt,
            "new_ids": new_ids}


def make_tiny(name, model):
    """What greedy decoding writes after words, with and without the adapter, where it is clear."""
    tokenizer = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
    end = tokenizer.token_to_id("<|end_of_text|>")

    def write(model, prompt):
        ids, margin = random_models.greedy(model, prompt)
        return ids[: ids.index(end) if end in ids else TINY_TOKENS][:TINY_TOKENS], margin

    for text in TINY_PROMPTS:
        prompt = tokenizer.encode(text).ids
        (new_ids, margin), (plain, least) = write(model, prompt), write(load(TINY.name), prompt)
        if new_ids[:9] != plain[:9] and min(margin, least) > random_models.MARGIN_LEAST:
            break
    else:
        raise SystemExit(f"{name}: no prompt keeps a margin of {random_models.MARGIN_LEAST}")
    print(f"{name}: margin {margin:.4f}: {tokenizer.decode(new_ids)!r}")
    return {"margin_min": min(margin, least), "text": text, "prompt": prompt, "new_ids": new_ids,
            "plain_ids": plain}


def digest(directory):
    """SHA-256 of config, weights and expected values, in the order of the files' names."""
    whole = random_models.hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors", "expected.f32"):
        if not (directory / name).exists():
            continue
        whole.update((directory / name).read_bytes())
    return whole.hexdigest()


def main():
    torch.set_num_threads(1)
    for name in ADAPTERS:
        (OUT / name).mkdir(parents=True, exist_ok=True)
        make = make_tiny if ADAPTERS[name][0] == TINY.name else make_goldens
        golden = make(name, make_adapter(name))
        golden = {"script": "tests/golden/lora.py", "base": ADAPTERS[name][0],
                  "sha256": digest(OUT / name), **golden}
        text = json.dumps(golden, separators=(",", ":")) + "\n"
        (OUT / name / "golden.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
