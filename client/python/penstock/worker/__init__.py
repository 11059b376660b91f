"""Stages of pipelines written in Python.

    worker = penstock.Worker("rules")

    @worker.stage("my.rule", version="1")
    def my_rule(job: penstock.StageJob) -> dict:
        job.progress(0.5, "half way")
        return {**job.input, "verdict": "fine"}

    worker.run()      # or: python3 -m penstock.worker FILE

The worker keeps the promises of the engine's own: it registers, beats from a thread of its own, runs
spans of its stages, tells each outcome until it is acknowledged, and drains on SIGTERM. A C extension
that holds the interpreter's lock for longer than the lease time stalls the beats, and a crash ends the
process; with processes=N stages run in child processes, and neither happens.
"""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, TypeVar

from ..endpoint import default_endpoint
from ..errors import Invalid
from ..wire import NAME_BYTES
from .executor import Executor, ProcessExecutor, ThreadExecutor, Wake
from .link import LEASES_MAX, Config, Link
from .log import Log
from .stage import Cancelled, Stage, StageError, StageJob

F = TypeVar("F", bound=Callable[[Any], Any])
PROCESSES_MAX = LEASES_MAX


class Worker:
    """Offers stages to a broker and runs them.

    `endpoint` is the broker's socket for workers (default: where `penstock up` puts it). `processes`:
    0 runs stages in a thread, N in so many child processes, which are forked from this one, so load
    what they share before run(). `credit` is how many leases are held at a time, `grace` how many
    seconds a stage may go on after its time is over before it is stopped by force.
    """

    def __init__(self, name: str = "python", endpoint: str | None = None, *, processes: int = 0,
                 credit: int | None = None, credit_bytes: int = 64 << 20,
                 models: Sequence[str] = (), grace: float = 5.0, log_level: str = "info",
                 log_format: str = "logfmt"):
        self.name, self.endpoint, self.processes = name, endpoint, processes
        self.credit, self.credit_bytes, self.models = credit, credit_bytes, tuple(models)
        self.grace, self.log_level, self.log_format = grace, log_level, log_format
        self.stages: dict[str, Stage] = {}
        self._wake = Wake()
        self._stops = 0

    def stage(self, run: str, *, version: str = "1", batch: int = 1,
              transient: tuple[type[BaseException], ...] = ()) -> Callable[[F], F]:
        """Registers a function as the stage program `run`, the name that pipelines give.

        It gets a StageJob and returns a dict. With batch=N it gets a list of at most N jobs, where
        the pipeline allows batches, and returns a list of as many dicts or exceptions. Exceptions
        of `transient` types, StageError(transient=True), MemoryError, ConnectionError and
        TimeoutError are tried again; others end the job. Results carry the version.
        """
        numerics_id = f"python:{run}/{version}"
        if not 1 <= len(run.encode()) <= NAME_BYTES or len(numerics_id.encode()) > 2 * NAME_BYTES:
            raise Invalid(f"a stage's name has 1 to {NAME_BYTES} bytes, and so has its version")
        if run in self.stages:
            raise Invalid(f"there are two stages named {run}")
        if not 1 <= batch <= LEASES_MAX:
            raise Invalid(f"a batch has 1 to {LEASES_MAX} jobs")

        def register(function: F) -> F:
            self.stages[run] = Stage(run, function, numerics_id, batch, transient)
            return function
        return register

    def run(self) -> int:
        """Runs stages until SIGTERM, Ctrl-C or stop(); returns the exit status.

        In the main thread it takes these signals; a second one ends the process at once.
        """
        link = self._link()
        before: list[tuple[signal.Signals, Any]] = []
        if threading.current_thread() is threading.main_thread():
            before = [(n, signal.signal(n, self._on_signal))
                      for n in (signal.SIGTERM, signal.SIGINT)]
            signal.set_wakeup_fd(self._wake.writing, warn_on_full_buffer=False)
        try:
            return link.run()
        finally:
            link.executor.close()
            if before:
                signal.set_wakeup_fd(-1)
            for number, handler in before:
                signal.signal(number, handler)

    def stop(self) -> None:
        """Drains, as SIGTERM does; any thread may call it."""
        self._stops += 1
        self._wake.ring()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stops:
            raise SystemExit(128 + number)
        self.stop()

    def _link(self) -> Link:
        if not self.stages:
            raise Invalid("this worker has no stages; register one with @worker.stage(\"name\")")
        if not 0 <= self.processes <= PROCESSES_MAX:
            raise Invalid(f"a worker has 0 to {PROCESSES_MAX} processes")
        widest = max(stage.batch for stage in self.stages.values())
        credit = self.credit or min(LEASES_MAX, 2 * widest * max(1, self.processes))
        if not 1 <= credit <= LEASES_MAX:
            raise Invalid(f"a worker holds 1 to {LEASES_MAX} leases")
        config = Config(self.name, self.endpoint or default_endpoint("workers"), credit,
                        self.credit_bytes, self.models, self.grace)
        executor: Executor
        if self.processes:
            executor = ProcessExecutor(self.stages, self.processes)
        else:
            executor = ThreadExecutor(self.stages)
        return Link(config, self.stages, executor, Log(self.log_level, form=self.log_format), self._wake,
                    stopping=lambda: self._stops > 0)


__all__ = ["Cancelled", "StageError", "StageJob", "Worker"]
