"""The client for asyncio: it carries out what core.py says, without blocking the loop."""
from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

import zmq
import zmq.asyncio

from . import flows
from .client import JOB_S, _Dicts, submission
from .core import Core, Op, Receive, Reconnect, Send, Sleep, Steps
from .ended import EndedFlow
from .endpoint import connect, default_endpoint, load_keys
from .errors import Error
from .types import (Accepted, Ended, Event, Job, JobLike, Pong, Progress, Result, Retry, Submission,
                    TextPiece)

T = TypeVar("T")
V = TypeVar("V")
LEFT_S = 1.0  # a stream whose reader was cancelled is kept for so long, in case it comes back


class AsyncClient:
    """The verbs of Client, awaited. Use it in one event loop; any number of calls at a time.

    A cancelled await leaves nothing behind: the broker is told that nobody listens, and an answer
    that comes later is dropped. A job that was submitted stays submitted.
    """

    def __init__(self, endpoint: str | None = None, timeout: float = 5.0,
                 retry: Retry | None = None, key: str | None = None,
                 server_key: str | None = None):
        self._keys = load_keys(key, server_key)
        self._core = Core(endpoint or default_endpoint(), timeout, retry)
        self._context = zmq.asyncio.Context()
        self._tasks: list[asyncio.Task[None]] = []
        self._monitor: zmq.asyncio.Socket | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def endpoint(self) -> str:
        return self._core.endpoint

    @property
    def timeout(self) -> float:
        return self._core.timeout

    async def close(self) -> None:
        """Closes the connection; what was accepted goes on."""
        self._bid_farewell()
        self._closed = True
        tasks = self._tasks
        self._disconnect()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._context.closed:
            self._context.term()

    async def __aenter__(self) -> AsyncClient:
        self._connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()

    # ---- jobs ----

    @overload
    async def submit(self, kind: Submission[V], body: None = None, *, pipeline: str | None = None,
                     key: str | None = None, priority: int | None = None,
                     delay: float | None = None, ttl: float | None = None, seed: int | None = None,
                     timeout: float | None = None, source: str | None = None, retry: Retry | None = None,
                     progress: Progress | None = None) -> Accepted[V]: ...

    @overload
    async def submit(self, kind: str, body: Mapping[str, Any], *, pipeline: str | None = None,
                     key: str | None = None, priority: int | None = None,
                     delay: float | None = None, ttl: float | None = None, seed: int | None = None,
                     timeout: float | None = None, source: str | None = None, retry: Retry | None = None,
                     progress: Progress | None = None) -> Accepted[Any]: ...

    async def submit(self, kind: Any, body: Any = None, *, timeout: float | None = None,
                     retry: Retry | None = None,
                     progress: Progress | None = None, **options: Any) -> Accepted[Any]:
        """Submit a job; when this returns it is on disk. With a key it may be repeated. A body of more
        than 1 MiB is uploaded first: `progress` is called with the bytes on disk and of the whole."""
        return await self._run(self._core.submit(submission(kind, body, options), timeout, retry,
                                                 progress))

    async def submit_many(self, jobs: Iterable[Submission[V]], *, timeout: float | None = 60.0,
                          retry: Retry | None = None) -> list[Accepted[V]]:
        """Submit many jobs, many at a time; raises SomeRefused when not all were taken."""
        return await self._run(flows.submit_many(self._core, jobs, timeout, retry))

    @overload
    async def wait(self, job: Accepted[V], timeout: float | None = JOB_S) -> Result[V]: ...

    @overload
    async def wait(self, job: JobLike, timeout: float | None = JOB_S) -> Result[Any]: ...

    async def wait(self, job: JobLike, timeout: float | None = JOB_S) -> Result[Any]:
        """Wait until a job is terminal; raises Timeout when it is not in time."""
        return await self._run(self._core.wait(job, timeout))

    def as_completed(self, jobs: Iterable[JobLike],
                     timeout: float | None = JOB_S) -> AsyncStream[Result[Any]]:
        """The results of many jobs as they end."""
        return AsyncStream(self, flows.CompletedFlow(self._core, jobs, timeout))

    @overload
    async def gather(self, jobs: Iterable[Accepted[V]],
                     timeout: float | None = JOB_S) -> list[Result[V]]: ...

    @overload
    async def gather(self, jobs: Iterable[JobLike],
                     timeout: float | None = JOB_S) -> list[Result[Any]]: ...

    async def gather(self, jobs: Iterable[JobLike],
                     timeout: float | None = JOB_S) -> list[Result[Any]]:
        """The results of many jobs, in the order of the jobs."""
        return await self._run(flows.gather(self._core, jobs, timeout))

    @overload
    async def run(self, kind: Submission[V], body: None = None, *, timeout: float | None = JOB_S,
                  pipeline: str | None = None, key: str | None = None, priority: int | None = None,
                  delay: float | None = None, ttl: float | None = None, seed: int | None = None,
                  source: str | None = None, retry: Retry | None = None) -> V: ...

    @overload
    async def run(self, kind: str, body: Mapping[str, Any], *, timeout: float | None = JOB_S,
                  pipeline: str | None = None, key: str | None = None, priority: int | None = None,
                  delay: float | None = None, ttl: float | None = None, seed: int | None = None,
                  source: str | None = None, retry: Retry | None = None) -> Any: ...

    async def run(self, kind: Any, body: Any = None, *, timeout: float | None = JOB_S,
                  retry: Retry | None = None, **options: Any) -> Any:
        """Submit, wait, and return the result's value; raises JobNotDone when it is not done."""
        return await self._run(self._core.run(submission(kind, body, options), timeout, retry))

    async def result(self, job: JobLike, timeout: float | None = None) -> Result[Any]:
        """How a job ended, or where it stands, at once."""
        return await self._run(self._core.result(job, timeout))

    async def cancel(self, job: JobLike, reason: str | None = None,
                     timeout: float | None = None) -> str:
        """Cancel a job that is not terminal; returns its state after that."""
        return await self._run(self._core.cancel(job, reason, timeout))

    def events(self, job: JobLike, timeout: float | None = JOB_S) -> AsyncStream[Event]:
        """The events of a job until its last one."""
        return AsyncStream(self, flows.EventFlow(self._core, job, timeout))

    def ended(self, after: int | None = None, *, kind: str | None = None,
               pipeline: str | None = None, results: bool = True, follow: bool = True,
               timeout: float | None = None) -> AsyncStream[Ended]:
        """Jobs as they end, behind an offset (0: all that are kept; None: from now on). It goes on
        over broken connections and restarts; without `follow` it is over where that is now."""
        return AsyncStream(self, EndedFlow(self._core, after, kind, pipeline, results, follow, timeout))

    def stream_text(self, job: JobLike | Submission[Any],
                    timeout: float | None = JOB_S) -> AsyncStream[TextPiece]:
        """The text that a job generates, as it is written; a submission is submitted first."""
        return AsyncStream(self, flows.TextFlow(self._core, job, timeout))

    # ---- looking ----

    async def show(self, job: JobLike, timeout: float | None = None) -> dict[str, Any]:
        """Everything known of a job."""
        return await self._run(self._core.show(job, timeout))

    def list(self, *, state: str | None = None, kind: str | None = None,
             limit: int | None = None) -> AsyncStream[Job]:
        """Jobs, the newest first; asks for further pages as it goes."""
        return AsyncStream(self, flows.RowFlow(self._core, state, kind, limit))

    async def workers(self, timeout: float | None = None) -> _Dicts:
        """The workers that are registered."""
        return await self._run(self._core.workers(timeout))

    async def queues(self, timeout: float | None = None) -> _Dicts:
        """What stands at each stage of each pipeline; takes the right admin."""
        return await self._run(self._core.queues(timeout))

    async def drain(self, worker: str, timeout: float | None = None) -> dict[str, Any]:
        """Let the worker of this name (or session) finish what it runs and leave."""
        return await self._run(self._core.drain(worker, timeout))

    async def status(self, timeout: float | None = None) -> dict[str, Any]:
        """Counts and gauges of the broker."""
        return await self._run(self._core.status(timeout))

    async def ping(self, timeout: float | None = None) -> Pong:
        """Ask whether the broker is there."""
        return await self._run(self._core.ping(timeout))

    # ---- the connection ----

    async def _run(self, steps: Steps[T]) -> T:
        try:
            op = next(steps)
            while True:
                op = steps.send(await self._do(op))
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            steps.close()
            self._bid_farewell()

    async def _do(self, op: Op) -> object:
        if isinstance(op, Send):
            return await self._send(op)
        if isinstance(op, Receive):
            return await self._receive(op)
        if isinstance(op, Sleep):
            await asyncio.sleep(op.seconds)
        elif isinstance(op, Reconnect) and op.generation == self._core.generation:
            self._disconnect()
            self._connect()
            self._core.connected_anew()
        return None

    async def _send(self, op: Send) -> bool:
        while True:
            socket = self._connect()
            await self._hear()  # now: it is not the end of the connection that follows
            try:
                await socket.send_multipart(op.frames, zmq.DONTWAIT)
                return True
            except zmq.Again:
                left = op.until - time.monotonic()
                if left <= 0:
                    return False
                # Not for long: meanwhile another call may have made a new connection.
                await socket.poll(min(200, 1 + int(left * 1000)), zmq.POLLOUT)

    async def _receive(self, op: Receive) -> object:
        if not op.box.ready:
            here = asyncio.Event()
            op.box.wake = here.set
            try:
                await asyncio.wait_for(here.wait(), max(0.0, op.until - time.monotonic()))
            except asyncio.TimeoutError:
                pass
            finally:
                op.box.wake = None
        return op.box.take()

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            self._core.deliver(await socket.recv_multipart())

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        try:
            while True:
                await monitor.poll()
                await self._hear()
        finally:
            monitor.close()

    async def _hear(self) -> None:
        """Whether the connection broke: ZeroMQ makes another, which knows of no question."""
        if self._monitor is None or self._socket is None:
            return
        with contextlib.suppress(zmq.Again):
            while True:
                await self._monitor.recv_multipart(zmq.DONTWAIT)
                with contextlib.suppress(zmq.Again):  # what came before it broke counts
                    while True:
                        self._core.deliver(await self._socket.recv_multipart(zmq.DONTWAIT))
                self._core.connected_anew()

    def _connect(self) -> zmq.asyncio.Socket:
        if self._closed:
            raise Error("this client is closed")
        if self._socket is None:
            self._loop = asyncio.get_running_loop()
            socket = connect(self._context.socket(zmq.DEALER), self.endpoint, self._keys)
            monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._socket, self._monitor = socket, monitor
            self._tasks = [self._loop.create_task(self._read(socket)),
                           self._loop.create_task(self._watch(monitor))]
        return self._socket

    def _disconnect(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close()
        self._tasks, self._socket, self._monitor = [], None, None

    def _bid_farewell(self) -> None:
        while self._socket is not None and self._core.farewells:
            sent = self._socket.send_multipart(self._core.farewells.popleft(), zmq.DONTWAIT)
            if isinstance(sent, asyncio.Future) and sent.done() and sent.exception() is not None:
                return  # it is not there: then nobody keeps anything for us either

    def _abandoned(self) -> None:
        """A stream was dropped, perhaps in another thread by the garbage collector."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._bid_farewell)


class AsyncStream(Generic[T]):
    """What comes, for `async for`; close it, or use it with `async with`, to end it before its end."""

    def __init__(self, client: AsyncClient, flow: flows.Flow[T]):
        self._client, self._flow = client, flow
        self._left: asyncio.TimerHandle | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        if self._left is not None:
            self._left.cancel()
        try:
            item = await self._client._run(self._flow.next())
        except asyncio.CancelledError:
            self._left = asyncio.get_running_loop().call_later(LEFT_S, self._pause)
            raise
        if item is None:
            await self.aclose()
            raise StopAsyncIteration
        return item

    def _pause(self) -> None:
        """Its reader was cancelled and has not come back: the broker need not go on."""
        self._flow.pause()
        self._client._bid_farewell()

    async def aclose(self) -> None:
        self._flow.close()
        self._client._bid_farewell()

    async def __aenter__(self) -> AsyncStream[T]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._flow.close()
        self._client._abandoned()
