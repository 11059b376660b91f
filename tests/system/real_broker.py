"""A broker of one's own for a test, and clients and workers that speak the wire by hand.

Nothing here uses the project's client library: messages are built from schemas/README.md with pyzmq
and msgpack alone, so that they can be wrong on purpose. Run as a program it is a worker process that
can be killed: real_broker.py ENDPOINT RUN[,RUN...] LEDGER
"""
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import uuid

import msgpack
import zmq

SUBMIT, WAIT, RESULT_GET, SHOW, CANCEL, EVENTS, EVENTS_STOP = 1, 2, 3, 4, 5, 6, 7
LIST, WORKERS, PING, STATUS = 8, 9, 10, 11
SUBMIT_MANY, ACCEPTED_MANY = 0x10, 0x50
QUEUES, QUEUE_LIST = 0x20, 0x60
SUBSCRIBE, ENDED, STREAM = 0x21, 0x61, 0x62
REQUEUE, DROP, DROPPED = 0x11, 0x12, 0x51
DRAIN, QUIET = 0x1A, 0xC7
ACCEPTED, REFUSED, RESULT, STATE, JOB, EVENT = 0x41, 0x42, 0x43, 0x44, 0x45, 0x46
JOBS, WORKER_LIST, PONG, STATS = 0x47, 0x48, 0x49, 0x4A
REGISTER, HEARTBEAT, PROGRESS, STAGE_DONE, STAGE_FAILED = 0x81, 0x82, 0x83, 0x84, 0x85
RETURN, GOODBYE = 0x86, 0x87
REGISTERED, REREGISTER, HEARTBEAT_ACK, LEASE, STAGE_ACK, CANCEL_LEASE = 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6
TERMINAL = ("done", "failed", "cancelled", "expired")
LONG_S = 20  # nothing here takes this long unless something is broken

ECHO = """name: {name}
kind: text.embed
stages:
  - {{name: only, run: test.echo}}
retry: {{max: {tries}, backoff_ms: 20, backoff_max_ms: 100, deaths_max: {deaths}}}
timeout_ms: {timeout_ms}
queue_max: {queue_max}
"""
CHAIN = """name: chain
kind: text.embed
stages:
  - {name: a, run: test.a, checkpoint: true}
  - {name: b, run: test.b}
  - {name: c, run: test.c}
retry: {max: 3, backoff_ms: 20, backoff_max_ms: 100, deaths_max: 16}
timeout_ms: 20000
"""


def echo(name="echo", tries=3, deaths=3, timeout_ms=20000, queue_max=100000):
    return ECHO.format(name=name, tries=tries, deaths=deaths, timeout_ms=timeout_ms,
                       queue_max=queue_max)


def tag(code, major=1):
    return b"PS" + bytes((major, code))


def frames(code, header, *payload):
    return [tag(code), msgpack.packb(header), *payload]


def body(text="hello"):
    return msgpack.packb({"texts": [text]})


