"""The link to the broker: one thread that owns the socket and beats, whatever the stages do.

    new -> (REGISTER) -> registering -> (REGISTERED) -> registered
    registered -> (REREGISTER: drop all leases) -> registering
    any -> (SIGTERM: GOODBYE, RETURN what has not begun) -> draining -> (all ended and told) -> over

A lease waits here until the executor is free, and is forgotten when it has ended. What became of it
waits in the outbox until the broker has acknowledged it.
"""
from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from .. import wire
from ..endpoint import connect
from ..errors import Error
from .executor import Executor, Lost, Wake
from .log import Log
from .outbox import Outbox, Outcome
from .span import Began, Dropped, Failed, Key, Made, Note, Told
from .stage import Lease, Planned, Stage

REGISTER_AGAIN_S = 1.0
TICK_S = 0.02          # while something waits for the socket or a stage may be late
DRAIN_ACK_S = 5.0      # wait at most so long for the last acknowledgements
LEASES_MAX = 64
MESSAGES_A_TURN = 256  # so that beats and timers have their turn under load


@dataclass(frozen=True)
class Config:
    """What a worker tells the broker of itself, and how patient it is."""

    name: str
    endpoint: str
    credit_jobs: int
    credit_bytes: int
    models: tuple[str, ...]
    grace_s: float      # a stage over its time that does not stop is stopped by force


@dataclass
class Held:
    """A lease that is with the executor, or waits for it."""

    lease: Lease
    started: bool = False
    gone: bool = False            # no longer ours to report: cancelled, given to others, timed out
    offset: int = 0
    since: float | None = None    # when the running stage began


