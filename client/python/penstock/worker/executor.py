"""Where stages run: in a thread of the worker, or in child processes that may crash.

An executor belongs to the link (link.py), which hands it batches of leases and hears what becomes of
them. None of its calls blocks, whatever a stage does: the link has to beat meanwhile.
"""
from __future__ import annotations

import mmap
import os
import pickle
import queue
import signal
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .span import Dropped, Failed, Key, Made, Note, Told, run_span
from .stage import Lease, Stage

NOTES_MAX = 1024     # events that wait for the link; more are dropped
READ_BYTES = 1 << 20
RESTART_S = 1.0      # pause before a child that died idle is started again


@dataclass(frozen=True)
class Lost:
    """The process that had it has ended; without a reason the stage had not begun, or was not to
    blame."""

    key: Key
    offset: int
    reason: str = ""


class Executor(Protocol):
    def free(self) -> bool:
        """Whether start() would take a batch now."""

    def start(self, batch: list[Lease]) -> None: ...

    def cancel(self, key: Key) -> None:
        """Ask its stage to stop."""

    def kill(self, key: Key) -> bool:
        """Stop it by force; False when that is not possible here."""

    def files(self) -> tuple[list[int], list[int]]:
        """Descriptors to wait for until they can be read, and written."""

    def told(self) -> list[Told | Lost]:
        """What has happened since."""

    def close(self) -> None: ...


