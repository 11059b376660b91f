"""What a call may raise."""


class Error(Exception):
    """All errors of this package."""


class Unreachable(Error):
    """There is no broker at the endpoint."""


class Timeout(Error, TimeoutError):
    """No answer in time, or a job that was not terminal in time."""


class Invalid(Error, ValueError):
    """An argument that no broker would take."""


class Refused(Error):
    """The broker said no.

    `code` is a word for programs (schemas/README.md lists them), `field` and `limit` say where and
    which bound, `fix` what to do. `retry_after_ms` is 0 when trying again as it is will not help.
    """

    def __init__(self, header):
        self.code = header.get("code", "")
        self.field = header.get("field", "")
        self.limit = header.get("limit", "")
        self.message = header.get("message", "")
        self.fix = header.get("fix", "")
        self.retry_after_ms = header.get("retry_after_ms", 0)
        fix = f"; {self.fix}" if self.fix else ""
        super().__init__(f"{self.message}{fix} ({self.code})")


class JobFailed(Error):
    """A job ended without a result; `result` says how."""

    def __init__(self, result):
        self.result = result
        kind = f" ({result.error_class})" if result.error_class else ""
        super().__init__(f"job {result.job} {result.state}{kind}: {result.reason}")
