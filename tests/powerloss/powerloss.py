#!/usr/bin/python3
"""Lose power at many places of a recorded run, and ask each time for all that clients were told.

usage: powerloss.py [--cuts N] [--jobs N] [--seed N] [--only CUT] [--broker FOLDER]

A broker runs under tests/faults/record.c, which logs each write, flush, size and name of its store
and kills it now and then; clients and a worker give it jobs of every size and append to the same log
what they are told. tests/faults/replay.c then makes, for each cut, what a disk may hold at that
moment, opens it with the real store and asks. The last line is the total; the exit code is 1 when a
promise was broken. --broker names another folder with a penstock-broker, as one with a planted bug.
"""
import argparse
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time

import msgpack

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "system"), str(ROOT / "client" / "python")]

from real_broker import (ACCEPTED, CANCEL, CHAIN, EVENT, LEASE, LONG_S, REFUSED, REGISTER,  # noqa: E402
                         REGISTERED, REREGISTER, RESULT, STAGE_DONE, SUBMIT, WAIT, Broker, Client, Worker, echo)
from uploads import Upload  # noqa: E402

FAULTS = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build" / "bin")).parent / "faults"
RECORD_ACCEPTED, RECORD_ENDED = 10, 11
STORE = "/deep/in/store"
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # what is replayed need not be flushed
FLUSH_US = 1500
WINDOW = 24


class Log:
    """The clients' part of the record: one append for each answer, when it is heard."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.lock, self.seen = threading.Lock(), set()

    def append(self, kind, job, data):
        name = job.encode()
        with self.lock:
            if (kind, job) not in self.seen:
                self.seen.add((kind, job))
                os.write(self.fd, struct.pack("<IIQQ", kind, len(name), 0, len(data)) + name + data)


class Recorded(Broker):
    """A broker whose disk is recorded, and which dies after so many records."""

    def __init__(self, root, log, program, kill_after):
        self.environment = dict(os.environ, LD_PRELOAD=str(FAULTS / "record.so"), PENSTOCK_RECORD_LOG=str(log),
                                PENSTOCK_RECORD_ROOT=str(root / "disk"), PENSTOCK_RECORD_FLUSH_US=str(FLUSH_US))
        self.program, self.kill_after = program, kill_after
        super().__init__(root, echo(), CHAIN, extra=[
            "--dir", f"{root}/disk{STORE}", "--clients", f"ipc://{root}/clients", "--workers",
            f"ipc://{root}/workers", "--meta-cap", str(64 << 20), "--blob-cap", str(448 << 20),
            "--log-level", "error"])

    def start(self, *extra):
        self.command[0] = str(self.program)
        after = self.kill_after()
        self.environment.pop("PENSTOCK_RECORD_KILL", None)
        if after:
            self.environment["PENSTOCK_RECORD_KILL"] = str(after)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command + self.extra + list(extra), stderr=log,
                                            env=self.environment)


def random_bytes(rng):
    """Sizes around every edge: in the record, one chunk, several."""
    size = rng.choice((0, 20, 300, 900, 1000, 1100, 4000, 20000, 70000, 140000))
    return rng.randbytes(rng.randrange(size + 1)).hex()[:size]


class LoadWorker(threading.Thread):
    """Runs every lease; now and then it fails, or ends a stage with nothing."""

    def __init__(self, broker, seed):
        super().__init__(daemon=True)
        self.broker, self.rng, self.halt = broker, random.Random(seed), threading.Event()
        self.start()

    def run(self):
        with Worker(self.broker, "test.echo", "test.a", "test.b", "test.c", credit=16) as w:
            beaten = 0
            while not self.halt.is_set():
                got = w.receive(0.02)
                if time.monotonic() - beaten > 0.2:
                    w.beat()
                    beaten = time.monotonic()
                if got:
                    self.hear(w, *got)

    def hear(self, w, code, header, _payload):
        if code == REREGISTER:
            w.send(REGISTER, w.registration)
        elif code == REGISTERED:
            w.epoch = header["epoch"]
        elif code == LEASE:
            last = header["stage"] + len(header["plan"]) - 1
            for stage in range(header["stage"], last + 1):
                output = msgpack.packb({"by": header["attempt"], "pad": random_bytes(self.rng)})
                w.send(STAGE_DONE, {"job": header["job"], "stage": stage, "attempt": header["attempt"],
                                    "more": stage < last, "run_us": 1}, output)


class Load:
    """One client that keeps a window of requests open, over the broker's deaths."""

    def __init__(self, broker, log, rng, jobs, wait):
        self.broker, self.log, self.rng, self.jobs, self.wait = broker, log, rng, jobs, wait
        self.sent, self.open, self.client = 0, {}, None
        self.deaths = 0

    def submit(self):
        self.sent += 1
        payload = msgpack.packb({"texts": [f"{self.sent} " + random_bytes(self.rng)]})
        header = {"kind": "text.embed", "pipeline": self.rng.choice(("echo", "chain"))}
        if self.rng.random() < 0.5:
            header["key"] = f"key-{self.sent}"
        self.ask(SUBMIT, header, payload)

    def ask(self, code, header, payload=b""):
        req = self.client.send(code, header, *([payload] if payload else []))
        self.open[req] = (code, header, payload)

    def hear(self, code, header, payload):
        asked = self.open.pop(header.get("req"), None)
        if code == ACCEPTED and asked:
            self.log.append(RECORD_ACCEPTED, header["job"], asked[2])
            if self.wait:
                self.ask(WAIT, {"job": header["job"], "timeout_ms": 60000})
            if self.rng.random() < 0.05:
                self.ask(CANCEL, {"job": header["job"], "reason": "enough"})
        elif code == RESULT:
            self.log.append(RECORD_ENDED, header["job"], header["state"].encode() + b"\0" + payload)
        elif code == REFUSED and asked and header.get("retry_after_ms"):
            self.ask(*asked)
        else:
            assert code != REFUSED or asked[0] == CANCEL, header

    def begin_again(self):
        """The broker is dead: another one, and what has a key is asked again."""
        self.broker.process.wait()
        self.broker.start()
        self.deaths += 1
        self.connect()

    def connect(self):
        if self.client:
            self.client.socket.close()
        self.client, again, self.open = Client(self.broker), self.open, {}
        for code, header, payload in again.values():
            if code == WAIT or "key" in header:
                self.ask(code, header, payload)

    def upload(self):
        """A body that comes in chunks."""
        data = msgpack.packb({"texts": [self.rng.randbytes(300000).hex()]})
        with Client(self.broker) as client:
            job = Upload(client, data).begin().send().submit()["job"]
            self.log.append(RECORD_ACCEPTED, job, data)

    def run(self):
        self.connect()
        heard = time.monotonic()
        while self.sent < self.jobs or self.open:
            while self.sent < self.jobs and sum(code == SUBMIT for code, _, _ in self.open.values()) < WINDOW:
                self.submit()
            got = self.client.receive(0.05)
            if got:
                heard = time.monotonic()
                if got[0] != EVENT:
                    self.hear(*got)
            elif self.broker.process.poll() is not None:
                self.begin_again()
            assert time.monotonic() - heard < LONG_S, "the broker answers no more"
        self.client.socket.close()


