"""Streams and crowds without input and output: several answers, one after the other.

A flow has `next() -> Steps[T | None]`, where None is the end, and `close()`, after which the broker is
told that nobody listens. The clients make iterators of them. A flow keeps its state between the
calls of next(), so that one that was cancelled can be asked for the next item again.
"""
from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from . import upload, wire
from .core import (ANSWER_S, AWAY_S, WAIT_SLICE_S, Core, Receive, Reconnect, Send, Sleep, Steps,
                   expect, job_id, outcome, pause_s)
from .errors import Refused, SomeRefused, Timeout, Unreachable, not_done
from .mail import Answer, Box
from .types import Accepted, Event, Job, JobLike, Result, Retry, Submission, TextPiece, take

QUIET_S = 5.0          # a stream without events for so long is asked for anew
CROWD = 128            # questions under way at a time; a broker takes 256 waits of one client
CROWD_BYTES = 32 << 20
TURN_S = 0.5
PAGE = 100
UPLOAD_S = 60.0

T_co = TypeVar("T_co", covariant=True)
V = TypeVar("V")


class Flow(Protocol[T_co]):
    def next(self) -> Steps[T_co | None]:
        """The next item; None behind the last one."""

    def pause(self) -> None:
        """Nobody listens now; next() begins anew."""

    def close(self) -> None:
        """Nobody will ask for more."""


class EventFlow:
    """The events of one job until its last one."""

    def __init__(self, core: Core, job: JobLike, timeout: float | None):
        self._core, self._job, self._timeout = core, job_id(job), timeout
        self._end = None if timeout is None else core.now() + timeout
        self._box = Box()
        self._req: int | None = None     # the stream that we follow
        self._newer: int | None = None   # one that was asked for because the other fell silent
        self._asked = 0.0
        self._heard = core.now()         # of this stream
        self._state: tuple[int, object] | None = None
        self._fresh = self._over = False
        self._seq: int | None = None     # of a stream that was dropped: on from there

    def next(self) -> Steps[Event | None]:
        while not self._over:
            if self._req is None:
                yield from self._begin()
            # A stream that was just asked for begins at once; one that runs may be quiet.
            patience = ANSWER_S if self._newer is not None else QUIET_S
            answer = yield Receive(self._box, self._until(patience))
            if answer is None:
                yield from self._again()
                continue
            if answer.code == wire.EVENT and answer.header.get("type") == "dropped":
                self.pause()  # we did not read for long: on behind what was sent
                self._seq = answer.header["seq"]
                continue
            event = self._take(answer)
            if event is not None:
                return event
        return None

    def pause(self) -> None:
        for req in list(self._box.reqs):
            self._core.stop(req)
        self._core.mail.close(self._box)
        self._req = self._newer = None
        self._heard = self._core.now()

    def close(self) -> None:
        self.pause()
        self._over = True

    def _until(self, seconds: float) -> float:
        until = self._core.now() + seconds
        return until if self._end is None else min(until, self._end)

    def _begin(self) -> Steps[None]:
        req = self._core.mail.open(self._box)
        if not (yield from self._send(req, self._core.timeout)):
            self._core.mail.close(self._box)
            raise self._core.unreachable()
        self._req = req

    def _send(self, req: int, seconds: float) -> Steps[bool]:
        self._asked = self._core.now()
        self._fresh = True
        fields = {"req": req, "job": self._job, "from": self._seq}
        left: bool = yield Send(wire.frames(wire.EVENTS, fields), self._until(seconds))
        self._seq = None if left else self._seq
        self._box.lost = self._box.lost and not left
        return left

    def _again(self) -> Steps[None]:
        """Silence: the broker may be another process now. Until the new stream begins, the old one
        is heard too, so that nothing is lost where the silence meant nothing."""
        core, now = self._core, self._core.now()
        if self._end is not None and now >= self._end:
            raise Timeout(f"job {self._job} was not over after {self._timeout:g} s")
        if now - self._heard > AWAY_S:
            raise Unreachable(f"the broker at {core.endpoint} has fallen silent")
        if self._newer is not None:
            core.mail.close(self._box, self._newer)
            if core.heard_at < self._asked:
                yield Reconnect(core.generation)
        self._box.lost = False
        self._newer = core.mail.open(self._box)
        yield from self._send(self._newer, ANSWER_S)

    def _take(self, answer: Answer) -> Event | None:
        """The event of an answer; None for a state that is only told again."""
        core = self._core
        event = take(Event, expect(answer, (wire.EVENT,)).header)
        self._heard = core.now()
        if answer.req == self._newer:
            assert self._req is not None
            core.stop(self._req)
            core.mail.close(self._box, self._req)
            self._req, self._newer = self._newer, None
        state = (event.stage, event.data.get("state")) if event.type == "state" else None
        again = self._fresh and state is not None and state == self._state and not event.last
        self._state = state or self._state
        self._fresh = self._fresh and self._newer is not None
        if event.last:
            core.mail.close(self._box)
            self._over = True
        return None if again else event


