"""The protocol without its input and output: what to send, and what the answers mean.

A verb is a generator, a `Steps[T]`: it yields what is to be done next (Send, Receive, Reconnect,
Sleep), is sent what came of it, and returns the verb's result. Client and AsyncClient are two thin
loops that carry those four operations out; everything else, repeats, timeouts, reconnecting, retries
and what a call returns, is here and is the same for both.

    def ping(self, timeout=None):                                     # a verb of this class
        answer = yield from self.ask(wire.PING, {}, (wire.PONG,), timeout)
        return take(Pong, answer.header)

An exchange of several messages, such as an upload in chunks, is a verb of that form with several
`yield from self.ask(...)` in it, and goes into a module of its own as a function of the core:
`def upload(core: Core, data: bytes, ...) -> Steps[str]`. Both clients then run it with one line,
`return self._run(upload(self._core, data))`, and `return await self._run(...)`. A stream is an
object with `next() -> Steps[T | None]` and `close()`: see flows.py.

Times are seconds of a monotonic clock that is passed in. A verb that is abandoned (a cancelled
await) is closed by its transport; what the broker should hear then is in `farewells`.
"""
from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from . import wire
from .errors import Error, Refused, Timeout, Unreachable
from .mail import Answer, Box, Mail
from .types import Accepted, JobLike, Pong, Progress, Result, Retry, Submission, take

ANSWER_S = 2.0       # a living broker answers sooner; then the question is repeated
WAIT_SLICE_S = 10.0  # one WAIT; a broker that was restarted has forgotten it
AWAY_S = 30.0        # waits and streams outlive a broker that is away for less


@dataclass(frozen=True)
class Send:
    """Send these frames as soon as there is a connection; answered with whether they left in time."""

    frames: list[bytes]
    until: float


@dataclass(frozen=True)
class Receive:
    """Wait until the box is ready; answered with box.take(), or with None when the time is over."""

    box: Box
    until: float


@dataclass(frozen=True)
class Reconnect:
    """Make a new connection, unless it is another than this generation already."""

    generation: int


@dataclass(frozen=True)
class Sleep:
    """Do nothing for so long."""

    seconds: float


Op = Send | Receive | Reconnect | Sleep
T = TypeVar("T")
V = TypeVar("V")
Steps = Generator[Op, Any, T]


