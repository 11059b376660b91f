"""Structured log lines on stderr, one line an event in logfmt or as JSON, as all programs of the house write them."""
from __future__ import annotations

import json
import os
import time

LEVELS = ("debug", "info", "warn", "error")
FORMATS = ("logfmt", "json")
_LINE_BYTES = 2048
_ESCAPES = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", 0x7F: "\\x7f",
            **{code: f"\\x{code:02x}" for code in range(0x20) if code != 0x0A}}


class Log:
    """Writes lines of a level and above. Any thread may."""

    def __init__(self, level: str = "info", app: str = "penstock-python", form: str = "logfmt"):
        self.lowest = LEVELS.index(level)
        self.app = app
        self.json = form == "json"

    def __call__(self, level: str, event: str, **fields: object) -> None:
        if LEVELS.index(level) < self.lowest:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        if self.json:
            head = {"ts": f"{stamp}.{int(now * 1000) % 1000:03d}Z", "level": level, "app": self.app, "event": event}
            _write(json.dumps({**head, **fields}, default=str).encode())
            return
        line = f"ts={stamp}.{int(now * 1000) % 1000:03d}Z level={level} app={self.app} event={event}"
        for name, value in fields.items():
            line += f" {name}={quote(value)}"
        data = line.encode("utf-8", "replace")
        if len(data) > _LINE_BYTES:
            data = data[:_LINE_BYTES] + b" cut=true"
        _write(data)


def _write(line: bytes) -> None:
    try:
        os.write(2, line + b"\n")
    except OSError:
        pass  # there is nobody left to tell


def quote(value: object) -> str:
    """A logfmt value: text in quotes, numbers and names as they are."""
    if not isinstance(value, str) or (value and all(c.isalnum() or c in "._-:/" for c in value)):
        return str(value)
    return '"' + value.translate(_ESCAPES) + '"'
