"""Outcomes on their way to the broker: each is sent again until it is acknowledged.

An outcome outlives the connection and the broker: it is kept here until STAGE_ACK says that it is
recorded, or stale. Order is kept, so that a span's stages arrive one after the other.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import wire


@dataclass
class Outcome:
    job: str
    attempt: int
    stage: int
    frames: list[bytes]
    sent: float = float("-inf")


class Outbox:
    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []

    def __len__(self) -> int:
        return len(self._outcomes)

    def add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)

    def send_again(self) -> None:
        """The broker is another, or knows us anew: it may not have heard any of them."""
        for outcome in self._outcomes:
            outcome.sent = float("-inf")

    def flush(self, now: float, again_s: float, send: Callable[[list[bytes]], bool],
              many: bool) -> None:
        """Sends what is due, several in one where the broker reads that; what does not leave keeps
        those behind it waiting."""
        due = [o for o in self._outcomes if now - o.sent >= again_s]
        frames = [o.frames for o in due]
        for count in wire.gather(frames) if many else [1] * len(due):
            if not send(wire.many(frames[:count]) if count > 1 else frames[0]):
                return
            for outcome in due[:count]:
                outcome.sent = now
            del due[:count], frames[:count]

    def acknowledged(self, job: str, attempt: int, stage: int, stale: bool) -> None:
        """Stale: another attempt owns the job, so all of this one are forgotten."""
        self._outcomes = [o for o in self._outcomes if (o.job, o.attempt) != (job, attempt)
                          or not (stale or o.stage == stage)]
