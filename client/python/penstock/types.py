"""What calls take and return."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .errors import Invalid, not_done

TERMINAL = ("done", "failed", "cancelled", "expired")

V = TypeVar("V")
D = TypeVar("D")


@dataclass(frozen=True)
class Submission(Generic[V]):
    """A job to submit. penstock.embed, generate, contract and inspect make typed ones.

    Times are seconds. With a `key` the same submission returns the same job, however often it is
    repeated. `delay`: not before so long from now; `ttl`: expires when not done after so long.
    """

    kind: str
    body: Mapping[str, Any]
    pipeline: str | None = None  # default: the one named like the kind
    key: str | None = None
    priority: int | None = None  # 0 is served first, 4 is usual, 9 last
    delay: float = 0
    ttl: float = 0
    seed: int | None = None
    source: str | None = None  # where it comes from, such as a camera: its policy holds

    def having(self, **options: Any) -> Submission[V]:
        """The same with other options; those that are None stay as they are."""
        return dataclasses.replace(self, **{k: v for k, v in options.items() if v is not None})

    def fields(self) -> dict[str, object]:
        """The header of SUBMIT."""
        return {"kind": self.kind, "pipeline": self.pipeline, "key": self.key,
                "priority": self.priority, "delay_ms": round(self.delay * 1000) or None,
                "ttl_ms": round(self.ttl * 1000) or None,
                "has_seed": True if self.seed is not None else None, "seed": self.seed, "source": self.source}


@dataclass(frozen=True)
class Accepted(Generic[V]):
    """A job that is on disk."""

    job: str
    state: str
    seed: int
    existing: bool = False  # the idempotency key was known: this is the earlier job

    def __str__(self) -> str:
        return self.job


@dataclass(frozen=True)
class Result(Generic[V]):
    """How a job ended, or where it stands when it has not."""

    job: str
    state: str
    kind: str = ""
    value: V | None = None     # the result of a job that is done
    error_class: str = ""      # failed: permanent, transient, worker_died or timeout
    reason: str = ""
    attempt: int = 0
    numerics_id: str = ""
    stage: int = 0             # not terminal: the stage it is in or waits for

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    def unwrap(self) -> V:
        """The value; raises JobFailed, JobCancelled or JobExpired when the job is not done."""
        if not self.done or self.value is None:
            raise not_done(self)
        return self.value

    def __str__(self) -> str:
        return self.job


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job."""

    job: str
    seq: int
    type: str              # state, progress, token, notice
    stage: int = 0
    attempt: int = 0       # when it changes, drop what the earlier one streamed
    last: bool = False
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A job that ended; or, with `lost`, that so many ends at most are kept no longer and were
    missed. Keep the offset: `Client.ended(offset)` goes on behind it."""

    offset: int
    job: str = ""
    state: str = ""          # done, failed, cancelled or expired
    kind: str = ""
    pipeline: str = ""
    key: str = ""
    error_class: str = ""
    reason: str = ""
    accepted_ms: int = 0
    finished_ms: int = 0
    value: Any = None        # the result of one that is done, when results were asked for
    lost: int = 0


@dataclass(frozen=True)
class TextPiece:
    """A piece of a text that is being generated.

    When `restarted` is true, all that came before is void: a worker was lost and another began
    anew, and the text starts again with this piece. What is left after the last piece is exactly
    the result's text; that piece is `last` and has the `result`.
    """

    text: str
    tokens: int = 0        # written so far in this attempt
    attempt: int = 0
    restarted: bool = False
    last: bool = False
    result: Result[Any] | None = None


@dataclass(frozen=True)
class Job:
    """A row of the list of jobs; times are milliseconds since 1970, 0 when it has not happened."""

    job: str
    kind: str
    state: str
    stage: int = 0
    accepted_ms: int = 0
    finished_ms: int = 0
    reason: str = ""

    def __str__(self) -> str:
        return self.job


@dataclass(frozen=True)
class Pong:
    """The broker is there."""

    version: str
    epoch: int             # counts the broker's starts on its store
    accepting: bool = True


@dataclass(frozen=True)
class Retry:
    """Try again what was refused with a hint when it is worth trying: a full queue, a drain.

    At most `tries` times, and not once the pauses together would pass `wait_max` seconds. Without
    such a policy a refusal is raised at once.
    """

    tries: int = 5
    wait_max: float = 60.0

    def __post_init__(self) -> None:
        if self.tries < 0 or self.wait_max < 0:
            raise Invalid("a retry policy has no negative numbers")


JobLike = str | Accepted[Any] | Result[Any] | Job
Progress = Callable[[int, int], None]  # bytes of an upload that are on disk, and of the whole


def take(cls: type[D], mapping: Mapping[str, Any]) -> D:
    """Make the dataclass from those keys of a mapping that it has; newer keys are ignored."""
    names: Mapping[str, Any] = getattr(cls, "__dataclass_fields__")
    return cls(**{name: mapping[name] for name in names if mapping.get(name) is not None})
