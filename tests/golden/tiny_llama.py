"""Make the tiny Llama-type decoder of the demo, and the goldens that go with it.

Purpose: examples/models/tiny-llama/ is a complete Hugging Face directory (byte-level BPE with the
    Llama-3 split pattern, bf16 weights, GQA, tied head) that fits into the repository. It is
    trained here, for some minutes on one CPU thread, on the grammar of tiny_corpus.py. It knows
    nothing.

Run:     python3 tests/golden/tiny_llama.py train      tokenizer and weights (about 10 minutes)
         python3 tests/golden/tiny_llama.py goldens    what transformers answers for them

Writes:  examples/models/tiny-llama/{config,generation_config,tokenizer,tokenizer_config,
             special_tokens_map}.json and model.safetensors
         tests/golden/tiny-llama/
             prompts.jsonl   {"prompt","ids","new_ids","text","margin_min"} a line
             logits.f32      a row of vocab_size little-endian float32 for each prompt
             strings.jsonl   {"text","ids"} a line: hard strings, no special token added

Seeds are fixed, but sums differ between instruction sets and versions: the weights count as
committed, not as reproduced. tests/golden/README.md explains the goldens.
Made with Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0.
"""

import itertools
import json
import math
import pathlib
import random
import sys
import time
import unicodedata

import numpy as np
import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import tiny_corpus

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "models" / "tiny-llama"
GOLDEN = ROOT / "tests" / "golden" / "tiny-llama"

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
VOCAB = 1024
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": VOCAB - 2,
    "eos_token_id": VOCAB - 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 352,
    "max_position_embeddings": 1024,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCAB,
}
CORPUS_SEED, WEIGHT_SEED, STRING_SEED = 20250101, 7, 11
STEPS, SINGLE, PACKED, CONTEXT = 4000, 16, 4, 256
NEW_TOKENS = 64

PROMPTS = [
    "",
    "The press",
    "The furnace on line three stopped because",
    "Board 417 has",
    "The Buyer pays each invoice",
    "Either party may end",
    "三号线的机器人",
    "相机在305号电路板上",
    "卖方应当",
    "第七条　任何一方",
    "Line 4: 甲方 (Party A) pays 12,500.00 to",
    "What is it?\n\n  😀 naïve",
]


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


# --- tokenizer ------------------------------------------------------------------------------------


