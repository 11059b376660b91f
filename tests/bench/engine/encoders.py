"""The peers of engine.c's sentences: the same encoder by PyTorch and by ONNX Runtime.

usage: PEERS/bin/python tests/bench/engine/encoders.py MODEL_DIR THREADS WORK_DIR

Prints `ready`, then for each line of stdin, the name of a peer, sentences of 128 tokens a second,
32 at a time; 0 for one that cannot run here. WORK_DIR takes the ONNX files.
"""
import pathlib
import sys
import time

import torch
import transformers

TOKENS, BATCH, RUN_S = 128, 32, 0.5


class Hidden(torch.nn.Module):
    """What is exported: ids to hidden states, no token masked."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids).last_hidden_state


def by_torch(model, ids):
    def run():
        with torch.inference_mode():
            hidden = model(ids).last_hidden_state.float()
            torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
    return run


def by_onnx(path, ids, threads):
    import numpy
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: ids.numpy()}

    def run():
        mean = session.run(None, feed)[0].mean(axis=1)
        mean / numpy.linalg.norm(mean, axis=1, keepdims=True)
    return run


def export(model, ids, path):
    if not path.exists():
        torch.onnx.export(Hidden(model).eval(), (ids,), str(path), verbose=False)
    return path


def quantize(source, path):
    from onnxruntime import quantization
    if not path.exists():
        quantization.quantize_dynamic(str(source), str(path), per_channel=True,
                                      weight_type=quantization.QuantType.QInt8)
    return path


def prepare(name, directory, threads, work, ids):
    kind = torch.bfloat16 if name == "PyTorch bf16" else torch.float32
    model = transformers.BertModel.from_pretrained(directory, dtype=kind,
                                                   attn_implementation="sdpa").eval()
    if name.startswith("PyTorch"):
        return by_torch(model, ids)
    path = export(model, ids, work / "encoder.onnx")
    if name.endswith("int8"):
        path = quantize(path, work / "encoder-int8.onnx")
    return by_onnx(path, ids, threads)


def rate(run):
    sentences, began = 0, time.perf_counter()
    while time.perf_counter() - began < RUN_S:
        run()
        sentences += BATCH
    return sentences / (time.perf_counter() - began)


def main():
    directory, threads, work = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    answers = sys.stdout
    sys.stdout = sys.stderr
    torch.set_num_threads(threads)
    ids = torch.randint(1000, 30000, (BATCH, TOKENS), generator=torch.Generator().manual_seed(1))
    runs = {}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in runs:
                runs[name] = prepare(name, directory, threads, work, ids)
                runs[name]()
            print(rate(runs[name]), file=answers, flush=True)
        except Exception as e:
            print(f"{name}: {e}", file=sys.stderr)
            print(0, file=answers, flush=True)


if __name__ == "__main__":
    main()
