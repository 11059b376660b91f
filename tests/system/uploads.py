"""Uploads spoken by hand: BEGIN, CHUNK, SUBMIT."""
import msgpack

from penstock.crc import crc32c
from real_broker import ACCEPTED, SUBMIT

UPLOAD_BEGIN, UPLOAD_CHUNK, UPLOAD_GET, UPLOAD_DROP, UPLOAD_STATE = 0x0C, 0x0D, 0x0E, 0x0F, 0x4B
MIB = 1 << 20


def large(size, fill="x"):
    """A body of text.embed with exactly so many bytes."""
    texts, left = [], size - 32
    while left > 0:
        n = min(left, 700000)
        texts.append(fill * n)
        left -= n
    while (over := len(msgpack.packb({"texts": texts})) - size) != 0:
        texts[-1] = fill * (len(texts[-1]) - over)
    return msgpack.packb({"texts": texts})


class Upload:
    """One upload of one client; the checksums of its chunks are computed once."""

    def __init__(self, client, data, key=None, name=None, crc=None):
        self.client, self.data, self.name, self.key = client, data, name, key
        self.crc = crc32c(data) if crc is None else crc
        self.have = self.chunk_bytes = None

    def state(self, code, header, *payload, **more):
        got, h, _ = self.client.ask(code, header, *payload, **more)
        assert got == UPLOAD_STATE, h
        self.name, self.have, self.chunk_bytes = h["upload"], h["have"], h["chunk_bytes"]
        return h

    def begin(self):
        header = {"bytes": len(self.data), "crc": self.crc}
        self.state(UPLOAD_BEGIN, dict(header, key=self.key) if self.key else header)
        return self

    def get(self):
        return self.state(UPLOAD_GET, {"upload": self.name})

    def chunk(self, offset):
        data = self.data[offset:offset + self.chunk_bytes]
        return {"upload": self.name, "offset": offset, "crc": crc32c(data)}, data

    def step(self):
        return self.state(UPLOAD_CHUNK, *self.chunk(self.have))

    def send(self, until=None):
        while self.have < (len(self.data) if until is None else until):
            self.step()
        return self

    def submit(self, **fields):
        header = {"kind": "text.embed", "pipeline": "echo", "upload": self.name, **fields}
        code, h, _ = self.client.ask(SUBMIT, header)
        assert code == ACCEPTED, h
        return h
