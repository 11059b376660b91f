#!/usr/bin/python3
"""Submit a job of each kind and print what comes back; written from schemas/README.md alone."""
import os
import sys

import msgpack
import zmq

run = os.environ.get("XDG_RUNTIME_DIR")
default = f"ipc://{run}/penstock/clients" if run else f"ipc:///tmp/penstock-{os.getuid()}/clients"
endpoint = os.environ.get("PENSTOCK_ENDPOINT", default)
socket = zmq.Context().socket(zmq.DEALER)
socket.set(zmq.LINGER, 0)
socket.connect(endpoint)
SUBMIT, WAIT, ACCEPTED, RESULT = 0x01, 0x02, 0x41, 0x43


def ask(code, header, *payload, wanted):
    socket.send_multipart([bytes([0x50, 0x53, 1, code]), msgpack.packb(header), *payload])
    if not socket.poll(120_000):
        sys.exit(f"no answer from {endpoint}")
    tag, head, *parts = socket.recv_multipart()
    head = msgpack.unpackb(head)
    if tag[3] != wanted:
        sys.exit(f"refused: {head}")
    return head, msgpack.unpackb(b"".join(parts)) if parts else None


for kind, body in {
        "text.embed": {"texts": ["The pump is loud.", "泵的声音很大。"]},
        "text.generate": {"prompt": "Once upon a time", "max_tokens": 24},
        "contract.analyze": {"text": "1. Term. This Agreement begins on 1 March 2026 and ends after two "
                                     "years.\n\n2. Fees. Buyer shall pay USD 12,500 within 30 days."}}.items():
    job, _ = ask(SUBMIT, {"req": 1, "kind": kind, "seed": 7, "has_seed": True}, msgpack.packb(body),
                 wanted=ACCEPTED)
    head, result = ask(WAIT, {"req": 2, "job": job["job"], "timeout_ms": 100_000}, wanted=RESULT)
    print(kind, job["job"], head["state"], head.get("reason", ""), str(result)[:300], sep="  ")
