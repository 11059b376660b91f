"""Which answer belongs to which question: request numbers, and boxes that answers wait in.

Pure bookkeeping, without a socket or a clock. Bounded: a box that is not emptied takes no more than
BOX_MESSAGES, and remembers that something was lost.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import wire
from .errors import Error

BOX_MESSAGES = 8192


@dataclass(frozen=True)
class Answer:
    """One message from the broker."""

    req: int
    code: int
    header: dict[str, Any]
    payload: list[bytes]


class Box:
    """The answers to one question, or to several that are asked together, in order."""

    def __init__(self) -> None:
        self.messages: deque[Answer] = deque()
        self.reqs: set[int] = set()
        self.lost = False                         # a message, or the connection it would come by
        self.error: Error | None = None
        self.wake: Callable[[], None] | None = None  # who sleeps until something is here

    @property
    def ready(self) -> bool:
        """Whether take() has something to say."""
        return bool(self.messages) or self.lost or self.error is not None

    def take(self) -> Answer | None:
        """The next answer; None when there is none, or when something was lost (once)."""
        if self.messages:
            return self.messages.popleft()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.lost = False
        return None

    def ring(self) -> None:
        if self.wake:
            self.wake()


class Mail:
    """All boxes of one client, by request number."""

    def __init__(self, first: int):
        self._next = first
        self._boxes: dict[int, Box] = {}

    def __len__(self) -> int:
        """Questions that are under way."""
        return len(self._boxes)

    def open(self, box: Box) -> int:
        """A number for a question whose answers go to this box."""
        self._next += 1
        self._boxes[self._next] = box
        box.reqs.add(self._next)
        return self._next

    def close(self, box: Box, req: int | None = None) -> None:
        """One question of a box is over, or all: what still answers it is dropped."""
        for number in (list(box.reqs) if req is None else [req]):
            self._boxes.pop(number, None)
            box.reqs.discard(number)

    def deliver(self, parts: Sequence[bytes]) -> None:
        """Puts a message into its box; what nobody waits for is dropped."""
        try:
            code, header, payload = wire.parse(parts)
        except Error as error:
            for box in self._boxes.values():
                box.error = error
                box.ring()
            return
        req = header.get("req")
        box_of = self._boxes.get(req) if isinstance(req, int) else None
        if box_of is None or not isinstance(req, int):
            return
        if len(box_of.messages) < BOX_MESSAGES:
            box_of.messages.append(Answer(req, code, header, payload))
        else:
            box_of.lost = True
        box_of.ring()

    def lose(self) -> None:
        """The connection is another one: what was asked over the old one will not be answered."""
        for box in self._boxes.values():
            box.lost = True
            box.ring()