def dealer(broker):
    """A socket towards this broker; broker.key, where there is one, is (public, secret, server)."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    if key := getattr(broker, "key", None):
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = key
    return socket


class Broker:
    """A penstock-broker on a directory of its own; kill(), stop() and start() as often as wanted."""

    def __init__(self, root, *pipelines, lease_ms=2000, heartbeat_ms=300, extra=()):
        self.dir = pathlib.Path(root)
        (self.dir / "pipelines").mkdir(exist_ok=True)
        for i, text in enumerate(pipelines or (echo(),)):
            (self.dir / "pipelines" / f"p{i}.yaml").write_text(text)
        self.clients, self.workers = f"ipc://{self.dir}/clients", f"ipc://{self.dir}/workers"
        self.command = [os.path.join(os.environ["PENSTOCK_BIN"], "penstock-broker"),
                        "--dir", str(self.dir), "--pipelines", str(self.dir / "pipelines"),
                        "--lease-ms", str(lease_ms), "--heartbeat-ms", str(heartbeat_ms)]
        self.extra = list(extra)
        self.log = self.dir / "log"
        self.start()

    def start(self, *extra):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command + self.extra + list(extra), stderr=log)
        with Client(self) as c:
            deadline = time.monotonic() + LONG_S
            while c.ask(PING, {}, timeout_s=0.2) is None:
                assert self.process.poll() is None, self.log.read_text()[-2000:]
                assert time.monotonic() < deadline, "the broker does not answer"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG_S)

    def close(self):
        """The end of a test: whatever it did, the broker still stops cleanly."""
        if self.process.poll() is None:
            assert self.stop() == 0, self.log.read_text()[-2000:]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
        else:
            self.close()


class Client:
    """One client connection. ask() sends and returns (code, header, payload) of the answer."""

    def __init__(self, broker):
        self.socket = dealer(broker)
        self.socket.rcvhwm = self.socket.sndhwm = 100000
        self.socket.connect(broker.clients)
        self.req = 0
        self.early = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, code, header, *payload):
        self.req += 1
        self.socket.send_multipart(frames(code, dict(header, req=self.req), *payload))
        return self.req

    def raw(self, *parts):
        self.socket.send_multipart(list(parts))

    def receive(self, timeout_s=LONG_S):
        if self.early:
            return self.early.pop(0)
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        parts = self.socket.recv_multipart()
        return parts[0][3], msgpack.unpackb(parts[1]), b"".join(parts[2:])

    def answer(self, req, timeout_s=LONG_S):
        """The answer to one request; answers to others that come first are kept for receive()."""
        other, deadline = [], time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            got = self.receive(left)
            if got is None or got[1].get("req") == req:
                break
            other.append(got)
        else:
            got = None
        self.early = other + self.early
        return got

    def ask(self, code, header, *payload, timeout_s=LONG_S):
        return self.answer(self.send(code, header, *payload), timeout_s)

    def submit(self, payload=None, **fields):
        """The id of an accepted job."""
        header = dict({"kind": "text.embed", "pipeline": "echo"}, **fields)
        code, h, _ = self.ask(SUBMIT, header, payload or body())
        assert code == ACCEPTED, h
        return h["job"]

    def refused(self, code, header, *payload):
        """The header of the refusal that this request must get."""
        got, h, _ = self.ask(code, header, *payload)
        assert got == REFUSED, (got, h)
        assert h["message"]
        return h

    def wait(self, job, timeout_s=LONG_S):
        """(header, result) of a terminal job."""
        code, h, payload = self.ask(WAIT, {"job": job, "timeout_ms": int(timeout_s * 1000)},
                                    timeout_s=timeout_s + 5)
        assert code == RESULT, h
        return h, msgpack.unpackb(payload) if payload else None

    def show(self, job):
        code, h, _ = self.ask(SHOW, {"job": job})
        assert code == JOB, h
        return h["job"]

    def state(self, job):
        return self.show(job)["state"]

    def until(self, job, *states):
        """Polls until the job is in one of these states; returns what SHOW says of it."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            shown = self.show(job)
            if shown["state"] in states:
                return shown
            time.sleep(0.01)
        raise AssertionError(f"{job} is {shown['state']}, not {' or '.join(states)}")

    def stats(self):
        return self.ask(STATUS, {})[1]["stats"]


