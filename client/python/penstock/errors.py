"""What a call may raise."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .types import Accepted, Result


class Error(Exception):
    """All errors of this package."""


class Unreachable(Error):
    """There is no broker at the endpoint."""


class Timeout(Error, TimeoutError):
    """No answer in time, or a job that was not terminal in time."""


class Invalid(Error, ValueError):
    """An argument that no broker would take."""


class Refused(Error):
    """The broker said no, and nothing was stored.

    `code` is a word for programs (schemas/README.md lists them), `field` and `limit` say where and
    which bound, `fix` what to do. `retry_after_ms` is 0 when trying again as it is will not help.
    """

    def __init__(self, header: Mapping[str, Any]):
        self.code: str = header.get("code", "")
        self.field: str = header.get("field", "")
        self.limit: str = header.get("limit", "")
        self.message: str = header.get("message", "")
        self.fix: str = header.get("fix", "")
        self.retry_after_ms: int = header.get("retry_after_ms", 0)
        fix = f"; {self.fix}" if self.fix else ""
        super().__init__(f"{self.message}{fix} ({self.code})")


class SomeRefused(Error):
    """Of many jobs some were refused; the others are on disk.

    `accepted` has a place for each job, None where it was refused; `refused` says why, by place.
    """

    def __init__(self, accepted: list[Accepted[Any] | None], refused: dict[int, Refused]):
        self.accepted = accepted
        self.refused = refused
        place, first = min(refused.items())
        super().__init__(f"{len(refused)} of {len(accepted)} jobs were refused; number {place}: {first}")


class JobNotDone(Error):
    """A job ended without a result; `result` says how."""

    def __init__(self, result: Result[Any]):
        self.result = result
        kind = f" ({result.error_class})" if result.error_class else ""
        super().__init__(f"job {result.job} {result.state}{kind}: {result.reason}")


class JobFailed(JobNotDone):
    """It failed: `result.error_class` and `result.reason` say why."""


class JobCancelled(JobNotDone):
    """Somebody cancelled it."""


class JobExpired(JobNotDone):
    """Its time to live was over."""


def not_done(result: Result[Any]) -> JobNotDone:
    """The exception for a job that ended otherwise than done."""
    ways = {"cancelled": JobCancelled, "expired": JobExpired}
    return ways.get(result.state, JobFailed)(result)
