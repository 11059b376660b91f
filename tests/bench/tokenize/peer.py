"""The peer of tokenize.c: the same texts by Hugging Face tokenizers, one thread.

usage: PEERS/bin/python tests/bench/tokenize/peer.py TEXTS

TEXTS holds documents with a NUL behind each. Prints `ready`, then for each line of stdin, the folder
of a tokenizer: how many bytes a second of processor time, and how many tokens.
"""
import functools
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers                                                               # noqa: E402
from tokenizers import models, normalizers, pre_tokenizers                      # noqa: E402

RUN_S = 0.15
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def of_vocabulary(folder):
    """GPT-2's and Qwen2's folders have a vocabulary and merges, no tokenizer.json."""
    named = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")]
    vocab, merges = next(pair for pair in named if (folder / pair[0]).exists())
    tokenizer = tokenizers.Tokenizer(models.BPE.from_file(str(folder / vocab), str(folder / merges)))
    config = folder / "tokenizer_config.json"
    if config.exists() and json.loads(config.read_text())["tokenizer_class"].startswith("Qwen2"):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@functools.lru_cache(maxsize=1)
def opened(folder):
    path = pathlib.Path(folder, "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(path)) if path.exists() else of_vocabulary(path.parent)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def main():
    texts = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\0")[:-1]
    size = sum(len(text.encode()) for text in texts)
    print("ready", flush=True)
    for line in sys.stdin:
        tokenizer, times = opened(line.rstrip("\n")), 0
        began = time.process_time()
        while time.process_time() - began < RUN_S:
            found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            times += 1
        took = time.process_time() - began
        print(size * times / took, sum(map(len, found)), flush=True)


if __name__ == "__main__":
    main()
