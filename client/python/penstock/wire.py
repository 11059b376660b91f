"""Frames and message codes of protocol 1 (schemas/README.md)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from .errors import Error, Invalid

MAJOR = 1
FRAME_BYTES = 1024 * 1024
PARTS = 16                        # payload frames of an output or a result
OUTPUT_BYTES = PARTS * FRAME_BYTES
BODY_BYTES = PARTS * FRAME_BYTES   # beyond FRAME_BYTES it is uploaded (upload.py)
HEADER_BYTES = 64 * 1024
REASON_BYTES = 512
NAME_BYTES = 64

(SUBMIT, WAIT, RESULT_GET, SHOW, CANCEL, EVENTS, EVENTS_STOP,
 LIST, WORKERS, PING, STATUS) = range(0x01, 0x0C)
DRAIN = 0x1A
UPLOAD_BEGIN, UPLOAD_CHUNK, UPLOAD_GET, UPLOAD_DROP = range(0x0C, 0x10)
(ACCEPTED, REFUSED, RESULT, STATE, JOB, EVENT,
 JOBS, WORKER_LIST, PONG, STATS, UPLOAD_STATE) = range(0x41, 0x4C)
MANY = 0x70                       # several messages in one
MANY_MESSAGES, MANY_BYTES, MANY_ITEM_BYTES = 256, 64 * 1024, 16 * 1024
QUEUES, QUEUE_LIST = 0x20, 0x60
SUBSCRIBE, ENDED, STREAM = 0x21, 0x61, 0x62
REGISTER, HEARTBEAT, PROGRESS, STAGE_DONE, STAGE_FAILED, RETURN, GOODBYE = range(0x81, 0x88)
REGISTERED, REREGISTER, HEARTBEAT_ACK, LEASE, STAGE_ACK, CANCEL_LEASE, QUIET = range(0xC1, 0xC8)


def pack(value: object) -> bytes:
    """A msgpack document."""
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"not something that msgpack can carry: {error}") from error
    return packed


def unpack(document: bytes) -> Any:
    """What a msgpack document holds."""
    try:
        return msgpack.unpackb(document)
    except (ValueError, msgpack.UnpackException) as error:
        raise Error(f"not one msgpack document: {error}") from error


def frames(code: int, header: Mapping[str, object], *payload: bytes) -> list[bytes]:
    """The frames of a message; fields that are None are left out."""
    head = pack({key: value for key, value in header.items() if value is not None})
    return [bytes((0x50, 0x53, MAJOR, code)), head, *payload]


def many(messages: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The frames of one MANY with these messages in it."""
    items = [[frames_[0][3], *frames_[1:]] for frames_ in messages]
    return frames(MANY, {"n": len(items)}, pack(items))


def gather(messages: Sequence[Sequence[bytes]]) -> list[int]:
    """How many of the messages, in their order, go into each one that is sent; long ones go alone."""
    counts: list[int] = []
    room = used = 0
    for message in messages:
        short = all(len(frame) <= MANY_ITEM_BYTES for frame in message) and len(message) <= 3
        if short and room and used <= MANY_BYTES:
            counts[-1] += 1
        else:
            counts.append(1)
            used, room = 0, MANY_MESSAGES if short else 1
        room -= 1
        used += sum(map(len, message))
    return counts


def messages_of(header: Mapping[str, Any], payload: Sequence[bytes]) -> list[list[bytes]]:
    """The messages in a MANY, each as frames."""
    items = unpack(b"".join(payload))
    if not isinstance(items, list) or len(items) != header.get("n"):
        raise Error("the broker sent a MANY that cannot be read")
    return [[bytes((0x50, 0x53, MAJOR, int(item[0]))), *item[1:]] for item in items]


def body(document: object) -> bytes:
    """A job's body."""
    packed = pack(document)
    if len(packed) > BODY_BYTES:
        raise Invalid(f"the body has {len(packed)} bytes, at most {BODY_BYTES} are possible; "
                      "split the input into several jobs")
    return packed


def cut(document: bytes) -> list[bytes]:
    """A document in parts of at most FRAME_BYTES."""
    return [document[at:at + FRAME_BYTES] for at in range(0, len(document), FRAME_BYTES)]


def parse(parts: Sequence[bytes]) -> tuple[int, dict[str, Any], list[bytes]]:
    """Code, header and payload of a message; raises Error for one of another major version."""
    if len(parts) < 2 or len(parts[0]) != 4 or parts[0][:2] != b"PS":
        raise Error("what answers is not a Penstock broker")
    if parts[0][2] != MAJOR:
        raise Error(f"the broker speaks protocol {parts[0][2]}, this client {MAJOR}; "
                    "use a client of the broker's version")
    header = unpack(parts[1])
    if not isinstance(header, dict):
        raise Error("the broker sent a header that is not a map")
    return parts[0][3], header, list(parts[2:])


def document(payload: Sequence[bytes]) -> Any:
    """The document whose parts the payload frames are; None without any."""
    return unpack(b"".join(payload)) if payload else None
