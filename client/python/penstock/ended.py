"""Jobs in the order in which they end, from an offset on: a stream that goes on by itself.

The broker numbers the ends of jobs. Who keeps the last offset and comes back with it misses nothing
and gets nothing twice; what is kept no longer is told as a gap.
"""
from __future__ import annotations

from . import wire
from .core import ANSWER_S, Core, Receive, Reconnect, Send, Sleep, Steps, pause_s
from .errors import Refused, Timeout
from .mail import Answer, Box
from .types import Ended, take

QUIET_S = 12.0   # a living broker says something every few seconds
AGAIN_S = 2.0


class EndedFlow:
    """The ends of jobs behind an offset; without follow it is over where that is now."""

    def __init__(self, core: Core, after: int | None, kind: str | None, pipeline: str | None,
                 results: bool, follow: bool, timeout: float | None):
        self._core, self._offset, self._follow = core, after, follow
        self._fields = {"kind": kind, "pipeline": pipeline, "results": results}
        self._timeout = timeout
        self._end = None if timeout is None else core.now() + timeout
        self._box = Box()
        self._req: int | None = None
        self._began = self._over = False

    def next(self) -> Steps[Ended | None]:
        core = self._core
        while not self._over:
            if self._req is None:
                yield from self._begin()
            answer = yield Receive(self._box, self._until(QUIET_S))
            if answer is None:
                yield from self._silence()
                continue
            try:
                item = self._take(answer)
            except Refused as refused:
                pause = pause_s(refused)
                if not pause:
                    raise
                self.pause()
                yield Sleep(pause)
                continue
            if item is not None:
                return item
        core.mail.close(self._box)
        return None

    def pause(self) -> None:
        for req in list(self._box.reqs):
            self._core.stop(req)
        self._core.mail.close(self._box)
        self._box.messages.clear()
        self._req = None

    def close(self) -> None:
        self.pause()
        self._over = True

    def _until(self, seconds: float) -> float:
        until = self._core.now() + seconds
        return until if self._end is None else min(until, self._end)

    def _begin(self) -> Steps[None]:
        """Subscribes behind the last offset. The first time there has to be a broker; later it is
        waited for."""
        core = self._core
        while True:
            self._box.lost = False
            req = core.mail.open(self._box)
            fields: dict[str, object] = {**self._fields, "req": req, "from": self._offset}
            if (yield Send(wire.frames(wire.SUBSCRIBE, fields), self._until(ANSWER_S))):
                break
            core.mail.close(self._box)
            if not self._began:
                raise core.unreachable()
            self._expire()
            yield Sleep(AGAIN_S)
        self._req, self._began = req, True

    def _expire(self) -> None:
        if self._end is not None and self._core.now() >= self._end:
            raise Timeout(f"no end of the stream after {self._timeout:g} s")

    def _silence(self) -> Steps[None]:
        """The broker may be another process now, or the connection another one."""
        core = self._core
        self._expire()
        lost, generation = self._box.lost, core.generation
        self.pause()
        if not lost:
            yield Reconnect(generation)

    def _take(self, answer: Answer) -> Ended | None:
        """What an answer tells its reader; None when that is nothing."""
        if answer.code == wire.REFUSED:
            raise Refused(answer.header)
        header = answer.header
        if answer.code == wire.ENDED:
            if self._offset is not None and header["offset"] <= self._offset:
                return None
            self._offset = header["offset"]
            return take(Ended, {**header, "value": wire.document(answer.payload)})
        if answer.code != wire.STREAM:
            return None
        if header["what"] == "dropped":
            self.pause()
            return None
        self._offset = header["offset"]
        if header["what"] == "gap":
            return Ended(offset=header["offset"], lost=header.get("lost", 0))
        if header["what"] == "live" and not self._follow:
            self.close()
        return None
