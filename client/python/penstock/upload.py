"""Bodies that are too long for one frame: uploaded in chunks, then submitted by the upload's name.

Every question may be repeated, over another connection or to a broker that was restarted: the answer
says what is on its disk, and the next chunk begins there.
"""
from __future__ import annotations

import uuid
from typing import TypeVar

from . import wire
from .core import Core, Sleep, Steps, pause_s
from .crc import crc32c
from .errors import Invalid, Refused, Timeout
from .mail import Answer
from .types import Accepted, Progress, Retry, Submission, take

FAULTS = 8  # times that the broker may have lost an upload, or its bytes on the way

V = TypeVar("V")


def submit(core: Core, job: Submission[V], body: bytes, timeout: float | None,
           retry: Retry | None = None, progress: Progress | None = None) -> Steps[Accepted[V]]:
    """Upload and submit; repeated with or without a key, there is one job."""
    end = core.now() + (core.timeout if timeout is None else timeout)
    crc, key, faults = crc32c(body), job.key or uuid.uuid4().hex, 0
    while True:
        name = yield from send(core, body, end, key, crc, progress)
        try:
            answer = yield from core.ask(wire.SUBMIT, {**job.fields(), "upload": name},
                                         (wire.ACCEPTED,), max(0.0, end - core.now()), retry=retry)
            return take(Accepted, answer.header)
        except Refused as refused:
            faults += 1
            if refused.code not in ("unknown_upload", "checksum") or faults > FAULTS:
                if not refused.retry_after_ms:
                    core.farewells.append(wire.frames(wire.UPLOAD_DROP, {"req": 0, "upload": name}))
                raise
            if refused.code == "checksum":  # somebody else's bytes, begun with the same key
                core.farewells.append(wire.frames(wire.UPLOAD_DROP, {"req": 0, "upload": name}))
                key = uuid.uuid4().hex


def send(core: Core, body: bytes, end: float, key: str, crc: int | None = None,
         progress: Progress | None = None) -> Steps[str]:
    """The name of an upload that is whole. The key finds it again where another call was broken off."""
    if len(body) > wire.BODY_BYTES:
        raise Invalid(f"the body has {len(body)} bytes, at most {wire.BODY_BYTES} are possible; "
                      "split the input into several jobs")
    crc = crc32c(body) if crc is None else crc
    name, have, step, faults = "", 0, 0, 0
    while not name or have < len(body):
        try:
            if name:
                chunk = body[have:have + step]
                fields = {"upload": name, "offset": have, "crc": crc32c(chunk)}
                answer = yield from _ask(core, wire.UPLOAD_CHUNK, fields, end, chunk)
            else:
                fields = {"bytes": len(body), "crc": crc, "key": key}
                answer = yield from _ask(core, wire.UPLOAD_BEGIN, fields, end)
        except Refused as refused:
            pause = pause_s(refused)
            if refused.code in ("unknown_upload", "checksum") and faults < FAULTS:
                faults += 1
                name = "" if refused.code == "unknown_upload" else name
            elif name and pause and core.now() + pause < end:
                yield Sleep(pause)  # full, stopping, or mending its disk: what is there stays
            else:
                raise
            continue
        name, have = str(answer.header["upload"]), int(answer.header["have"])
        step = int(answer.header["chunk_bytes"])
        if progress:
            progress(have, len(body))
    return name


def _ask(core: Core, code: int, fields: dict[str, object], end: float,
         payload: bytes | None = None) -> Steps[Answer]:
    left = end - core.now()
    if left <= 0:
        raise Timeout(f"the upload to {core.endpoint} was not over in time; with a key another call "
                      "goes on where it ended")
    return (yield from core.ask(code, fields, (wire.UPLOAD_STATE,), left, payload=payload))
