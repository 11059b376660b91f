"""Structured log lines on stderr, one logfmt line an event, as all programs of the house write them."""
from __future__ import annotations

import os
import time

LEVELS = ("debug", "info", "warn", "error")
_LINE_BYTES = 2048
_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", 0x7F: "\\x7f",
            **{code: f"\\x{code:02x}" for code in range(0x20) if code != 0x0A}}


class Log:
    """Writes lines of a level and above. Any thread may."""

    def __init__(self, level: str = "info", app: str = "penstock-python"):
        self.lowest = LEVELS.index(level)
        self.app = app

    def __call__(self, level: str, event: str, **fields: object) -> None:
        if LEVELS.index(level) < self.lowest:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"ts={stamp}.{int(now * 1000) % 1000:03d}Z level={level} app={self.app} event={event}"
        for name, value in fields.items():
            line += f" {name}={quote(value)}"
        data = line.encode("utf-8", "replace")
        if len(data) > _LINE_BYTES:
            data = data[:_LINE_BYTES] + b" cut=true"
        try:
            os.write(2, data + b"\n")
        except OSError:
            pass  # there is nobody left to tell


def quote(value: object) -> str:
    """A logfmt value: text in quotes, numbers and names as they are."""
    if not isinstance(value, str) or (value and all(c.isalnum() or c in "._-:/" for c in value)):
        return str(value)
    return '"' + value.translate(_ESCAPES) + '"'
