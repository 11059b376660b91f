"""Frames and message codes of protocol 1 (schemas/README.md)."""
from __future__ import annotations

import msgpack

from .errors import Error, Invalid

MAJOR = 1
FRAME_BYTES = 1024 * 1024

SUBMIT, WAIT, RESULT_GET, SHOW, CANCEL, EVENTS, EVENTS_STOP, LIST, WORKERS, PING, STATUS = range(1, 12)
ACCEPTED, REFUSED, RESULT, STATE, JOB, EVENT, JOBS, WORKER_LIST, PONG, STATS = range(0x41, 0x4B)


def pack(value) -> bytes:
    try:
        return msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"not something that msgpack can carry: {error}") from error


def frames(code: int, header: dict, payload: bytes | None = None) -> list[bytes]:
    """The frames of a message; fields that are None are left out."""
    head = pack({key: value for key, value in header.items() if value is not None})
    if payload is not None and len(payload) > FRAME_BYTES:
        raise Invalid(f"the body has {len(payload)} bytes, at most {FRAME_BYTES} are possible; "
                      "split the input into several jobs")
    return [bytes((0x50, 0x53, MAJOR, code)), head] + ([] if payload is None else [payload])


def parse(parts: list[bytes]) -> tuple[int, dict, list[bytes]]:
    """Code, header and payload of a message; raises Error for one of another major version."""
    if len(parts) < 2 or len(parts[0]) != 4 or parts[0][:2] != b"PS":
        raise Error("what answers is not a Penstock broker")
    if parts[0][2] != MAJOR:
        raise Error(f"the broker speaks protocol {parts[0][2]}, this client {MAJOR}; "
                    "use a client of the broker's version")
    return parts[0][3], msgpack.unpackb(parts[1], strict_map_key=True), parts[2:]


def document(payload: list[bytes]):
    """The document whose parts the payload frames are; None without any."""
    return msgpack.unpackb(b"".join(payload)) if payload else None