def train_tokenizer():
    """Byte-level BPE, laid out as Llama-3's tokenizer.json: special tokens come last."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(LLAMA3_SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    texts = itertools.islice(tiny_corpus.documents(CORPUS_SEED), 4000)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([BOS, EOS])
    assert tokenizer.get_vocab_size() == VOCAB and tokenizer.token_to_id(BOS) == VOCAB - 2
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single=f"{BOS} $A",
            pair=f"{BOS} $A {BOS}:1 $B:1",
            special_tokens=[(BOS, VOCAB - 2)],
        ),
    ])
    tokenizer.save(str(MODEL / "tokenizer.json"))
    special = {"bos_token": BOS, "eos_token": EOS}
    write_json(MODEL / "special_tokens_map.json", special)
    write_json(MODEL / "tokenizer_config.json", {
        **special,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
    return tokenizer


# --- training -------------------------------------------------------------------------------------


def batches(tokenizer):
    """Yields inputs and targets, [rows, length] int64 each, without end; target -100 is padding.

    Three batches in four hold a document a row, which teaches to keep to the machine and the party
    that the document began with; the fourth packs documents behind one another up to CONTEXT."""
    texts = tiny_corpus.documents(CORPUS_SEED + 1)
    rows = (tokenizer.encode(text).ids + [VOCAB - 1] for text in texts)
    pending = []
    for turn in itertools.count():
        if turn % 4 == 3:
            while len(pending) <= PACKED * CONTEXT:
                pending += next(rows)
            block = torch.tensor(pending[: PACKED * CONTEXT + 1])
            del pending[: PACKED * CONTEXT]
            yield block[:-1].view(PACKED, CONTEXT), block[1:].view(PACKED, CONTEXT)
            continue
        single = list(itertools.islice(rows, SINGLE))
        length = max(map(len, single)) - 1
        inputs = torch.full((SINGLE, length), VOCAB - 1)
        targets = torch.full((SINGLE, length), -100)
        for i, ids in enumerate(single):
            inputs[i, : len(ids) - 1] = torch.tensor(ids[:-1])
            targets[i, : len(ids) - 1] = torch.tensor(ids[1:])
        yield inputs, targets


def learning_rate(step):
    """Warm-up over the first 3 % of the steps, then a cosine to a twentieth."""
    part = step / STEPS
    return 3e-3 * min(1.0, part / 0.03) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * part)))


def train():
    MODEL.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(WEIGHT_SEED)
    tokenizer = train_tokenizer()
    write_json(MODEL / "config.json", CONFIG)
    write_json(MODEL / "generation_config.json", {
        "bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1, "do_sample": False,
    })
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(MODEL)).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05)
    start = time.monotonic()
    for step, (inputs, targets) in enumerate(itertools.islice(batches(tokenizer), STEPS)):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        logits = model(inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            elapsed = time.monotonic() - start
            print(f"step {step}  loss {loss.item():.3f}  {elapsed:.0f} s", flush=True)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }
    safetensors.torch.save_file(weights, MODEL / "model.safetensors", metadata={"format": "pt"})
    (MODEL / "model.safetensors").chmod(0o644)
    count = sum(tensor.numel() for tensor in weights.values())
    print(f"{STEPS} steps, {count} weights, loss {loss.item():.3f}")


# --- goldens --------------------------------------------------------------------------------------

HARD = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n", "\n ", "  \n  ", "\r\n",
    "\r", " \r\n\r\n x", "a", " a", "  a", "   a  ", "a ", "a  b", "a   b\n", "a\n\nb", "a \n b",
    "a\t\tb", "tail   \n\n\n   ", "The press on line two stopped.", "the PRESS On LiNe TwO",
    "stopped,because;of:that.", "end.Begin", "...", "?!?!",
    "it's they'll we'd I'm you've don't we're", "IT'S THEY'LL WE'D I'M YOU'VE DON'T WE'RE",
    "'s's's", "' s", "x'sy", "'Sx", "it\u2019s not \u2018that\u2019", "'\u017f and '\u212a",
    "o'clock 'til rock'n'roll", "''''", "'", "'ll", " 'll", "'lx", "1", "12", "123", "1234",
    "12345", "123456", "1234567", "1,234,567.89", "3.14159", "0x7fff", "1e-9", "v1.2.3-rc4",
    "2025-06-30T23:59:59+08:00", "٤٢ ४२ １２３４", "½ ² Ⅷ ①② 〇", "12年34", "A1b2C3", "9\n9", "9 9",
    "-40 °C", "100%", "$5", "€5,00", "#1 @2 &3 *4",
    "if (a[i] != 0) { return -1; } // done\n\tx++;\n",
    "<html lang=\"en\">\n  <p>&nbsp;</p>\n</html>", "C:\\dir\\file.txt",
    "https://example.org/a?b=c&d=%20#e", "line@example.com", "snake_case camelCase kebab-case",
    "__init__", "a/b\\c|d", "{\"key\": [1, 2.5, null, true]}", "`code` **bold** ~strike~",
    "- item\n- item\n\n1. one\n2. two\n", "====", "----\n----", "冲压机因为油温超过了上限在8:05停机。",
    "甲方应当付款。乙方交货。", "第一条　任何一方", "“质量第一”——口号……", "你好，世界！", "中文English混合文本", "中 文 空 格", "繁體字與简体字",
    "日本語のテキスト", "ガイドｶﾞｲﾄﾞ", "한국어 문장", "\u1112\u1161\u11ab", "русский текст", "Ελληνικά",
    "العربية نص", "עברית", "हिन्दी पाठ", "ภาษาไทย", "កាន់តែ", "tiếng Việt", "caf\u00e9 cafe\u0301",
    "\u00c5 A\u030a \u212b", "naïve façade", "straße ẞ", "İstanbul ı", "\ufb01 \ufb02 \u01c6",
    "o\u0308\u0304", "😀", "😀😀", " 😀 ", "a😀b", "👩\U0001f3fd\u200d🔧",
    "\U0001f1e8\U0001f1f3\U0001f1e9\U0001f1ea", "✅ ☕\ufe0f", "1\ufe0f\u20e3", "\u00a0", "a\u00a0b",
    "\u3000\u3000a", "a\u2003b\u2009c", "a\u200bb", "a\u200db", "\ufeffbom",
    "\u2028x\u2029y\u0085z", "\u00ad", "\u180e", "\u000b\u000c", "\u0001\u0002\u001b[0m\u007f",
    "\u0080\u009f", "\ufffd", "\ufffe\uffff", "\ue000\U000f0000\U0010ffff",
    "\U0001d400\U0001d41b \U0001d7d8\U0001d7d9", "\U00020000\U0002a6d6", "\U00012000 \U00010330",
    "\u0300", " \u0300", "a\u0300\u0301\u0302", "x" * 100, "中" * 50, " " * 33, "\n" * 17,
    "ab" * 40 + " " + "1" * 25, "!" * 31, "—" * 9, "The " * 20,
]
PIECES = [
    " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", "\"", ".", ",", "(", "-", "_", "0", "42",
    "1995", "a", "Bc", "the", " line", "stopped", "中", "甲方", "。", "，", "\u3000", "é", "e\u0301",
    "ß", "😀", "\u200d", "\u00a0", "४", "²",
]


def random_strings(count):
    """Strings of assigned code points, and of fragments that tempt a splitter to err."""
    rng = random.Random(STRING_SEED)
    points = map(chr, range(1, 0x20000))
    assigned = [c for c in points if unicodedata.category(c) not in ("Cn", "Cs")]
    for i in range(count):
        source, most = (assigned, 12) if i % 3 == 0 else (PIECES, 16)
        yield "".join(rng.choices(source, k=rng.randint(1, most)))


def string_goldens(tokenizer):
    texts = list(dict.fromkeys([*HARD, *random_strings(75)]))
    with open(GOLDEN / "strings.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            f.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=False) + "\n")
    print(f"{len(texts)} strings")


def long_prompt():
    """About 500 tokens: whole documents, and the beginning of one more."""
    texts = list(itertools.islice(tiny_corpus.documents(CORPUS_SEED + 2), 9))
    return "\n".join(texts) + "\nThe robot on line two"


def greedy(model, ids):
    """Greedy ids up to NEW_TOKENS or EOS (kept), the first logits, the smallest top-2 distance."""
    new_ids, margins, first, cache = [], [], None, None
    while len(new_ids) < NEW_TOKENS and new_ids[-1:] != [VOCAB - 1]:
        step = ids if cache is None else new_ids[-1:]
        with torch.no_grad():
            out = model(torch.tensor([step]), past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1]
        first = logits.numpy() if first is None else first
        top = torch.topk(logits, 2)
        margins.append((top.values[0] - top.values[1]).item())
        new_ids.append(top.indices[0].item())
    return new_ids, first, min(margins)


def goldens():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    string_goldens(tokenizer)
    model = transformers.LlamaForCausalLM.from_pretrained(
        MODEL, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    assert model.config.rope_parameters["rope_theta"] == CONFIG["rope_theta"]
    rows = []
    with open(GOLDEN / "prompts.jsonl", "w", encoding="utf-8", newline="\n") as f:
        for prompt in [*PROMPTS, long_prompt()]:
            ids = tokenizer.encode(prompt).ids
            new_ids, logits, margin = greedy(model, ids)
            rows.append(logits)
            text = tokenizer.decode(new_ids, skip_special_tokens=True)
            print(f"{len(ids)}+{len(new_ids)}, margin {margin:.3g}: {prompt[-40:]!r} -> {text!r}")
            assert margin > 1e-3, "two tokens are too close for a golden: take another prompt"
            line = {"prompt": prompt, "ids": ids, "new_ids": new_ids, "text": text,
                    "margin_min": float(f"{margin:.3g}")}
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
    (GOLDEN / "logits.f32").write_bytes(np.stack(rows).astype("<f4").tobytes())


if __name__ == "__main__":
    verbs = {"train": train, "goldens": goldens}
    if len(sys.argv) != 2 or sys.argv[1] not in verbs:
        sys.exit(f"usage: {sys.argv[0]} train|goldens")
    verbs[sys.argv[1]]()
