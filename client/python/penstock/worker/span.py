"""Runs a batch of leases through the stages of their span, and tells what becomes of each.

The same in a thread of the worker and in a child process; what is told is plain data:
    Began(key, offset)           a stage of it runs
    Made(key, offset, output..)  a stage is done; the last one of the plan ends the lease
    Failed(key, offset, ...)     ends it
    Dropped(key, offset)         ends it: it was cancelled, and there is nothing to report
    Note(key, offset, type, data)
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import wire
from .stage import Lease, Stage, StageError, StageJob, call, classify, pack_output

Key = tuple[str, int]


@dataclass(frozen=True)
class Began:
    key: Key
    offset: int


@dataclass(frozen=True)
class Made:
    key: Key
    offset: int
    output: bytes
    run_us: int
    wait_us: int
    numerics_id: str


@dataclass(frozen=True)
class Failed:
    key: Key
    offset: int
    error_class: str
    reason: str


@dataclass(frozen=True)
class Dropped:
    key: Key
    offset: int


@dataclass(frozen=True)
class Note:
    key: Key
    offset: int
    type: str
    data: bytes


Told = Began | Made | Failed | Dropped | Note
Tell = Callable[[Told], None]


@dataclass
class _Rider:
    """One lease on its way through the stages."""

    lease: Lease
    data: bytes | None
    since: float


def run_span(stages: Mapping[str, Stage], leases: Sequence[Lease], tell: Tell,
             cancelled: Callable[[Key], bool]) -> None:
    """All leases have the same plan."""
    riders = [_Rider(lease, lease.input, lease.arrived) for lease in leases]
    for offset, planned in enumerate(leases[0].plan):
        stage = stages[planned.run]
        most = min(stage.batch, planned.batch_max)
        left: list[_Rider] = []
        for at in range(0, len(riders), most):
            left += _run_chunk(stage, riders[at:at + most], offset, tell, cancelled)
        riders = left


def _run_chunk(stage: Stage, riders: list[_Rider], offset: int, tell: Tell,
               cancelled: Callable[[Key], bool]) -> list[_Rider]:
    """Returns those whose stage is done, with its output as the next one's input."""
    begun: list[tuple[_Rider, StageJob]] = []
    for rider in riders:
        key = rider.lease.key
        if cancelled(key):
            tell(Dropped(key, offset))
            continue
        tell(Began(key, offset))
        try:
            begun.append((rider, _job(rider, offset, tell, cancelled)))
        except Exception as error:
            tell(Failed(key, offset, *classify(stage, error)))
    start = time.monotonic()
    made = call(stage, [job for _, job in begun])
    end = time.monotonic()
    left = []
    for (rider, _), output in zip(begun, made):
        told = _outcome(stage, rider, offset, output, (start, end), cancelled)
        tell(told)
        if isinstance(told, Made):
            left.append(_Rider(rider.lease, told.output, end))
    return left


def _job(rider: _Rider, offset: int, tell: Tell, cancelled: Callable[[Key], bool]) -> StageJob:
    key = rider.lease.key
    return StageJob(rider.lease, offset, None if rider.data is None else wire.unpack(rider.data),
                    lambda type, data: tell(Note(key, offset, type, data)), lambda: cancelled(key))


def _outcome(stage: Stage, rider: _Rider, offset: int, output: object, ran: tuple[float, float],
             cancelled: Callable[[Key], bool]) -> Told:
    key = rider.lease.key
    try:
        if isinstance(output, BaseException):
            raise output
        packed = pack_output(output, stage)
    except BaseException as error:
        error_class, reason = classify(stage, error)
        if error_class == "cancelled" and cancelled(key):
            return Dropped(key, offset)
        if isinstance(error, SystemExit):
            error_class, reason = classify(stage, StageError(f"stage {stage.run} called exit()"))
        return Failed(key, offset, error_class, reason)
    start, end = ran
    return Made(key, offset, packed, round((end - start) * 1e6),
                max(0, round((start - rider.since) * 1e6)), stage.numerics_id)
