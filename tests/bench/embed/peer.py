"""The peer of embed.c: the same work by transformers on PyTorch in float32.

usage: PEERS/bin/python tests/bench/embed/peer.py MODEL_DIR THREADS

Prints `ready`, then for each line of stdin (a batch size) sentences of 128 tokens a second.
"""
import sys
import time

import torch
import transformers

TOKENS, RUN_S = 128, 0.4


def main():
    directory, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    model = transformers.BertModel.from_pretrained(directory, dtype=torch.float32).eval()
    print("ready", flush=True)
    for line in sys.stdin:
        batch, sentences = int(line), 0
        ids = torch.randint(1000, model.config.vocab_size, (batch, TOKENS))
        began = time.perf_counter()
        with torch.inference_mode():
            while time.perf_counter() - began < RUN_S:
                hidden = model(ids).last_hidden_state
                torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
                sentences += batch
        print(sentences / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