def record(folder, program, seed, jobs, wait):
    """The log of one run."""
    rng, log = random.Random(seed), folder / "log.records"
    (folder / "disk").mkdir()
    broker = Recorded(folder, log, program, lambda: rng.randrange(30, 60 + jobs // 2) if wait else 0)
    load = Load(broker, Log(log), rng, jobs, wait)
    worker = LoadWorker(broker, seed) if wait else None
    load.run()
    if worker:
        broker.kill_after = lambda: 0
        broker.stop()
        broker.start()
        load.upload()
        worker.halt.set()
        worker.join(LONG_S)
    broker.stop()
    return log, load.deaths


def powerloss(a, folder):
    program = pathlib.Path(a.broker or os.environ["PENSTOCK_BIN"]) / "penstock-broker"
    log, deaths = record(folder, program, a.seed, a.jobs, not a.submit_only)
    with tempfile.TemporaryDirectory(prefix="penstock-", dir=MEMORY) as scratch:
        return replay(a, folder, log, deaths, scratch)


def replay(a, folder, log, deaths, scratch):
    command = [str(FAULTS / "replay"), str(log), str(folder / "disk"), STORE, scratch, str(a.seed),
               str(a.cuts)] + ([str(a.only)] if a.only is not None else [])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    *lines, total = done.stdout.splitlines() or [""]
    for line in lines[:a.lines]:
        print(line)
    print(f"powerloss: seed {a.seed}, {deaths} kills, {total}")
    return done.returncode


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    p.add_argument("--cuts", type=int, default=2000)
    p.add_argument("--jobs", type=int, default=1500)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--only", type=int, help="that cut alone")
    p.add_argument("--lines", type=int, default=40, help="findings shown at most")
    p.add_argument("--broker", help="a folder with a penstock-broker, for $PENSTOCK_BIN")
    p.add_argument("--submit-only", action="store_true", help="no worker: jobs are accepted and lie")
    return p.parse_args()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="penstock-") as made:
        sys.exit(powerloss(arguments(), pathlib.Path(made)))