class TextFlow:
    """The text that a job generates, piece by piece; see TextPiece."""

    def __init__(self, core: Core, job: JobLike | Submission[Any], timeout: float | None):
        self._core, self._timeout = core, timeout
        self._submission = job if isinstance(job, Submission) else None
        self._events = None if isinstance(job, Submission) else EventFlow(core, job, timeout)
        self._job = "" if isinstance(job, Submission) else job_id(job)
        self._attempt = self._tokens = 0
        self._text = ""
        self._over = False

    def next(self) -> Steps[TextPiece | None]:
        if self._over:
            return None
        if self._events is None:
            assert self._submission is not None
            accepted = yield from self._core.submit(self._submission)
            self._job = accepted.job
            self._events = EventFlow(self._core, accepted, self._timeout)
        while (event := (yield from self._events.next())) is not None:
            if event.type == "token":
                return self._piece(event)
        last = yield from self._finish()
        self._over = True
        return last

    def pause(self) -> None:
        if self._events is not None:
            self._events.pause()

    def close(self) -> None:
        self.pause()
        self._over = True

    def _piece(self, event: Event) -> TextPiece:
        text, restarted = str(event.data.get("text", "")), False
        if event.attempt != self._attempt:
            restarted, self._text = bool(self._text), ""
            self._attempt = event.attempt
        self._text += text
        self._tokens = int(event.data.get("tokens", 0))
        return TextPiece(text, self._tokens, self._attempt, restarted)

    def _finish(self) -> Steps[TextPiece]:
        """The last piece makes up for what was lost on the way: the result is what counts."""
        result = yield from self._core.result(self._job)
        if not result.done or result.value is None:
            raise not_done(result)
        whole = str(result.value.get("text", ""))
        tokens = int(result.value.get("completion_tokens", self._tokens))
        if whole.startswith(self._text):
            return TextPiece(whole[len(self._text):], tokens, result.attempt, False, True, result)
        return TextPiece(whole, tokens, result.attempt, True, True, result)


class RowFlow:
    """Rows of the list of jobs, the newest first, page by page."""

    def __init__(self, core: Core, state: str | None, kind: str | None, limit: int | None):
        self._core, self._state, self._kind, self._left = core, state, kind, limit
        self._rows: deque[Job] = deque()
        self._before: str | None = None
        self._more = True

    def next(self) -> Steps[Job | None]:
        while not self._rows and self._more and self._left != 0:
            fields = {"state": self._state, "kind": self._kind, "before": self._before,
                      "limit": PAGE if self._left is None else min(PAGE, self._left)}
            header = (yield from self._core.ask(wire.LIST, fields, (wire.JOBS,))).header
            self._rows.extend(take(Job, row) for row in header["jobs"])
            self._before = header.get("next")
            self._more = bool(self._before)
        if not self._rows or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return self._rows.popleft()

    def pause(self) -> None:
        """Nothing is under way between two pages."""

    def close(self) -> None:
        self._more = False
        self._rows.clear()


@dataclass
class Question:
    """One of a crowd."""

    place: int
    fields: Mapping[str, object]
    payload: bytes = b""
    req: int = 0
    asked: float = 0.0
    generation: int = -1


class Crowd:
    """Many questions of one kind, a window of them under way at a time, answers as they come."""

    def __init__(self, core: Core, code: int, patience: float):
        self._core, self._code, self._patience = core, code, patience
        self._box = Box()
        self._waiting: deque[Question] = deque()
        self._out: dict[int, Question] = {}  # by request number, the one asked longest ago first
        self._bytes = 0

    def add(self, question: Question) -> None:
        self._waiting.append(question)

    def next(self, end: float | None) -> Steps[tuple[Question, Answer] | None]:
        """The next answer and what it answers; None when all are answered."""
        core = self._core
        heard = core.now()
        while self._waiting or self._out:
            if not self._box.messages:
                yield from self._fill(end)
            due = next(iter(self._out.values())).asked + self._patience if self._out else core.now()
            answer = yield Receive(self._box, due if end is None else min(due, end))
            if answer is not None:
                question = self._settle(answer)
                if question is not None:
                    return question, answer
                continue
            if end is not None and core.now() >= end:
                left = len(self._waiting) + len(self._out)
                raise Timeout(f"{left} questions were not answered in time by {core.endpoint}")
            if core.now() - max(heard, core.heard_at) > AWAY_S:
                raise core.unreachable()
            yield from self._again()
        return None

    def pause(self) -> None:
        """What was asked will be asked again."""
        for req in self._out if self._code == wire.WAIT else ():
            self._core.stop(req)
        self._core.mail.close(self._box)
        self._waiting.extendleft(replace(q, req=0) for q in reversed(list(self._out.values())))
        self._out.clear()
        self._box.messages.clear()
        self._bytes = 0

    def close(self) -> None:
        self.pause()
        self._waiting.clear()

    def _settle(self, answer: Answer) -> Question | None:
        """What is answered; None for the second answer to what was asked twice."""
        self._core.mail.close(self._box, answer.req)
        question = self._out.pop(answer.req, None)
        if question is not None:
            self._bytes -= len(question.payload)
            return question
        question = next((q for q in self._waiting if q.req == answer.req), None)
        if question is not None:
            self._waiting.remove(question)
        return question

    def _fill(self, end: float | None) -> Steps[None]:
        core = self._core
        while self._waiting and len(self._out) < CROWD and self._bytes < CROWD_BYTES:
            question = self._waiting[0]
            question.req = question.req or core.mail.open(self._box)
            frames = wire.frames(self._code, {"req": question.req, **question.fields},
                                 *([question.payload] if question.payload else []))
            until = core.now() + ANSWER_S
            if not (yield Send(frames, until if end is None else min(until, end))):
                return
            self._waiting.popleft()
            question.asked, question.generation = core.now(), core.generation
            self._out[question.req] = question
            self._bytes += len(question.payload)

    def _again(self) -> Steps[None]:
        """Ask again what was lost with a connection, or has waited too long."""
        core, now = self._core, self._core.now()
        late = [q for q in self._out.values()
                if q.generation != core.generation or now - q.asked >= self._patience]
        if late and core.heard_at < min(q.asked for q in late):
            yield Reconnect(core.generation)
            late = list(self._out.values())
        self._box.lost = False
        for question in late:
            del self._out[question.req]
            self._bytes -= len(question.payload)
        self._waiting.extendleft(reversed(late))


