#!/usr/bin/python3
"""Let the N-th write, flush, allocation, message or send of a broker fail, for many N.

usage: countdown.py [--kinds write,flush,malloc,message,send] [--cases N] [--seed N] [--only KIND:N:ERRNO]

A small load with a ledger runs against a broker under tests/faults/countdown.c. Whatever the fault,
the broker goes on, or ends with a message and a status that is not 0; a broker without a fault then
starts on the same store and knows every job that was accepted and every result that was told, and
the store's check is clean. A fault of the disk or of the network is no reason to end, and after it
everything is accepted again. The last line is the total; the exit code is 1 when a promise was broken.
"""
import argparse
import errno
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

import msgpack

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / d) for d in ("system", "powerloss")] + [str(ROOT / "client" / "python")]

from powerloss import FAULTS, LoadWorker  # noqa: E402
from real_broker import (ACCEPTED, CHAIN, PING, REFUSED, RESULT, SUBMIT, TERMINAL, WAIT, Broker,  # noqa: E402
                         Client, echo)

KINDS = {"write": (errno.ENOSPC, errno.EIO, 0), "flush": (errno.EIO,), "malloc": (errno.ENOMEM,),
         "message": (errno.EAGAIN, errno.EHOSTUNREACH), "send": (errno.ECONNRESET, errno.EPIPE)}
JOBS = 6
PATIENCE_S = 30


class Broken(Exception):
    """A promise was."""


class Faulty(Broker):
    """A broker that may end at any time, also before it answers."""

    def __init__(self, root, fault):
        self.fault_log, self.fault = root / "faults", fault
        super().__init__(root, echo(), CHAIN, extra=["--log-level", "error"])

    def start(self):
        env = dict(os.environ, LD_PRELOAD=str(FAULTS / "countdown.so"), PENSTOCK_FAULT_LOG=str(self.fault_log),
                   PENSTOCK_FAULT_ROOT=str(self.dir / "store"), PENSTOCK_FAULT=self.fault)
        self.fault = ""  # of the first start alone
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command + self.extra + ["--dir", str(self.dir / "store"), "--clients", self.clients,
                                             "--workers", self.workers], stderr=log, env=env)

    def alive(self):
        return self.process.poll() is None


def texts(number):
    """Bodies in the record and beside it, by number alone."""
    return msgpack.packb({"texts": [f"{number} " + "x" * (20, 900, 3000, 150000)[number % 4]]})


class Load:
    """One client, which asks again and again: what it was told."""

    def __init__(self, broker):
        self.broker, self.jobs, self.ended, self.worker = broker, {}, {}, None

    def ask(self, code, header, *payload):
        """The answer, or None when the broker has died."""
        end = time.monotonic() + PATIENCE_S
        with Client(self.broker) as client:
            while self.broker.alive():
                got = client.ask(code, header, *payload, timeout_s=0.7)
                if got and not (got[0] == REFUSED and got[1].get("retry_after_ms")):
                    return got
                if got:
                    time.sleep(min(0.1, got[1]["retry_after_ms"] / 1000))
                if time.monotonic() > end:
                    raise Broken(f"no answer to {code:#x} in {PATIENCE_S} s, but {got}")
        return None

    def is_up(self):
        """Whether it lives until it answers; then there is a worker too."""
        if self.ask(PING, {}) is None:
            return False
        self.worker = self.worker or LoadWorker(self.broker, 1)
        return True

    def run(self):
        if not self.is_up():
            return
        for n in range(JOBS):
            header = {"kind": "text.embed", "pipeline": ("echo", "chain")[n % 2], "key": f"key-{n}"}
            if not (got := self.ask(SUBMIT, header, texts(n))):
                return
            if got[0] == ACCEPTED:
                self.jobs[n] = got[1]["job"]
            elif got[1]["code"] != "memory":
                raise Broken(f"job {n} was refused: {got[1]}")
        for n, job in list(self.jobs.items()):
            if not (got := self.ask(WAIT, {"job": job, "timeout_ms": 500})):
                return
            if got[0] == RESULT:
                self.ended[n] = (got[1]["state"], got[2])

    def check(self):
        """The same to a broker without a fault: all that was told is so, and all comes to its end."""
        if not self.is_up():
            raise Broken("the broker without a fault does not start")
        got = self.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, texts(JOBS))
        if not got or got[0] != ACCEPTED:
            raise Broken(f"the broker without a fault accepts nothing: {got}")
        self.jobs[JOBS] = got[1]["job"]
        for n, job in self.jobs.items():
            end = time.monotonic() + PATIENCE_S
            while (got := self.ask(WAIT, {"job": job, "timeout_ms": 2000})) and got[0] != RESULT:
                if got[0] == REFUSED:
                    raise Broken(f"job {n} was accepted and is lost: {got[1]}")
                if time.monotonic() > end:
                    raise Broken(f"job {n} does not end: {got[1]}")
            if not got or got[1]["state"] not in TERMINAL:
                raise Broken(f"job {n} has no end: {got}")
            if n in self.ended and self.ended[n] != (got[1]["state"], got[2]):
                raise Broken(f"job {n} was told to be {self.ended[n][0]} and is {got[1]['state']}")