class Worker:
    """A worker's connection driven by the test itself: lease() gets work, done() and fail() end it."""

    def __init__(self, broker, *runs, credit=8, models=(), name="fake", **fields):
        self.session, self.runs = uuid.uuid4().hex[:16], list(runs or ("test.echo",))
        self.registration = dict(session=self.session, name=name, runs=self.runs,
                                 models=list(models), credit_jobs=credit, **fields)
        self.socket = dealer(broker)
        self.socket.connect(broker.workers)
        self.epoch, self.seen = None, []
        self.register()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, code, header, *payload):
        self.socket.send_multipart(frames(code, header, *payload))

    def register(self):
        self.send(REGISTER, self.registration)
        self.epoch = self.expect(REGISTERED)[0]["epoch"]

    def beat(self):
        self.send(HEARTBEAT, {"session": self.session, "epoch": self.epoch})

    def receive(self, timeout_s):
        if not self.socket.poll(int(timeout_s * 1000)):
            return None
        parts = self.socket.recv_multipart()
        return parts[0][3], msgpack.unpackb(parts[1]), parts[2:]

    def expect(self, *codes, timeout_s=LONG_S):
        """The next message with one of these codes as (header, payload[, code]); beats meanwhile."""
        for i, (code, h, p) in enumerate(self.seen):
            if code in codes:
                del self.seen[i]
                return (h, p) if len(codes) == 1 else (h, p, code)
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            got = self.receive(min(left, 0.2))
            if got is None:
                if self.epoch is not None:
                    self.beat()
                elif REGISTERED in codes:
                    self.send(REGISTER, self.registration)
                continue
            code, h, p = got
            if code in codes:
                return (h, p) if len(codes) == 1 else (h, p, code)
            if code != HEARTBEAT_ACK:
                self.seen.append(got)
        raise AssertionError(f"none of {[hex(c) for c in codes]} came; instead "
                             f"{[(hex(c), h) for c, h, _ in self.seen]}")

    def leave(self):
        """Says goodbye, and waits until the broker has forgotten it: what is submitted next is not
        leased to somebody who is gone. It must hold no lease."""
        self.send(GOODBYE, {"session": self.session})
        try:
            self.expect(REREGISTER, timeout_s=3)  # the answer to a heartbeat of nobody
        except AssertionError:
            pass  # there is no broker

    def nothing(self, code, for_s=0.3):
        """Whether no such message comes for a while."""
        try:
            self.expect(code, timeout_s=for_s)
        except AssertionError:
            return True
        return False

    def lease(self, timeout_s=LONG_S):
        return self.expect(LEASE, timeout_s=timeout_s)

    def done(self, lease, output=None, ack=True, **fields):
        """Ends the span's last stage with this output; returns the verdict."""
        last = lease["stage"] + len(lease["plan"]) - 1
        header = dict({"job": lease["job"], "stage": last, "attempt": lease["attempt"], "run_us": 5},
                      **fields)
        payload = output if output is not None else msgpack.packb({"by": lease["attempt"]})
        self.send(STAGE_DONE, header, *(payload if isinstance(payload, list) else [payload]))
        return self.expect(STAGE_ACK)[0]["verdict"] if ack else None

    def fail(self, lease, error_class="transient", reason="it broke"):
        self.send(STAGE_FAILED, {"job": lease["job"], "stage": lease["stage"],
                                 "attempt": lease["attempt"], "error_class": error_class,
                                 "reason": reason})
        return self.expect(STAGE_ACK)[0]["verdict"]


class EchoWorker(threading.Thread):
    """A worker in a thread of its own that answers every lease until it is stopped."""

    def __init__(self, broker, *runs, **fields):
        super().__init__(daemon=True)
        self.broker, self.runs, self.fields = broker, runs, fields
        self.halt = threading.Event()
        self.start()

    def run(self):
        with Worker(self.broker, *self.runs, **self.fields) as w:
            serve(w, lambda: self.halt.is_set())
            w.leave()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.halt.set()
        self.join(LONG_S)


def serve(worker, over, ledger=None, pause_s=0.0):
    """Runs every lease stage by stage; each output names the attempt and wraps its input's digest."""
    beaten = time.monotonic()
    while not over():
        got = worker.receive(0.05)
        if time.monotonic() - beaten > 0.2:
            worker.beat()
            beaten = time.monotonic()
        if got is None:
            continue
        code, h, payload = got
        if code == REREGISTER:
            worker.send(REGISTER, worker.registration)
        elif code == REGISTERED:
            worker.epoch = h["epoch"]
        elif code == STAGE_ACK and ledger:
            ledger.write(f"{h['job']} {h['stage']} {h['attempt']} {h['verdict']}\n")
        elif code == LEASE:
            run_span(worker, h, payload, pause_s)


def run_span(worker, lease, payload, pause_s):
    data = b"".join(payload[1:]) if lease["stage"] else payload[0]
    for i, stage in enumerate(lease["plan"]):
        if pause_s:
            time.sleep(pause_s)
        path = msgpack.unpackb(data).get("path", []) if lease["stage"] + i else []
        data = msgpack.packb({"path": path + [stage["run"]], "by": lease["attempt"]})
        more = i + 1 < len(lease["plan"])
        worker.send(STAGE_DONE, {"job": lease["job"], "stage": lease["stage"] + i,
                                 "attempt": lease["attempt"], "more": more, "run_us": 1}, data)


def main():
    endpoint, runs, ledger = sys.argv[1:]

    class There:
        workers = endpoint
    parent = os.getppid()
    with open(ledger, "a", buffering=1, encoding="ascii") as out, \
            Worker(There, *runs.split(","), name=f"fake-{os.getpid()}") as w:
        serve(w, lambda: os.getppid() != parent, out, pause_s=0.002)


if __name__ == "__main__":
    main()