@dataclass
class Link:
    config: Config
    stages: dict[str, Stage]
    executor: Executor
    log: Log
    wake: Wake                    # ends a wait: a signal, or stop()
    stopping: Callable[[], bool]
    held: dict[Key, Held] = field(default_factory=dict)
    outbox: Outbox = field(default_factory=Outbox)
    session: str = field(default_factory=lambda: secrets.token_hex(16))
    registered: bool = False
    asked: bool = False           # a REGISTER left: the broker may know the session
    draining: bool = False
    said_goodbye: bool = False
    quiet: bool = False           # the broker has said that no lease follows
    goodbye_at: float = 0.0
    failed: bool = False          # a stage does not stop: only the end of the process helps
    many: bool = False            # the broker reads MANY
    epoch: int = 0
    heartbeat_s: float = 1.0
    lease_s: float = 10.0
    beat_at: float = 0.0
    register_at: float = 0.0
    idle_since: float | None = None

    def run(self) -> int:
        """Until drained; returns the exit status."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = connect(context.socket(zmq.DEALER), self.config.endpoint)
        try:
            while not self._finished(time.monotonic()):
                self._turn()
        finally:
            self._socket.close()
            context.term()
        return 1 if self.failed else 0

    def drain(self) -> None:
        """Take nothing more, give back what has not begun, end what runs."""
        if self.draining:
            return
        self.log("info", "worker_drains", leases=len(self.held))
        self.draining = True
        for held in [held for held in self.held.values() if not held.started]:
            self._end(held)
            if not held.gone:
                self._report(wire.RETURN, held.lease, held.lease.first)

    # ---- the loop ----

    def _turn(self) -> None:
        reading, writing = self.executor.files()
        wanted: dict[Any, int] = {self._socket: zmq.POLLIN, self.wake.reading: zmq.POLLIN}
        for file in reading:
            wanted[file] = zmq.POLLIN
        for file in writing:
            wanted[file] = zmq.POLLIN | zmq.POLLOUT
        poller = zmq.Poller()
        for file, events in wanted.items():
            poller.register(file, events)
        poller.poll(round(self._wait_s(time.monotonic()) * 1000))
        self.wake.hush()
        if self.stopping():
            self.drain()
        for _ in range(MESSAGES_A_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            self._on_message(parts)
        for told in self.executor.told():
            self._on_told(told)
        self._on_timers(time.monotonic())
        self._start()

    def _wait_s(self, now: float) -> float:
        until = now + 1.0
        if self.registered:
            until = min(until, self.beat_at)
        elif not self.draining:
            until = min(until, self.register_at)
        if self.held or len(self.outbox) or self.draining:
            until = min(until, now + TICK_S)
        return max(0.0, until - now)

    def _on_timers(self, now: float) -> None:
        needed = not self.draining or len(self.outbox) > 0
        if not self.registered and needed and now >= self.register_at:
            self._send_register(now)
        unheard = not self.quiet and now - self.goodbye_at >= REGISTER_AGAIN_S
        if self.draining and self.asked and (unheard or not self.said_goodbye):
            self.said_goodbye = self._send(wire.GOODBYE, {"session": self.session})
            self.goodbye_at = now
        if self.registered:
            if now >= self.beat_at:
                self._send(wire.HEARTBEAT, {"session": self.session, "epoch": self.epoch})
                self.beat_at = now + self.heartbeat_s
            self.outbox.flush(now, self.lease_s, self._send_frames, self.many)
        for held in list(self.held.values()):
            self._check_time(held, now)

    def _check_time(self, held: Held, now: float) -> None:
        """A stage that is late is reported at once, and stopped by force if it does not stop."""
        planned = held.lease.plan[held.offset]
        if held.since is None or not planned.timeout_ms:
            return
        late = now - held.since - planned.timeout_ms / 1000
        if late > 0 and not held.gone:
            self._abandon(held)
            self._fail(held.lease, held.offset, "timeout",
                       f"stage {planned.run} ran longer than its timeout of {planned.timeout_ms} ms")
        elif late > self.config.grace_s and not self.executor.kill(held.lease.key):
            if not self.failed:
                self.log("error", "worker_gives_up", reason=f"stage {planned.run} did not stop "
                         f"within {self.config.grace_s:g} s of its timeout")
            self.failed = True
            self.drain()

    def _finished(self, now: float) -> bool:
        """Drained: nothing is held any more, or the broker does not answer."""
        stuck = self.failed and all(held.gone for held in self.held.values())
        if not self.draining or (self.held and not stuck):
            return False
        if self.idle_since is None:
            self.idle_since = now
        told = not len(self.outbox) and (self.said_goodbye and self.quiet or not self.asked)
        return told or now - self.idle_since > DRAIN_ACK_S

    # ---- sending ----

    def _send_frames(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
            return True
        except zmq.Again:
            return False

    def _send(self, code: int, header: dict[str, object]) -> bool:
        return self._send_frames(wire.frames(code, header))

    def _send_register(self, now: float) -> None:
        config = self.config
        left = self._send(wire.REGISTER, {
            "session": self.session, "name": config.name, "runs": sorted(self.stages),
            "host": socket.gethostname()[:wire.NAME_BYTES], "pid": os.getpid(),
            "models": list(config.models), "credit_jobs": config.credit_jobs,
            "credit_bytes": config.credit_bytes, "numerics_id": "python", "many": True})
        self.asked = self.asked or left
        self.register_at = now + (REGISTER_AGAIN_S if left else TICK_S)

    def _report(self, code: int, lease: Lease, stage: int, payload: bytes | None = None,
                **fields: object) -> None:
        header = {"job": lease.job, "stage": stage, "attempt": lease.attempt, **fields}
        parts = [] if payload is None else wire.cut(payload)
        self.outbox.add(Outcome(lease.job, lease.attempt, stage, wire.frames(code, header, *parts)))

    def _fail(self, lease: Lease, offset: int, error_class: str, reason: str) -> None:
        self._report(wire.STAGE_FAILED, lease, lease.first + offset, error_class=error_class,
                     reason=reason)

    # ---- leases ----

    def _start(self) -> None:
        while not self.draining and self.executor.free():
            waiting = [held for held in self.held.values() if not held.started]
            if not waiting:
                return
            lead = waiting[0].lease
            most = max(min(self.stages[p.run].batch, p.batch_max) for p in lead.plan)
            rest = [held for held in waiting[1:] if lead.pairs_with(held.lease)]
            batch = waiting[:1] + rest[:most - 1]
            for held in batch:
                held.started = True
            self.executor.start([held.lease for held in batch])

    def _abandon(self, held: Held) -> None:
        """The broker has given it to others, or wants it no more: what comes of it is not told."""
        held.gone = True
        if held.started:
            self.executor.cancel(held.lease.key)
        else:
            self._end(held)

    def _end(self, held: Held) -> None:
        self.held.pop(held.lease.key, None)

    def _on_lease(self, header: dict[str, Any], payload: list[bytes]) -> None:
        lease = lease_of(header, payload, time.monotonic())
        if lease.key in self.held:
            return  # a repetition
        unknown = [p.run for p in lease.plan if p.run not in self.stages]
        if not lease.plan or unknown:
            self._fail(lease, 0, "transient",
                       f"this worker does not offer stage {', '.join(unknown) or 'nothing'}")
        elif self.draining or len(self.held) >= LEASES_MAX:
            self._report(wire.RETURN, lease, lease.first)
        else:
            self.held[lease.key] = Held(lease)

    # ---- what the executor says ----

    def _on_told(self, told: Told | Lost) -> None:
        held = self.held.get(told.key)
        if held is None:
            return
        lease, stage = held.lease, held.lease.first + told.offset
        if isinstance(told, Began):
            held.offset, held.since = told.offset, time.monotonic()
            return
        if isinstance(told, Note):
            if self.registered and not held.gone:
                self._send_frames(wire.frames(wire.PROGRESS, {
                    "job": lease.job, "stage": stage, "attempt": lease.attempt, "type": told.type,
                    "data": wire.unpack(told.data)}))
            return
        held.since = None
        more = isinstance(told, Made) and told.offset + 1 < len(lease.plan)
        if not more:
            self._end(held)
        if isinstance(told, Lost):
            self.log("error", "stage_died", job=lease.job, reason=told.reason or "returned")
        if held.gone or isinstance(told, Dropped):
            return
        if isinstance(told, Made):
            self._report(wire.STAGE_DONE, lease, stage, told.output, more=more or None,
                         run_us=told.run_us, wait_us=told.wait_us, numerics_id=told.numerics_id)
        elif isinstance(told, Failed):
            self.log("info", "stage_failed", job=lease.job, error_class=told.error_class,
                     reason=told.reason)
            self._fail(lease, told.offset, told.error_class, told.reason)
        elif told.reason:
            self._fail(lease, told.offset, "worker_died", told.reason)
        else:
            self._report(wire.RETURN, lease, stage)

    # ---- what the broker says ----

    def _on_message(self, parts: list[bytes]) -> None:
        try:
            code, header, payload = wire.parse(parts)
            if code == wire.MANY:
                for message in wire.messages_of(header, payload):
                    if message[0][3] != wire.MANY:
                        self._on_message(message)
            elif code == wire.REGISTERED:
                self._on_registered(header)
            elif code == wire.REREGISTER:
                self._on_reregister(header)
            elif code == wire.LEASE:
                self._on_lease(header, payload)
            elif code == wire.STAGE_ACK:
                self._on_ack(header)
            elif code == wire.CANCEL_LEASE:
                held = self.held.get((header["job"], header["attempt"]))
                if held:
                    self._abandon(held)
            elif code == wire.QUIET:
                self.quiet = True  # behind the last lease
                self.drain()
            elif code == wire.REFUSED:
                self.log("error", "broker_refused", reason=str(header.get("message", "")))
        except (Error, KeyError, TypeError, ValueError) as error:
            self.log("warn", "message_ignored", reason=f"{type(error).__name__}: {error}")

    def _on_registered(self, header: dict[str, Any]) -> None:
        self.epoch = header["epoch"]
        self.heartbeat_s, self.lease_s = header["heartbeat_ms"] / 1000, header["lease_ms"] / 1000
        self.many = bool(header.get("many"))
        self.registered = True
        self.said_goodbye = self.quiet = False
        self.beat_at = 0.0
        self.outbox.send_again()
        self.log("info", "worker_registered", session=self.session, epoch=self.epoch,
                 stages=len(self.stages))

    def _on_reregister(self, header: dict[str, Any]) -> None:
        if not self.registered:
            return  # already on the way
        self.log("warn", "worker_reregisters", leases=len(self.held),
                 reason=str(header.get("reason", "")))
        for held in list(self.held.values()):
            self._abandon(held)
        self.registered = False
        self._send_register(time.monotonic())

    def _on_ack(self, header: dict[str, Any]) -> None:
        job, attempt = header["job"], header["attempt"]
        stale = header["verdict"] == "stale"
        self.outbox.acknowledged(job, attempt, header["stage"], stale)
        held = self.held.get((job, attempt))
        if stale and held:
            self._abandon(held)


def lease_of(header: dict[str, Any], payload: list[bytes], now: float) -> Lease:
    """A LEASE message; the payload is the body, then the input, both in parts."""
    parts = int(header.get("body_parts", 1))
    plan = tuple(Planned(str(p.get("name", "")), str(p["run"]), str(p.get("model") or ""),
                         int(p.get("timeout_ms", 0)), max(1, int(p.get("batch_max", 1))))
                 for p in header["plan"])
    return Lease(header["job"], header["attempt"], header["stage"], header["kind"], header["seed"],
                 header.get("left_ms", 0), bool(header.get("alone")), plan,
                 b"".join(payload[:parts]), b"".join(payload[parts:]) or None, now)