class CompletedFlow:
    """The results of many jobs, in the order in which they end."""

    def __init__(self, core: Core, jobs: Iterable[JobLike], timeout: float | None):
        ids = [job_id(job) for job in jobs]
        # When there are more than can be waited for at a time they take turns.
        part = WAIT_SLICE_S if len(ids) <= CROWD else TURN_S
        self._end = None if timeout is None else core.now() + timeout
        self._crowd = Crowd(core, wire.WAIT, part + ANSWER_S)
        for place, job in enumerate(ids):
            self._crowd.add(Question(place, {"job": job, "timeout_ms": round(part * 1000)}))

    def next(self) -> Steps[Result[Any] | None]:
        placed = yield from self.placed()
        return None if placed is None else placed[1]

    def placed(self) -> Steps[tuple[int, Result[Any]] | None]:
        """The same with the place of the job among those given."""
        while (got := (yield from self._crowd.next(self._end))) is not None:
            question, answer = got
            result = outcome(expect(answer, (wire.RESULT, wire.STATE)))
            if result.terminal:
                return question.place, result
            self._crowd.add(Question(question.place, question.fields))
        return None

    def pause(self) -> None:
        self._crowd.pause()

    def close(self) -> None:
        self._crowd.close()


def gather(core: Core, jobs: Iterable[JobLike], timeout: float | None) -> Steps[list[Result[Any]]]:
    """The results of many jobs, in the order of the jobs."""
    flow = CompletedFlow(core, jobs, timeout)
    results: dict[int, Result[Any]] = {}
    try:
        while (got := (yield from flow.placed())) is not None:
            results[got[0]] = got[1]
    finally:
        flow.close()
    return [results[place] for place in sorted(results)]


def submit_many(core: Core, jobs: Iterable[Submission[V]], timeout: float | None,
                retry: Retry | None) -> Steps[list[Accepted[V]]]:
    """Submit many jobs, a window of them at a time. Those without a key get one that is drawn, so
    that what a broken connection left unanswered can be asked again."""
    policy = retry or core.retry
    crowd = Crowd(core, wire.SUBMIT, ANSWER_S)
    n, tries, slept = 0, 0, 0.0
    end = None if timeout is None else core.now() + timeout
    for n, job in enumerate(jobs, 1):
        keyed = job if job.key is not None else job.having(key=uuid.uuid4().hex)
        fields, body = keyed.fields(), wire.body(job.body)
        if len(body) > wire.FRAME_BYTES:
            until = core.now() + UPLOAD_S if end is None else end
            fields["upload"] = yield from upload.send(core, body, until, str(keyed.key))
            body = b""
        crowd.add(Question(n - 1, fields, body))
    accepted: list[Accepted[V] | None] = [None] * n
    refused: dict[int, Refused] = {}
    again: list[tuple[Question, Refused]] = []
    try:
        while True:
            got = yield from crowd.next(end)
            if got is not None:
                question, answer = got
                try:
                    accepted[question.place] = take(
                        Accepted, expect(answer, (wire.ACCEPTED,)).header)
                except Refused as refusal:
                    again.append((question, refusal))
                continue
            pause = max((pause_s(why) for _, why in again), default=0.0)
            tries, slept = tries + 1, slept + pause
            more = bool(policy and pause and tries <= policy.tries and slept <= policy.wait_max)
            for question, why in again:
                if more and why.retry_after_ms:
                    crowd.add(Question(question.place, question.fields, question.payload))
                else:
                    refused[question.place] = why
            again.clear()
            if not more:
                break
            yield Sleep(pause)
    finally:
        crowd.close()
    if refused:
        raise SomeRefused(list(accepted), refused)
    return [one for one in accepted if one is not None]
