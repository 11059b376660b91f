"""Convert the llama2.c model stories260K into a Hugging Face directory.

Purpose: the one decoder whose greedy text is known from an independent program. `make test`
    converts it when PENSTOCK_DATA is set, so this script needs nothing but Python 3 itself.

Run:     python3 tests/golden/stories260k.py SOURCE_DIR OUT_DIR
    SOURCE_DIR is $PENSTOCK_DATA/weights/stories260K: stories260K.bin and tok512.bin.

Writes:  OUT_DIR/{config,generation_config,tokenizer,tokenizer_config,special_tokens_map}.json and
    model.safetensors (float32, 260,032 weights; the head is tied to the embedding).

How to compare with golden_greedy_200.txt: prompt "" (the ids are [1], the BOS), 200 new tokens by
    greedy choice, detokenized together. llama2.c drops the one space that follows BOS, as the Strip
    in the tokenizer's decoder does, and prints a line feed after the last token, which is not the
    model's. So the golden equals the text plus "\\n", byte by byte. No BOS occurs within the 200
    (the smallest top-2 distance on the way is 0.0042). A BOS ends a text in llama2.c, so
    eos_token_id is 1, not 2.

Checked with Python 3.11 and transformers 5.23.0: the 200 tokens reproduce the golden exactly.
"""

import json
import math
import pathlib
import struct
import sys

BYTE_FIRST, PIECE_FIRST = 3, 259          # ids: 0 unknown, 1 BOS, 2 EOS, 3-258 bytes, then pieces
SPECIAL = ["<unk>", "<s>", "</s>"]
NAMES = ["dim", "hidden", "layers", "heads", "kv_heads", "vocab", "seq"]


def read_model(path):
    """Returns the header as a dict and {Hugging Face name: (shape, bytes)} of the weights."""
    data = path.read_bytes()
    c = dict(zip(NAMES, struct.unpack_from("<7i", data)))
    head_dim, kv_dim = c["dim"] // c["heads"], c["dim"] // c["heads"] * c["kv_heads"]
    if c["vocab"] <= 0:
        sys.exit(f"{path}: the head is not tied, which this script does not convert")
    position = 28
    weights = {}

    def take(name, *shape, per_layer=True, heads=0):
        """Reads a float32 array; with heads, takes RoPE's pairs apart into halves."""
        nonlocal position
        for layer in range(c["layers"] if per_layer else 1):
            size = 4 * math.prod(shape)
            raw = data[position : position + size]
            position += size
            if heads:
                raw = split_pairs(raw, heads, head_dim, 4 * shape[1])
            weights[name.format(layer)] = (list(shape), raw)

    layer = "model.layers.{}."
    take("model.embed_tokens.weight", c["vocab"], c["dim"], per_layer=False)
    take(layer + "input_layernorm.weight", c["dim"])
    take(layer + "self_attn.q_proj.weight", c["dim"], c["dim"], heads=c["heads"])
    take(layer + "self_attn.k_proj.weight", kv_dim, c["dim"], heads=c["kv_heads"])
    take(layer + "self_attn.v_proj.weight", kv_dim, c["dim"])
    take(layer + "self_attn.o_proj.weight", c["dim"], c["dim"])
    take(layer + "post_attention_layernorm.weight", c["dim"])
    take(layer + "mlp.gate_proj.weight", c["hidden"], c["dim"])
    take(layer + "mlp.down_proj.weight", c["dim"], c["hidden"])
    take(layer + "mlp.up_proj.weight", c["hidden"], c["dim"])
    take("model.norm.weight", c["dim"], per_layer=False)
    position += 4 * c["seq"] * head_dim    # the RoPE tables, which follow from theta = 10000
    if position != len(data):
        sys.exit(f"{path}: {len(data)} bytes, but its header asks for {position}")
    return c, weights


def split_pairs(raw, heads, head_dim, row_bytes):
    """llama2.c rotates rows 2i and 2i + 1 of a head, Hugging Face rows i and i + head_dim / 2."""
    rows = []
    for head in range(heads):
        for half in range(2):
            for i in range(head_dim // 2):
                row = head * head_dim + 2 * i + half
                rows.append(raw[row * row_bytes : (row + 1) * row_bytes])
    return b"".join(rows)


def write_safetensors(path, weights):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, raw) in weights.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(raw for _, raw in weights.values())


def read_pieces(path, vocab):
    """Returns [(piece, score)] by id; spaces stand for U+2581, as sentencepiece writes them."""
    data = path.read_bytes()
    pieces, position = [], 4
    for _ in range(vocab):
        score, length = struct.unpack_from("<fi", data, position)
        text = data[position + 8 : position + 8 + length].decode("utf-8")
        pieces.append((text.replace(" ", "\u2581"), score))
        position += 8 + length
    if position != len(data):
        sys.exit(f"{path}: {len(data)} bytes, but {vocab} pieces end at {position}")
    for i, name in enumerate(SPECIAL):
        pieces[i] = (name, 0.0)
    return pieces


def merges_of(pieces):
    """Every way to make a piece of two, the best score first: what llama2.c finds by searching."""
    ids = {text: i for i, (text, _) in enumerate(pieces)}
    found = []
    for text, score in pieces[PIECE_FIRST:]:
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut], 0), ids.get(text[cut:], 0)
            if left >= PIECE_FIRST and right >= PIECE_FIRST:
                found.append((-score, left, right))
    return [[pieces[left][0], pieces[right][0]] for _, left, right in sorted(found)]


def tokenizer_json(pieces):
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, name in enumerate(SPECIAL)
    ]
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    pair = {"Sequence": {"id": "B", "type_id": 1}}
    space = {"String": " "}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": space, "content": "\u2581"},
        ]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, text], "pair": [bos, text, bos, pair],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {text: i for i, (text, _) in enumerate(pieces)}, "merges": merges_of(pieces),
        },
    }


def config_json(c):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
        "bos_token_id": 1, "eos_token_id": 1, "hidden_act": "silu", "hidden_size": c["dim"],
        "head_dim": c["dim"] // c["heads"], "intermediate_size": c["hidden"],
        "max_position_embeddings": c["seq"], "mlp_bias": False, "num_attention_heads": c["heads"],
        "num_hidden_layers": c["layers"], "num_key_value_heads": c["kv_heads"],
        "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": True, "torch_dtype": "float32", "vocab_size": c["vocab"],
    }


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} SOURCE_DIR OUT_DIR")
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    c, weights = read_model(source / "stories260K.bin")
    pieces = read_pieces(source / "tok512.bin", c["vocab"])
    special = {"bos_token": "<s>", "eos_token": "<s>", "unk_token": "<unk>"}
    out.mkdir(parents=True, exist_ok=True)
    write_safetensors(out / "model.safetensors", weights)
    for name, value in {
        "config": config_json(c),
        "generation_config": {"bos_token_id": 1, "eos_token_id": 1, "do_sample": False},
        "tokenizer": tokenizer_json(pieces),
        "tokenizer_config": {**special, "model_max_length": c["seq"],
                             "tokenizer_class": "PreTrainedTokenizerFast"},
        "special_tokens_map": special,
    }.items():
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
