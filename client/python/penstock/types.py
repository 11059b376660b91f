"""What calls return."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TERMINAL = ("done", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Accepted:
    """A job that is on disk."""

    job: str
    state: str
    seed: int
    existing: bool = False  # the idempotency key was known: this is the earlier job

    def __str__(self) -> str:
        return self.job


@dataclass(frozen=True)
class Result:
    """How a job ended, or where it stands when it has not."""

    job: str
    state: str
    kind: str = ""
    value: dict | None = None  # the result of a job that is done
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


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job."""

    job: str
    seq: int
    type: str              # state, progress, token, notice
    stage: int = 0
    attempt: int = 0       # when it changes, drop what the earlier one streamed
    last: bool = False
    data: Any = None


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


@dataclass(frozen=True)
class Pong:
    """The broker is there."""

    version: str
    epoch: int             # counts the broker's starts on its store
    accepting: bool = True


def take(cls, mapping: dict):
    """Make cls from those keys of a mapping that it has; newer keys are ignored."""
    return cls(**{key: mapping[key] for key in cls.__dataclass_fields__ if key in mapping})