class Core:
    """What one client knows: its questions, and how it speaks with the broker."""

    def __init__(self, endpoint: str, timeout: float, retry: Retry | None = None,
                 now: Callable[[], float] = time.monotonic):
        self.endpoint = endpoint
        self.timeout = timeout
        self.retry = retry
        self.now = now
        self.mail = Mail(random.getrandbits(40) << 20)
        self.generation = 0                          # counts connections
        self.heard_at = float("-inf")
        self.farewells: deque[list[bytes]] = deque()  # best effort: sent when a verb was left

    # ---- for the transports ----

    def deliver(self, parts: list[bytes]) -> None:
        """A message has come."""
        self.heard_at = self.now()
        self.mail.deliver(parts)

    def connected_anew(self) -> None:
        """The connection is another one than before: the transport replaced it, or it broke."""
        self.generation += 1
        self.mail.lose()

    # ---- asking ----

    def unreachable(self) -> Unreachable:
        return Unreachable(f"no broker at {self.endpoint}; start one with `penstock up`, or name "
                           "the right one with PENSTOCK_ENDPOINT")

    def stop(self, req: int) -> None:
        """Tell the broker, when there is an occasion, that nobody waits for this any more."""
        self.farewells.append(wire.frames(wire.EVENTS_STOP, {"req": req}))

    def ask(self, code: int, fields: Mapping[str, object], want: tuple[int, ...],
            timeout: float | None = None, *, payload: bytes | None = None, once: bool = False,
            patience: float = ANSWER_S, retry: Retry | None = None) -> Steps[Answer]:
        """Ask, and return the answer. What may be asked again (not `once`) is, after `patience`."""
        timeout = self.timeout if timeout is None else timeout
        policy = retry or self.retry
        tries, slept = 0, 0.0
        while True:
            try:
                return (yield from self._ask(code, fields, want, timeout, payload, once, patience))
            except Refused as refused:
                pause = pause_s(refused)
                tries += 1
                slept += pause
                if not policy or not pause or tries > policy.tries or slept > policy.wait_max:
                    raise
                yield Sleep(pause)

    def _ask(self, code: int, fields: Mapping[str, object], want: tuple[int, ...], timeout: float,
             payload: bytes | None, once: bool, patience: float) -> Steps[Answer]:
        end = self.now() + timeout
        box = Box()
        req = self.mail.open(box)
        sent = answered = False
        message = wire.frames(code, {"req": req, **fields}, *([] if payload is None else [payload]))
        try:
            while True:
                asked = self.now()
                if not (yield Send(message, end)):
                    if not sent:
                        raise self.unreachable()
                    break
                sent, box.lost, generation = True, False, self.generation
                answer = yield Receive(box, end if once else min(end, self.now() + patience))
                if answer is not None:
                    answered = True
                    return expect(answer, want)
                if once or self.now() >= end:
                    break
                if self.heard_at < asked:
                    yield Reconnect(generation)
            hint = "; the job may have been accepted, submit with a key to be able to repeat"
            how = (f"did not answer in {timeout:g} s" if self.now() >= end else
                   "went away before it answered")
            raise Timeout(f"the broker at {self.endpoint} {how}{hint if once else ''}")
        finally:
            self.mail.close(box)
            if code == wire.WAIT and sent and not answered:
                self.stop(req)

    # ---- verbs ----

    def submit(self, job: Submission[V], timeout: float | None = None, retry: Retry | None = None,
               progress: Progress | None = None) -> Steps[Accepted[V]]:
        from . import upload  # which is written in terms of this module

        body = wire.body(job.body)
        if len(body) > wire.FRAME_BYTES:
            return (yield from upload.submit(self, job, body, timeout, retry, progress))
        answer = yield from self.ask(wire.SUBMIT, job.fields(), (wire.ACCEPTED,), timeout,
                                     payload=body, once=job.key is None, retry=retry)
        return take(Accepted, answer.header)

    def wait(self, job: JobLike, timeout: float | None) -> Steps[Result[Any]]:
        end = None if timeout is None else self.now() + timeout
        while True:
            left = WAIT_SLICE_S + AWAY_S if end is None else max(0.0, end - self.now())
            part = min(left, WAIT_SLICE_S)
            fields = {"job": job_id(job), "timeout_ms": round(part * 1000)}
            answer = yield from self.ask(wire.WAIT, fields, (wire.RESULT, wire.STATE),
                                         left + ANSWER_S, patience=part + ANSWER_S)
            result = outcome(answer)
            if result.terminal:
                return result
            if end is not None and self.now() >= end:
                raise Timeout(f"job {result.job} is still {result.state} after {timeout:g} s")

    def run(self, job: Submission[V], timeout: float | None, retry: Retry | None) -> Steps[V]:
        accepted = yield from self.submit(job, None, retry)
        result: Result[V] = yield from self.wait(accepted, timeout)
        return result.unwrap()

    def result(self, job: JobLike, timeout: float | None = None) -> Steps[Result[Any]]:
        answer = yield from self.ask(wire.RESULT_GET, {"job": job_id(job)},
                                     (wire.RESULT, wire.STATE), timeout)
        return outcome(answer)

    def cancel(self, job: JobLike, reason: str | None, timeout: float | None) -> Steps[str]:
        answer = yield from self.ask(wire.CANCEL, {"job": job_id(job), "reason": reason},
                                     (wire.STATE,), timeout)
        return str(answer.header["state"])

    def show(self, job: JobLike, timeout: float | None) -> Steps[dict[str, Any]]:
        answer = yield from self.ask(wire.SHOW, {"job": job_id(job)}, (wire.JOB,), timeout)
        return dict(answer.header["job"])

    def workers(self, timeout: float | None) -> Steps[list[dict[str, Any]]]:
        answer = yield from self.ask(wire.WORKERS, {}, (wire.WORKER_LIST,), timeout)
        return list(answer.header["workers"])

    def queues(self, timeout: float | None) -> Steps[list[dict[str, Any]]]:
        answer = yield from self.ask(wire.QUEUES, {}, (wire.QUEUE_LIST,), timeout)
        return list(answer.header["queues"])

    def drain(self, worker: str, timeout: float | None) -> Steps[dict[str, Any]]:
        answer = yield from self.ask(wire.DRAIN, {"worker": worker}, (wire.WORKER_LIST,), timeout)
        return dict(answer.header["workers"][0])

    def status(self, timeout: float | None) -> Steps[dict[str, Any]]:
        answer = yield from self.ask(wire.STATUS, {}, (wire.STATS,), timeout)
        return dict(answer.header["stats"])

    def ping(self, timeout: float | None) -> Steps[Pong]:
        answer = yield from self.ask(wire.PING, {}, (wire.PONG,), timeout)
        return take(Pong, answer.header)


def expect(answer: Answer, want: tuple[int, ...]) -> Answer:
    """The answer, if it is one of those that fit; raises Refused when the broker said no."""
    if answer.code == wire.REFUSED:
        raise Refused(answer.header)
    if answer.code not in want:
        raise Error(f"the broker answers with message 0x{answer.code:02X}")
    return answer


def pause_s(refused: Refused) -> float:
    """How long to wait before trying again, with a little of chance in it; 0: not at all."""
    return refused.retry_after_ms / 1000 * random.uniform(1.0, 1.25)


def outcome(answer: Answer) -> Result[Any]:
    return take(Result, {**answer.header, "value": wire.document(answer.payload)})


def job_id(job: JobLike) -> str:
    return str(job)