def may_end(broker, kind):
    """An end is a status and a line; and only memory, or a store that cannot be opened, is a reason."""
    status, said = broker.process.returncode, broker.log.read_text(errors="replace")
    if status == 0 or not said.strip():
        raise Broken(f"it ended with status {status} and said {said.strip()[-300:]!r}")
    if status == -signal.SIGSEGV or (kind in ("message", "send") and status != 0):
        raise Broken(f"it ended with status {status}: {said.strip()[-600:]}")


def case(folder, kind, fault):
    """('held' | 'ended' | 'unreached', what a failure says)"""
    broker = Faulty(folder, fault)
    load = Load(broker)
    try:
        load.run()
        alive = broker.alive()
        if alive and len(load.jobs) < JOBS and kind != "malloc":
            raise Broken(f"{len(load.jobs)} of {JOBS} jobs were accepted")
        if alive:
            broker.process.send_signal(signal.SIGTERM)
            broker.process.wait(PATIENCE_S)
        if broker.process.returncode != 0:
            may_end(broker, kind)
        said = broker.fault_log.read_text() if broker.fault_log.exists() else ""
        broker.start()
        load.check()
        broker.process.send_signal(signal.SIGTERM)
        if broker.process.wait(PATIENCE_S) != 0:
            raise Broken("the broker without a fault does not stop")
        check_store(broker)
        return "unreached" if "fault" not in said else "held" if alive else "ended"
    finally:
        if load.worker:
            load.worker.halt.set()
            load.worker.join(PATIENCE_S)
        if broker.alive():
            broker.kill()


def check_store(broker):
    done = subprocess.run([broker.command[0], "store", "check", "--dir", str(broker.dir / "store")],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Broken(f"store check: {done.stdout}{done.stderr}")


def calls(folder):
    """How many calls of each kind a run without a fault makes."""
    case(folder, "malloc", "")
    line = (folder / "faults").read_text().splitlines()[0]
    return {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", line)}


def plan(a, counts):
    """(kind, fault) for each case: the first calls of a kind one by one, then evenly through a run."""
    if a.only:
        return [(a.only.split(":")[0], a.only)]
    rng, cases = random.Random(a.seed), []
    for kind in a.kinds.split(","):
        last = max(counts[kind], 1)
        chosen = range(1, last + 1) if last <= a.cases else sorted(
            {1 + i * last // a.cases + rng.randrange(max(1, last // a.cases)) for i in range(a.cases)})
        cases += [(kind, f"{kind}:{n}:{rng.choice(KINDS[kind])}") for n in chosen]
    return cases


def countdown(a, scratch):
    counts = calls(new_folder(scratch, 0))
    ends, broken = {kind: {} for kind in KINDS}, 0
    for number, (kind, fault) in enumerate(plan(a, counts), 1):
        folder = new_folder(scratch, number)
        try:
            end = case(folder, kind, fault)
        except (Broken, AssertionError) as error:
            end, broken = "broken", broken + 1
            print(f"  {fault}: {error}", flush=True)
        ends[kind][end] = ends[kind].get(end, 0) + 1
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    parts = [f"{kind} " + ", ".join(f"{n} {end}" for end, n in sorted(counted.items()))
             for kind, counted in ends.items() if counted]
    print(f"countdown: seed {a.seed}, {sum(sum(c.values()) for c in ends.values())} faults of "
          f"{' '.join(f'{k} {n}' for k, n in counts.items())} calls: {'; '.join(parts)}; "
          f"{broken} broken promises")
    return 1 if broken else 0


def new_folder(scratch, number):
    folder = scratch / str(number)
    folder.mkdir()
    return folder


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    p.add_argument("--kinds", default=",".join(KINDS))
    p.add_argument("--cases", type=int, default=100, help="of each kind")
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--only", help="one fault alone")
    return p.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="penstock-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as made:
        sys.exit(countdown(arguments(), pathlib.Path(made)))