class Wake:
    """A pipe that ends a wait."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)

    def ring(self) -> None:
        try:
            os.write(self.writing, b"!")
        except (BlockingIOError, OSError):
            pass  # full: it rings already

    def hush(self) -> bytes:
        try:
            return os.read(self.reading, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class ThreadExecutor:
    """One thread beside the link's."""

    def __init__(self, stages: Mapping[str, Stage]):
        self._stages = stages
        self._batches: queue.SimpleQueue[list[Lease] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._cancelled: set[Key] = set()
        self._left: set[Key] = set()
        self._wake = Wake()
        self._thread = threading.Thread(target=self._stages_thread_main, name="stages", daemon=True)
        self._thread.start()

    def free(self) -> bool:
        return not self._left

    def start(self, batch: list[Lease]) -> None:
        self._left = {lease.key for lease in batch}
        self._cancelled.clear()
        self._batches.put(batch)

    def cancel(self, key: Key) -> None:
        self._cancelled.add(key)

    def kill(self, key: Key) -> bool:
        return False

    def files(self) -> tuple[list[int], list[int]]:
        return [self._wake.reading], []

    def told(self) -> list[Told | Lost]:
        self._wake.hush()
        all_told: list[Told | Lost] = []
        while True:
            try:
                told = self._told.get_nowait()
            except queue.Empty:
                return all_told
            all_told.append(told)
            if ends(told, self._last):
                self._left.discard(told.key)

    def close(self) -> None:
        self._batches.put(None)
        if not self._left:
            self._thread.join()
            self._wake.close()

    def _stages_thread_main(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._last = len(batch[0].plan) - 1
            run_span(self._stages, batch, self._tell, self._cancelled.__contains__)

    def _tell(self, told: Told) -> None:
        if isinstance(told, Note) and self._told.qsize() > NOTES_MAX:
            return
        self._told.put(told)
        self._wake.ring()


def ends(told: Told, last: int) -> bool:
    """Whether nothing follows for its lease."""
    return isinstance(told, (Failed, Dropped)) or isinstance(told, Made) and told.offset == last


class _Child:
    """One child process, seen from its parent."""

    def __init__(self, pid: int, channel: socket.socket, flags: mmap.mmap):
        self.pid, self.channel, self.flags = pid, channel, flags
        self.coming, self.going = bytearray(), bytearray()
        self.places: dict[Key, int] = {}        # of the batch's leases among the flags
        self.running: dict[Key, int | None] = {}  # those that have not ended: the stage that runs
        self.runs: tuple[str, ...] = ()
        self.killed = False                     # by its parent, which was asked to
        self.oom_kills = oom_kills()

    def send(self) -> None:
        try:
            while self.going:
                del self.going[:self.channel.send(self.going[:READ_BYTES])]
        except (BlockingIOError, ConnectionError):
            pass

    def receive(self) -> list[Told]:
        try:
            while data := self.channel.recv(READ_BYTES):
                self.coming += data
        except (BlockingIOError, ConnectionError):
            pass
        told: list[Told] = []
        while len(self.coming) >= 8:
            size, = struct.unpack_from("<Q", self.coming)
            if len(self.coming) < 8 + size:
                break
            told.append(pickle.loads(self.coming[8:8 + size]))
            del self.coming[:8 + size]
        return told


class ProcessExecutor:
    """Child processes, one batch each: what crashes one of them leaves the link alive."""

    def __init__(self, stages: Mapping[str, Stage], count: int):
        self._stages, self._count = stages, count
        self._children: list[_Child] = []
        self._restart = 0.0
        self._closed = False
        self._doubted: set[str] = set()  # jobs that ran when a child was killed from outside
        self._fill()

    def free(self) -> bool:
        return any(not child.running for child in self._children)

    def start(self, batch: list[Lease]) -> None:
        child = next(child for child in self._children if not child.running)
        child.flags[:len(batch)] = bytes(len(batch))
        child.places = {lease.key: place for place, lease in enumerate(batch)}
        child.running = {lease.key: None for lease in batch}
        child.runs = tuple(planned.run for planned in batch[0].plan)
        child.going += framed(batch)
        child.send()

    def cancel(self, key: Key) -> None:
        for child in self._children:
            if key in child.running:
                child.flags[child.places[key]] = 1

    def kill(self, key: Key) -> bool:
        for child in self._children:
            if key in child.running and not child.killed:
                child.killed = True
                os.kill(child.pid, signal.SIGKILL)
        return True

    def files(self) -> tuple[list[int], list[int]]:
        return ([child.channel.fileno() for child in self._children],
                [child.channel.fileno() for child in self._children if child.going])

    def told(self) -> list[Told | Lost]:
        all_told: list[Told | Lost] = []
        for child in list(self._children):
            dead, status = os.waitpid(child.pid, os.WNOHANG)
            child.send()
            for told in child.receive():  # of a dead one all that it said
                all_told.append(told)
                if ends(told, len(child.runs) - 1):
                    child.running.pop(told.key, None)
                elif not isinstance(told, Note):
                    began = not isinstance(told, Made)
                    child.running[told.key] = told.offset if began else None
            if dead:
                all_told += self._bury(child, status)
        self._fill()
        return all_told

    def close(self) -> None:
        self._closed = True
        for child in self._children:
            child.channel.close()
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        self._children.clear()

    def _bury(self, child: _Child, status: int) -> list[Told | Lost]:
        self._children.remove(child)
        child.channel.close()
        self._restart = time.monotonic() + (0.0 if child.running else RESTART_S)
        lost: list[Told | Lost] = []
        outside = killed_outside(status, child.oom_kills)
        for key, offset in child.running.items():
            ran = offset is not None and not child.killed
            if ran and outside and key[0] not in self._doubted:
                # The benefit of the doubt, once: who kills may have his reason in the job.
                self._doubted.add(key[0])
                ran = False
            else:
                self._doubted.discard(key[0])
            lost.append(Lost(key, offset or 0, cause(status, child.runs[offset or 0]) if ran else ""))
        return lost

    def _fill(self) -> None:
        while (len(self._children) < self._count and not self._closed
               and time.monotonic() >= self._restart):
            self._children.append(self._fork())

    def _fork(self) -> _Child:
        ours, theirs = socket.socketpair()
        flags = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the child
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Only this thread runs Python; those of ZeroMQ are not touched in the child.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            for child in self._children:
                child.channel.close()
            ours.close()
            _child_main(self._stages, theirs, flags)
        theirs.close()
        ours.setblocking(False)
        return _Child(pid, ours, flags)


def _child_main(stages: Mapping[str, Stage], channel: socket.socket, flags: mmap.mmap) -> None:
    """Runs batches until the parent is gone; never returns."""
    status = 1
    try:
        die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the parent decides what ends
        threading.current_thread().name = "stages"
        while (batch := read_framed(channel)) is not None:
            _child_batch(stages, batch, flags, lambda told: channel.sendall(framed(told)))
            sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def _child_batch(stages: Mapping[str, Stage], batch: list[Lease], flags: mmap.mmap,
                 tell: Callable[[Told], None]) -> None:
    places = {lease.key: place for place, lease in enumerate(batch)}
    run_span(stages, batch, tell, lambda key: flags[places[key]] != 0)


def framed(value: object) -> bytes:
    packed = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return struct.pack("<Q", len(packed)) + packed


def read_framed(channel: socket.socket) -> list[Lease] | None:
    """The next batch; None when the other end is closed."""
    head = read_exactly(channel, 8)
    body = None if head is None else read_exactly(channel, struct.unpack("<Q", head)[0])
    if body is None:
        return None
    batch: list[Lease] = pickle.loads(body)
    return batch


def read_exactly(channel: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        got = channel.recv(min(READ_BYTES, size - len(data)))
        if not got:
            return None
        data += got
    return bytes(data)


def die_with_parent() -> None:
    """A parent that is killed takes its children along (Linux)."""
    import ctypes
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None:
        prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


def oom_kills() -> int | None:
    """How often the kernel has killed for want of memory; None: it does not say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as vmstat:
            return next((int(line.split()[1]) for line in vmstat if line.startswith("oom_kill ")), None)
    except OSError:
        return None


def killed_outside(status: int, oom_kills_before: int | None) -> bool:
    """SIGKILL is sent by the kernel for want of memory, which it counts, or by somebody's hand."""
    return (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            and oom_kills_before is not None and oom_kills() == oom_kills_before)


def cause(status: int, run: str) -> str:
    """How a child ended, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"killed by signal {number} ({signal.strsignal(number)})"
        by_kill = "; by hand, or by the kernel for want of memory" if number == signal.SIGKILL else ""
        return f"{how} in stage {run}{by_kill}"
    return f"exited with status {os.WEXITSTATUS(status)} in stage {run}"
