"""The client: one connection, one call at a time."""
from __future__ import annotations

import os
import random
import time
from typing import Iterator

import zmq

from . import wire
from .errors import Error, JobFailed, Refused, Timeout, Unreachable
from .types import Accepted, Event, Job, Pong, Result, take

ANSWER_S = 2.0       # a living broker answers sooner; then the question is repeated
WAIT_SLICE_S = 10.0  # one WAIT; a broker that was restarted has forgotten it
QUIET_S = 5.0        # a stream without events for so long is begun anew


def default_endpoint() -> str:
    """$PENSTOCK_ENDPOINT, else where `penstock up` puts the broker."""
    named = os.environ.get("PENSTOCK_ENDPOINT")
    if named:
        return named
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{run}/penstock" if run.startswith("/") else f"/tmp/penstock-{os.getuid()}"
    return f"ipc://{folder}/clients"


class Client:
    """A connection to a broker. Not for several threads at a time; each may have its own.

    Times are seconds. `timeout` is how long calls wait for what a broker answers at once.
    """

    def __init__(self, endpoint: str | None = None, timeout: float = 5.0):
        self.endpoint = endpoint or default_endpoint()
        self.timeout = timeout
        self._context = zmq.Context()
        self._socket = None
        self._req = random.getrandbits(40) << 20
        self._connect()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._context.term()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # ---- jobs ----

    def submit(self, kind: str, body: dict, *, pipeline: str | None = None, key: str | None = None,
               priority: int | None = None, delay: float = 0, ttl: float = 0,
               seed: int | None = None, timeout: float | None = None) -> Accepted:
        """Submit a job; when this returns it is on disk. With a key it may be repeated."""
        fields = {"kind": kind, "pipeline": pipeline, "key": key, "priority": priority,
                  "delay_ms": round(delay * 1000) or None, "ttl_ms": round(ttl * 1000) or None,
                  "has_seed": True if seed is not None else None, "seed": seed}
        _, header, _ = self._ask(wire.SUBMIT, fields, (wire.ACCEPTED,), timeout,
                                 payload=wire.pack(body), once=key is None)
        return take(Accepted, header)

    def wait(self, job, timeout: float | None = None) -> Result:
        """Wait until a job is terminal; raises Timeout when it is not in time. None: for ever."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SLICE_S if end is None else max(0.0, end - time.monotonic())
            part = min(left, WAIT_SLICE_S)
            result = self._outcome(wire.WAIT, {"job": str(job), "timeout_ms": round(part * 1000)},
                                   left + 2 * ANSWER_S, part + ANSWER_S)
            if result.terminal:
                return result
            if end is not None and time.monotonic() >= end:
                raise Timeout(f"job {result.job} is still {result.state} after {timeout:g} s")

    def result(self, job, timeout: float | None = None) -> Result:
        """How a job ended, or where it stands, at once."""
        return self._outcome(wire.RESULT_GET, {"job": str(job)}, timeout, ANSWER_S)

    def run(self, kind: str, body: dict, *, timeout: float | None = None, **options) -> dict:
        """Submit, wait, and return the result's value; raises JobFailed when it is not done."""
        result = self.wait(self.submit(kind, body, **options), timeout)
        if not result.done:
            raise JobFailed(result)
        return result.value

    def cancel(self, job, reason: str | None = None, timeout: float | None = None) -> str:
        """Cancel a job that is not terminal; returns its state after that."""
        _, header, _ = self._ask(wire.CANCEL, {"job": str(job), "reason": reason}, (wire.STATE,),
                                 timeout)
        return header["state"]

    def events(self, job, timeout: float | None = None) -> Iterator[Event]:
        """The events of a job until its last one. None: as long as it takes."""
        end = None if timeout is None else time.monotonic() + timeout
        known, quiet = None, 0
        req = self._begin(wire.EVENTS, {"job": str(job)}, self.timeout)
        fresh = True
        try:
            while True:
                left = QUIET_S if end is None else min(QUIET_S, end - time.monotonic())
                answer = self._receive(req, time.monotonic() + max(0.0, left))
                if answer is None:
                    if end is not None and time.monotonic() >= end:
                        raise Timeout(f"job {job} was not over after {timeout:g} s")
                    quiet += 1
                    req, fresh = self._begin_again(req, job, quiet), True
                    continue
                quiet = 0
                event = take(Event, answer[1])
                state = (event.stage, (event.data or {}).get("state")) if event.type == "state" else None
                again = fresh and state is not None and state == known and not event.last
                known, fresh = state or known, False
                if not again:
                    yield event
                if event.last:
                    return
        finally:
            if self._socket is not None:
                self._send(wire.EVENTS_STOP, {"req": req}, None, 0)

    # ---- looking ----

    def show(self, job, timeout: float | None = None) -> dict:
        """Everything known of a job."""
        return self._ask(wire.SHOW, {"job": str(job)}, (wire.JOB,), timeout)[1]["job"]

    def list(self, *, state: str | None = None, kind: str | None = None,
             limit: int | None = None) -> Iterator[Job]:
        """Jobs, the newest first; asks for further pages as it goes."""
        before, n = None, 0
        while limit is None or n < limit:
            page = 100 if limit is None else min(100, limit - n)
            fields = {"state": state, "kind": kind, "before": before, "limit": page}
            header = self._ask(wire.LIST, fields, (wire.JOBS,), None)[1]
            for row in header["jobs"]:
                yield take(Job, row)
            n += len(header["jobs"])
            before = header.get("next")
            if not before:
                return

    def workers(self, timeout: float | None = None) -> list[dict]:
        """The workers that are registered."""
        return self._ask(wire.WORKERS, {}, (wire.WORKER_LIST,), timeout)[1]["workers"]

    def status(self, timeout: float | None = None) -> dict:
        """Counts and gauges of the broker."""
        return self._ask(wire.STATUS, {}, (wire.STATS,), timeout)[1]["stats"]

    def ping(self, timeout: float | None = None) -> Pong:
        """Ask whether the broker is there."""
        return take(Pong, self._ask(wire.PING, {}, (wire.PONG,), timeout)[1])

    # ---- the connection ----

    def _connect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 200)
        self._socket.set(zmq.IMMEDIATE, 1)
        self._socket.set(zmq.RECONNECT_IVL, 100)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 2000)
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise Unreachable(f"'{self.endpoint}' is not an endpoint: {error}") from error

    def _send(self, code: int, header: dict, payload, timeout: float) -> bool:
        """Send when the connection is there; False when it is not in time."""
        parts = wire.frames(code, header, payload)
        if not self._socket.poll(max(0, round(timeout * 1000)), zmq.POLLOUT):
            return False
        try:
            self._socket.send_multipart(parts, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def _begin(self, code: int, fields: dict, timeout: float, payload=None) -> int:
        """Send a request under a new number; returns the number."""
        self._req += 1
        if not self._send(code, {"req": self._req, **fields}, payload, timeout):
            raise Unreachable(f"no broker at {self.endpoint}; start one with `penstock up`, or name "
                              "the right one with PENSTOCK_ENDPOINT")
        return self._req

    def _begin_again(self, req: int, job, quiet: int) -> int:
        """Begin a stream anew that has fallen silent: the broker may be another process now."""
        if quiet > 2:
            raise Unreachable(f"the broker at {self.endpoint} has fallen silent")
        if quiet == 1:
            self._send(wire.EVENTS_STOP, {"req": req}, None, 0)
        else:
            self._connect()
        return self._begin(wire.EVENTS, {"job": str(job)}, 2 * QUIET_S)

    def _receive(self, req: int, until: float):
        """The next answer to this request, or None; what answers earlier ones is dropped."""
        while True:
            left = until - time.monotonic()
            if not self._socket.poll(max(0, round(left * 1000)), zmq.POLLIN):
                if time.monotonic() >= until:
                    return None
                continue
            code, header, payload = wire.parse(self._socket.recv_multipart())
            if header.get("req") != req:
                continue
            if code == wire.REFUSED:
                raise Refused(header)
            return code, header, payload

    def _ask(self, code: int, fields: dict, want: tuple, timeout: float | None, payload=None,
             once: bool = False, patience: float = ANSWER_S):
        """Send a request and return its answer; repeats it unless it may be sent only once."""
        timeout = self.timeout if timeout is None else timeout
        end = time.monotonic() + timeout
        sent = False
        while True:
            try:
                req = self._begin(code, fields, end - time.monotonic(), payload)
            except Unreachable:
                if not sent:
                    raise
                break
            sent = True
            answer = self._receive(req, end if once else min(end, time.monotonic() + patience))
            if answer is not None:
                if answer[0] not in want:
                    raise Error(f"the broker answers with message 0x{answer[0]:02X}")
                return answer
            if time.monotonic() >= end:
                break
            self._connect()
        hint = "; the job may have been accepted, submit with a key to be able to repeat" if once else ""
        raise Timeout(f"the broker at {self.endpoint} did not answer in {timeout:g} s{hint}")

    def _outcome(self, code: int, fields: dict, timeout: float | None, patience: float) -> Result:
        _, header, payload = self._ask(code, fields, (wire.RESULT, wire.STATE), timeout,
                                       patience=patience)
        return take(Result, {**header, "value": wire.document(payload)})
