"""The client that blocks: it carries out what core.py says, on one socket."""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import zmq

from . import flows
from .core import Core, Op, Receive, Reconnect, Send, Sleep, Steps
from .ended import EndedFlow
from .endpoint import connect, default_endpoint, load_keys
from .errors import Error
from .types import (Accepted, Ended, Event, Job, JobLike, Pong, Progress, Result, Retry, Submission,
                    TextPiece)

T = TypeVar("T")
V = TypeVar("V")
JOB_S = 900.0  # how long calls wait for the end of a job unless told otherwise


class Client:
    """A connection to a broker.

    Times are seconds. `timeout` is how long calls wait for what a broker answers at once; those that
    wait for the end of a job have their own, 15 minutes unless given; None waits for ever. `retry`
    says what to do about a refusal that may pass.

    Threads: a client is for one thread at a time; give each thread its own. Several streams of one
    client may be under way at a time, and other calls between their items.
    """

    def __init__(self, endpoint: str | None = None, timeout: float = 5.0,
                 retry: Retry | None = None, key: str | None = None,
                 server_key: str | None = None):
        self._keys = load_keys(key, server_key)
        self._core = Core(endpoint or default_endpoint(), timeout, retry)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        try:
            self._connect()
        except Error:
            self._context.term()
            raise

    @property
    def endpoint(self) -> str:
        return self._core.endpoint

    @property
    def timeout(self) -> float:
        return self._core.timeout

    def close(self) -> None:
        """Closes the connection; what was accepted goes on."""
        if self._socket is not None:
            self._bid_farewell()
            self._disconnect()
            self._context.term()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # ---- jobs ----

    @overload
    def submit(self, kind: Submission[V], body: None = None, *, pipeline: str | None = None,
               key: str | None = None, priority: int | None = None, delay: float | None = None,
               ttl: float | None = None, seed: int | None = None, timeout: float | None = None,
               source: str | None = None, retry: Retry | None = None,
               progress: Progress | None = None) -> Accepted[V]: ...

    @overload
    def submit(self, kind: str, body: Mapping[str, Any], *, pipeline: str | None = None,
               key: str | None = None, priority: int | None = None, delay: float | None = None,
               ttl: float | None = None, seed: int | None = None, timeout: float | None = None,
               source: str | None = None, retry: Retry | None = None,
               progress: Progress | None = None) -> Accepted[Any]: ...

    def submit(self, kind: Any, body: Any = None, *, timeout: float | None = None,
               retry: Retry | None = None,
               progress: Progress | None = None, **options: Any) -> Accepted[Any]:
        """Submit a job; when this returns it is on disk. With a key it may be repeated. A body of more
        than 1 MiB is uploaded first: `progress` is called with the bytes on disk and of the whole."""
        return self._run(self._core.submit(submission(kind, body, options), timeout, retry, progress))

    def submit_many(self, jobs: Iterable[Submission[V]], *, timeout: float | None = 60.0,
                    retry: Retry | None = None) -> list[Accepted[V]]:
        """Submit many jobs, many at a time; raises SomeRefused when not all were taken."""
        return self._run(flows.submit_many(self._core, jobs, timeout, retry))

    @overload
    def wait(self, job: Accepted[V], timeout: float | None = JOB_S) -> Result[V]: ...

    @overload
    def wait(self, job: JobLike, timeout: float | None = JOB_S) -> Result[Any]: ...

    def wait(self, job: JobLike, timeout: float | None = JOB_S) -> Result[Any]:
        """Wait until a job is terminal; raises Timeout when it is not in time."""
        return self._run(self._core.wait(job, timeout))

    def as_completed(self, jobs: Iterable[JobLike],
                     timeout: float | None = JOB_S) -> Stream[Result[Any]]:
        """The results of many jobs as they end."""
        return Stream(self, flows.CompletedFlow(self._core, jobs, timeout))

    @overload
    def gather(self, jobs: Iterable[Accepted[V]],
               timeout: float | None = JOB_S) -> list[Result[V]]: ...

    @overload
    def gather(self, jobs: Iterable[JobLike],
               timeout: float | None = JOB_S) -> list[Result[Any]]: ...

    def gather(self, jobs: Iterable[JobLike], timeout: float | None = JOB_S) -> list[Result[Any]]:
        """The results of many jobs, in the order of the jobs."""
        return self._run(flows.gather(self._core, jobs, timeout))

    @overload
    def run(self, kind: Submission[V], body: None = None, *, timeout: float | None = JOB_S,
            pipeline: str | None = None, key: str | None = None, priority: int | None = None,
            delay: float | None = None, ttl: float | None = None, seed: int | None = None,
            source: str | None = None, retry: Retry | None = None) -> V: ...

    @overload
    def run(self, kind: str, body: Mapping[str, Any], *, timeout: float | None = JOB_S,
            pipeline: str | None = None, key: str | None = None, priority: int | None = None,
            delay: float | None = None, ttl: float | None = None, seed: int | None = None,
            source: str | None = None, retry: Retry | None = None) -> Any: ...

    def run(self, kind: Any, body: Any = None, *, timeout: float | None = JOB_S,
            retry: Retry | None = None, **options: Any) -> Any:
        """Submit, wait, and return the result's value; raises JobNotDone when it is not done."""
        return self._run(self._core.run(submission(kind, body, options), timeout, retry))

    def result(self, job: JobLike, timeout: float | None = None) -> Result[Any]:
        """How a job ended, or where it stands, at once."""
        return self._run(self._core.result(job, timeout))

    def cancel(self, job: JobLike, reason: str | None = None, timeout: float | None = None) -> str:
        """Cancel a job that is not terminal; returns its state after that."""
        return self._run(self._core.cancel(job, reason, timeout))

    def events(self, job: JobLike, timeout: float | None = JOB_S) -> Stream[Event]:
        """The events of a job until its last one."""
        return Stream(self, flows.EventFlow(self._core, job, timeout))

    def ended(self, after: int | None = None, *, kind: str | None = None,
               pipeline: str | None = None, results: bool = True, follow: bool = True,
               timeout: float | None = None) -> Stream[Ended]:
        """Jobs as they end, behind an offset (0: all that are kept; None: from now on). It goes on
        over broken connections and restarts; without `follow` it is over where that is now."""
        return Stream(self, EndedFlow(self._core, after, kind, pipeline, results, follow, timeout))

    def stream_text(self, job: JobLike | Submission[Any],
                    timeout: float | None = JOB_S) -> Stream[TextPiece]:
        """The text that a job generates, as it is written; a submission is submitted first."""
        return Stream(self, flows.TextFlow(self._core, job, timeout))

    # ---- looking ----

    def show(self, job: JobLike, timeout: float | None = None) -> dict[str, Any]:
        """Everything known of a job."""
        return self._run(self._core.show(job, timeout))

    def list(self, *, state: str | None = None, kind: str | None = None,
             limit: int | None = None) -> Stream[Job]:
        """Jobs, the newest first; asks for further pages as it goes."""
        return Stream(self, flows.RowFlow(self._core, state, kind, limit))

    def workers(self, timeout: float | None = None) -> _Dicts:
        """The workers that are registered."""
        return self._run(self._core.workers(timeout))

    def queues(self, timeout: float | None = None) -> _Dicts:
        """What stands at each stage of each pipeline; takes the right admin."""
        return self._run(self._core.queues(timeout))

    def drain(self, worker: str, timeout: float | None = None) -> dict[str, Any]:
        """Let the worker of this name (or session) finish what it runs and leave."""
        return self._run(self._core.drain(worker, timeout))

    def status(self, timeout: float | None = None) -> dict[str, Any]:
        """Counts and gauges of the broker."""
        return self._run(self._core.status(timeout))

    def ping(self, timeout: float | None = None) -> Pong:
        """Ask whether the broker is there."""
        return self._run(self._core.ping(timeout))

    # ---- the connection ----

    def _run(self, steps: Steps[T]) -> T:
        try:
            op = next(steps)
            while True:
                op = steps.send(self._do(op))
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            steps.close()
            self._bid_farewell()

    def _do(self, op: Op) -> object:
        if self._socket is None:
            raise Error("this client is closed")
        if isinstance(op, Send):
            return self._send(self._socket, op)
        if isinstance(op, Receive):
            return self._receive(self._socket, op)
        if isinstance(op, Sleep):
            time.sleep(op.seconds)
        elif isinstance(op, Reconnect) and op.generation == self._core.generation:
            self._disconnect()
            self._connect()
            self._core.connected_anew()
        return None

    def _connect(self) -> None:
        socket = self._context.socket(zmq.DEALER)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        try:
            self._socket = connect(socket, self.endpoint, self._keys)
        except Error:
            self._monitor.close()
            raise

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._monitor.close()
            self._socket.close()
        self._socket = None

    def _hear(self) -> None:
        """Whether the connection broke: ZeroMQ makes another, which knows of no question."""
        while self._monitor.poll(0):
            self._monitor.recv_multipart(zmq.DONTWAIT)
            self._core.connected_anew()

    def _send(self, socket: zmq.Socket[bytes], op: Send) -> bool:
        while True:
            self._hear()  # now, so that it is not taken for the end of the connection that follows
            try:
                socket.send_multipart(op.frames, zmq.DONTWAIT)
                return True
            except zmq.Again:
                left = op.until - time.monotonic()
                if left <= 0:
                    return False
                socket.poll(1 + int(left * 1000), zmq.POLLOUT)

    def _receive(self, socket: zmq.Socket[bytes], op: Receive) -> object:
        while not op.box.ready:
            left = op.until - time.monotonic()
            ready = dict(self._poller.poll(1 + int(left * 1000) if left > 0 else 0))
            if socket in ready:
                self._core.deliver(socket.recv_multipart(zmq.DONTWAIT))
            elif ready:
                self._hear()
            elif left <= 0:
                return None
        return op.box.take()

    def _bid_farewell(self) -> None:
        while self._socket is not None and self._core.farewells:
            try:
                self._socket.send_multipart(self._core.farewells.popleft(), zmq.DONTWAIT)
            except zmq.ZMQError:
                return  # it is not there: then nobody keeps anything for us either


_Dicts = list[dict[str, Any]]  # Client.list hides the name


class Stream(Generic[T]):
    """An iterator over what comes; close it, or use it with `with`, to end it before its end."""

    def __init__(self, client: Client, flow: flows.Flow[T]):
        self._client, self._flow = client, flow

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._client._run(self._flow.next())
        if item is None:
            self.close()
            raise StopIteration
        return item

    def close(self) -> None:
        self._flow.close()
        self._client._bid_farewell()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self._flow.close()


def submission(kind: str | Submission[V], body: Mapping[str, Any] | None,
               options: dict[str, Any]) -> Submission[V]:
    """What the arguments of submit() and run() stand for."""
    if isinstance(kind, str):
        return Submission[V](kind, body or {}).having(**options)
    return kind.having(**options)
