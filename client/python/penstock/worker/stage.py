"""What a stage sees: its job, and how it says that something went wrong."""
from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import wire
from ..errors import Invalid


class StageError(Exception):
    """A stage cannot do its job. `transient`: it may succeed when tried again, so it will be."""

    def __init__(self, reason: str, *, transient: bool = False):
        super().__init__(reason)
        self.transient = transient


class Cancelled(Exception):
    """Raised by StageJob.check when nobody wants the result any more; let it pass."""


@dataclass(frozen=True)
class Planned:
    """A stage of the span that was leased."""

    name: str
    run: str
    model: str = ""
    timeout_ms: int = 0
    batch_max: int = 1


@dataclass
class Lease:
    """A job that the broker leased to this worker."""

    job: str
    attempt: int
    first: int           # index in the pipeline of the first stage of the plan
    kind: str
    seed: int
    left_ms: int
    alone: bool
    plan: tuple[Planned, ...]
    body: bytes
    input: bytes | None
    arrived: float       # monotonic seconds

    @property
    def key(self) -> tuple[str, int]:
        return self.job, self.attempt

    @property
    def size(self) -> int:
        return len(self.body) + len(self.input or b"")

    def pairs_with(self, other: Lease) -> bool:
        """Whether both can be one batch."""
        return not self.alone and not other.alone and self.plan == other.plan


Notify = Callable[[str, bytes], None]  # type of the event, its data


class StageJob:
    """One job in one stage. `input` is what the stage before made, None in the first one."""

    def __init__(self, lease: Lease, offset: int, data: Any, notify: Notify,
                 cancelled: Callable[[], bool]):
        planned = lease.plan[offset]
        self.id, self.attempt, self.kind, self.seed = lease.job, lease.attempt, lease.kind, lease.seed
        self.stage, self.name, self.run = lease.first + offset, planned.name, planned.run
        self.model = planned.model
        self.body: dict[str, Any] = wire.unpack(lease.body)
        self.input: Any = data
        self._notify, self._cancelled = notify, cancelled

    @property
    def cancelled(self) -> bool:
        """Whether the result is not wanted any more. Look at it every 100 ms or so of work."""
        return self._cancelled()

    def check(self) -> None:
        """Raises Cancelled when the job is."""
        if self.cancelled:
            raise Cancelled

    def progress(self, done: float, text: str = "", total: float | None = None) -> None:
        """Tells whoever follows the job how far it is: a fraction of 1, or so many of a total."""
        if total is None:
            done, total = round(done * 1000), 1000
        self.notify("progress", {"done": done, "total": total, "text": text})

    def token(self, text: str, tokens: int) -> None:
        """Streams a piece of a text; `tokens` counts those written so far."""
        self.notify("token", {"text": text, "tokens": tokens})

    def notice(self, text: str) -> None:
        """Tells whoever follows the job something."""
        self.notify("notice", {"text": text})

    def notify(self, type: str, data: Mapping[str, object]) -> None:
        """Streams an event; best effort: one that is too large or comes too often is dropped."""
        packed = wire.pack(data)
        if len(packed) <= wire.HEADER_BYTES - 1024 and not self.cancelled:
            self._notify(type, packed)


@dataclass(frozen=True)
class Stage:
    """A stage program of a worker."""

    run: str
    call: Callable[[Any], Any]
    numerics_id: str
    batch: int
    transient: tuple[type[BaseException], ...]


def classify(stage: Stage, error: BaseException) -> tuple[str, str]:
    """The wire's error class of an exception, and the reason to keep with the job."""
    if isinstance(error, Cancelled):
        return "cancelled", "it was cancelled"
    if isinstance(error, StageError):
        return ("transient" if error.transient else "permanent"), reason_of(str(error), stage)
    again = isinstance(error, (*stage.transient, MemoryError, ConnectionError, TimeoutError))
    place = ""
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})"
    text = f"stage {stage.run}: {type(error).__name__}: {error}{place}"
    return ("transient" if again else "permanent"), reason_of(text, stage)


def reason_of(text: str, stage: Stage) -> str:
    """A reason of the length that the wire takes."""
    clean = text.encode("utf-8", "replace")[:wire.REASON_BYTES].decode("utf-8", "ignore").strip()
    return clean or f"stage {stage.run} failed and gave no reason"


def pack_output(output: object, stage: Stage) -> bytes:
    """A stage's output as a document; raises StageError for what cannot be one."""
    if not isinstance(output, Mapping):
        raise StageError(f"stage {stage.run} returned {type(output).__name__}; it has to return a dict")
    try:
        packed = wire.pack(output)
    except Invalid as error:
        raise StageError(f"stage {stage.run} returned {error}") from error
    if len(packed) > wire.OUTPUT_BYTES:
        raise StageError(f"stage {stage.run} made {len(packed)} bytes; at most {wire.OUTPUT_BYTES} "
                         "can be kept")
    return packed


def call(stage: Stage, jobs: Sequence[StageJob]) -> list[object]:
    """What a stage made of each job: an output, or the exception that it raised or returned."""
    if stage.batch == 1:
        return [_call_one(stage, job) for job in jobs]
    try:
        outputs = list(stage.call(list(jobs)))
    except BaseException as error:
        _pass_on(error)
        return [error] * len(jobs)
    if len(outputs) != len(jobs):
        wrong = StageError(f"stage {stage.run} returned {len(outputs)} outputs for {len(jobs)} jobs")
        return [wrong] * len(jobs)
    return outputs


def _call_one(stage: Stage, job: StageJob) -> object:
    try:
        made: object = stage.call(job)
        return made
    except BaseException as error:
        _pass_on(error)
        return error


def _pass_on(error: BaseException) -> None:
    if isinstance(error, GeneratorExit):
        raise error
