#!/usr/bin/env python3
"""Writes sampling/cases.jsonl: what transformers' logits processors leave of random logits.

Made with torch and transformers 5.23 (`python sampling.py`). A case: `logits` in 1024ths, the ids of
the `prompt` and those `written`, the `settings`, and `kept`: [id, probability] of every token that may
be drawn, most likely first. Presence and frequency penalties are not in transformers; they are taken
off after the repetition penalty, of what was written, as their definition says.
"""
import json
import random
from pathlib import Path

import torch
from transformers import GenerationConfig
from transformers.generation import (LogitsProcessorList, MinPLogitsWarper,
                                     RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                                     TopKLogitsWarper, TopPLogitsWarper)

VOCAB, CASES = 97, 120


def settings_of(r):
    return {
        "temperature": r.choice([0.3, 0.7, 1.0, 1.5]),
        "top_k": r.choice([0, 0, 5, 40]),
        "top_p": r.choice([1.0, 1.0, 0.9, 0.5]),
        "min_p": r.choice([0.0, 0.0, 0.05, 0.3]),
        "repetition_penalty": r.choice([1.0, 1.0, 1.3, 0.8, 2.0]),
        "presence_penalty": r.choice([0.0, 0.0, 0.75, -1.5]),
        "frequency_penalty": r.choice([0.0, 0.0, 0.5, -0.25]),
    }


def processors_of(s):
    """The list that GenerationMixin makes of these settings, in its order."""
    GenerationConfig(do_sample=True, temperature=s["temperature"], top_k=s["top_k"], top_p=s["top_p"],
                     min_p=s["min_p"], repetition_penalty=s["repetition_penalty"]).validate()
    before, after = LogitsProcessorList(), LogitsProcessorList()
    if s["repetition_penalty"] != 1:
        before.append(RepetitionPenaltyLogitsProcessor(s["repetition_penalty"]))
    if s["temperature"] != 1:
        after.append(TemperatureLogitsWarper(s["temperature"]))
    if s["top_k"]:
        after.append(TopKLogitsWarper(s["top_k"]))
    if s["top_p"] < 1:
        after.append(TopPLogitsWarper(s["top_p"]))
    if s["min_p"]:
        after.append(MinPLogitsWarper(s["min_p"]))
    return before, after


def case(r):
    logits = r.sample(range(-6000, 6000), VOCAB)
    prompt = [r.randrange(VOCAB) for _ in range(r.randrange(1, 30))]
    written = [r.randrange(VOCAB) for _ in range(r.randrange(0, 30))]
    s = settings_of(r)
    before, after = processors_of(s)
    ids = torch.tensor([prompt + written])
    scores = before(ids, torch.tensor([logits], dtype=torch.float32) / 1024)
    for t in set(written):
        scores[0, t] -= s["presence_penalty"] + s["frequency_penalty"] * written.count(t)
    shares = torch.softmax(after(ids, scores)[0].double(), -1)
    kept = [[i, shares[i].item()] for i in torch.argsort(shares, descending=True).tolist() if shares[i] > 0]
    return {"logits": logits, "prompt": prompt, "written": written, "settings": s, "kept": kept}


def main():
    r = random.Random(20261124)
    out = Path(__file__).with_name("sampling") / "cases.jsonl"
    with out.open("w") as f:
        for _ in range(CASES):
            f.write(json.dumps(case(r), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
