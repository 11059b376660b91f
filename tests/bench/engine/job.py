"""The peer of engine.c's memory and start: one prompt by transformers, in bf16.

usage: PEERS/bin/python tests/bench/engine/job.py MODEL_DIR THREADS PROMPT_TOKENS TOKENS

Prints when the first token was there (ns of the monotonic clock) and the most memory that the
process has had (KiB).
"""
import sys
import time

import torch
import transformers


def peak_kib():
    with open("/proc/self/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))


def main():
    directory, threads, prompt, tokens = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    ids = torch.randint(0, model.config.vocab_size, (1, prompt),
                        generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        out = model.eval()(ids, use_cache=True, logits_to_keep=1)
        following = out.logits[:, -1].argmax(-1, keepdim=True)
        first_ns = time.monotonic_ns()
        for _ in range(tokens):
            out = model(following, past_key_values=out.past_key_values, use_cache=True)
            following = out.logits[:, -1].argmax(-1, keepdim=True)
    print(first_ns, peak_kib())


if __name__ == "__main__":
    main()
