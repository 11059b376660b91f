#!/usr/bin/env python3
"""Write golden.jsonl for a model: what transformers computes, for `penstock model import --verify`.

usage: python3 tests/golden/model_golden.py [--tokens 32] [--no-tensors] MODEL_DIR OUT.jsonl [TEXT...]

Every tensor's bytes as stored are named by SHA-256. Each text is run in float32 by eager attention,
alone: a decoder's logits behind the prompt (the 32 highest and 32 others), and its greedy tokens up
to the first step whose two highest logits are closer than 1e-3; an encoder's vector, pooled as
modules.json says (mean and unit length without one). Without a tokenizer in the directory the
texts are five runs of ids. tests/golden/README.md has the format.

Needs torch, transformers and safetensors; made with Python 3.11, torch 2.15.0, transformers 5.23.0.
"""
import argparse
import hashlib
import json
import pathlib
import struct

import torch
import transformers

TEXTS = ["The pump is loud.", "Revenue rose by 12.5 % in 2024, to EUR 3 million.",
         "def area(r):\n    return 3.14159 * r * r\n", "今天的检测结果合格。", "A"]
MARGIN = 1e-3
SIDE = 32


def tensors(folder):
    """(name, dtype, shape, SHA-256) of every tensor, by the format's own header."""
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            for name, row in sorted(header.items()):
                if name == "__metadata__":
                    continue
                begin, end = row["data_offsets"]
                file.seek(8 + size + begin)
                digest = hashlib.sha256(file.read(end - begin)).hexdigest()
                yield {"tensor": name, "dtype": row["dtype"], "shape": row["shape"], "sha256": digest}


def ids_of(folder, config, texts):
    """(text or None, ids) of each case."""
    if (folder / "tokenizer.json").exists():
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        return [(text, tokenizer(text)["input_ids"]) for text in texts]
    return [(None, [(7 * i + 13 * k) % (config.vocab_size - 3) + 3 for i in range(3 + 4 * k)])
            for k in range(5)]


def decoder_case(model, ids, count):
    out = model(torch.tensor([ids])).logits[0, -1]
    order = torch.argsort(out, descending=True).tolist()
    at = sorted(set(order[:SIDE] + order[SIDE::max(1, len(order) // SIDE)]))
    row = {"logits": {"at": at, "value": [out[i].item() for i in at], "max": out.abs().max().item()}}
    new = []
    while len(new) < count:
        two = torch.topk(out, 2).values
        if (two[0] - two[1]).item() < MARGIN:
            break
        new.append(int(out.argmax()))
        out = model(torch.tensor([ids + new])).logits[0, -1]
    return {**row, "new_ids": new}


def pooling(folder):
    """(which rows make the vector, whether it gets unit length)."""
    modules = folder / "modules.json"
    if not modules.exists():
        return "mean", True
    kind, unit = "mean", False
    for module in json.loads(modules.read_text(encoding="utf-8")):
        unit |= module["type"].endswith("Normalize")
        if module["type"].endswith("Pooling"):
            modes = json.loads((folder / module["path"] / "config.json").read_text(encoding="utf-8"))
            kind = "cls" if modes.get("pooling_mode_cls_token") else "mean"
    return kind, unit


def encoder_case(model, ids, how):
    hidden = model(torch.tensor([ids])).last_hidden_state[0]
    vector = hidden[0] if how[0] == "cls" else hidden.mean(dim=0)
    if how[1]:
        vector = torch.nn.functional.normalize(vector, dim=0)
    return {"embedding": vector.tolist()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--no-tensors", action="store_true")
    parser.add_argument("texts", nargs="*", default=TEXTS)
    a = parser.parse_args()
    config = transformers.AutoConfig.from_pretrained(a.folder)
    name = config.architectures[0]
    decoder = name.endswith("ForCausalLM")
    load = transformers.AutoModelForCausalLM if decoder else transformers.AutoModel
    model = load.from_pretrained(a.folder, dtype=torch.float32, attn_implementation="eager").eval()
    head = {"golden": 1, "architecture": name, "made_by": "tests/golden/model_golden.py",
            "numerics": {"logits": 2e-4, "cosine": 0.99999}}
    with torch.no_grad(), open(a.out, "w", encoding="utf-8") as out:
        rows = [head] + ([] if a.no_tensors else list(tensors(a.folder)))
        for text, ids in ids_of(a.folder, config, a.texts):
            case = decoder_case(model, ids, a.tokens) if decoder else encoder_case(model, ids,
                                                                                     pooling(a.folder))
            rows.append({**({"text": text} if text is not None else {}), "ids": ids, **case})
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
