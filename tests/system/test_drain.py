"""Workers are replaced one by one under load: drained by name or by SIGTERM, nothing is lost, run twice
or charged with an attempt."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import penstock
import pytest
from real_broker import (CANCEL, DRAIN, EVENTS, GOODBYE, LEASE, LONG_S, QUIET, REREGISTER, WORKER_LIST, WORKERS,
                         Broker, Client, Worker, echo)

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
STAGES = pathlib.Path(__file__).with_name("python_stages.py")
SLEEP = """name: sleep
kind: text.embed
stages: [{name: a, run: test.sleep}, {name: b, run: test.echo}]
retry: {max: 3, backoff_ms: 20, backoff_max_ms: 100, deaths_max: 3}
timeout_ms: 20000
"""
LEDGER = SLEEP.replace("sleep\n", "ledger\n", 1).replace("test.sleep", "py.do").replace(
    ", {name: b, run: test.echo}", "")


class Process:
    """A worker process of either kind."""

    def __init__(self, broker, name, python=False):
        command = ([sys.executable, "-m", "penstock.worker", STAGES, "--endpoint"] if python else
                   [BIN / "penstock-worker", "--stages", "test.sleep,test.echo", "--connect"])
        self.process = subprocess.Popen([*command, broker.workers, "--name", name, "--credit", "8"])
        self.name = name

    def end(self):
        return self.process.wait(LONG_S)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(name="started")
def fixture_started():
    workers = []

    def start(*args, **kwargs):
        workers.append(Process(*args, **kwargs))
        return workers[-1]
    yield start
    for worker in workers:
        worker.close()


def until(client, condition):
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        rows = {row["name"]: row for row in client.workers()}
        if condition(rows):
            return
        time.sleep(0.02)
    raise AssertionError(rows)


def drain(broker, name):
    return subprocess.run([BIN / "penstock", "worker", "drain", name, "--endpoint", broker.clients],
                          capture_output=True, text=True, timeout=60, check=False)


def runs_once(broker, jobs):
    """Each is done, no attempt failed, and every lease but the one that counts came back unrun."""
    with penstock.Client(broker.clients) as client:
        assert all(result.done for result in client.gather(jobs, 3 * LONG_S))
        for job in jobs:
            shown = client.show(job)
            assert shown["attempts"] == [] and shown["deaths"] == 0, shown
    with Client(broker) as c:
        for job in jobs:
            what = history(c, job)
            assert what.count("leased") == what.count("returned") + 1, what


def history(client, job):
    req = client.send(EVENTS, {"job": str(job), "from": 0, "follow": False})
    what = []
    while True:
        _, header, _ = client.answer(req)
        what.append(header.get("data", {}).get("what"))
        if header.get("last"):
            return what


def submit(client, pipeline, n, **wish):
    body = {"texts": [json.dumps(wish)], **wish}
    return [client.submit("text.embed", body, pipeline=pipeline) for _ in range(n)]


def test_two_workers_are_drained_by_name_one_by_one_under_load(tmp_path, started):
    with Broker(tmp_path, SLEEP) as b, penstock.Client(b.clients) as client:
        one, two = started(b, "one"), started(b, "two")
        until(client, lambda rows: len(rows) == 2)
        jobs = submit(client, "sleep", 60, ms=30)
        until(client, lambda rows: rows["one"]["leases"] and rows["two"]["leases"])
        done = drain(b, "one")
        assert done.returncode == 0 and "one is draining" in done.stdout, done
        assert one.end() == 0
        until(client, lambda rows: set(rows) == {"two"})
        jobs += submit(client, "sleep", 30, ms=30)
        three = started(b, "three")
        until(client, lambda rows: "three" in rows)
        assert drain(b, "two").returncode == 0
        assert two.end() == 0
        runs_once(b, jobs)
        assert three.process.poll() is None


def test_stages_in_python_are_drained_by_name_too(tmp_path, started):
    ledger = tmp_path / "ledger"
    with Broker(tmp_path, LEDGER) as b, penstock.Client(b.clients) as client:
        one, two = started(b, "one", python=True), started(b, "two", python=True)
        until(client, lambda rows: len(rows) == 2)
        jobs = submit(client, "ledger", 40, sleep=0.03, log=str(ledger))
        until(client, lambda rows: rows["one"]["leases"] and rows["two"]["leases"])
        assert client.drain("one")["state"] == "draining"
        assert one.end() == 0
        runs_once(b, jobs)
        client.drain("two")
        assert two.end() == 0
    ran = [line.split()[0] for line in ledger.read_text().splitlines()]
    assert sorted(ran) == sorted(str(job) for job in jobs), "each began once"


def test_sigterm_crosses_a_lease_and_nobody_is_charged(tmp_path, started):
    """A lease that is on its way while an idle worker leaves comes back; it is no death."""
    with Broker(tmp_path, SLEEP) as b, penstock.Client(b.clients) as client:
        started(b, "stays")
        until(client, lambda rows: len(rows) == 1)
        jobs = []
        for i in range(6):
            leaver = started(b, f"leaves-{i}")
            until(client, lambda rows, name=leaver.name: name in rows)
            jobs += submit(client, "sleep", 20, ms=1)
            leaver.process.send_signal(signal.SIGTERM)
            jobs += submit(client, "sleep", 20, ms=1)
            assert leaver.end() == 0
        runs_once(b, jobs)


def test_a_quiet_worker_gets_no_lease_and_is_told_with_every_beat(tmp_path):
    with Broker(tmp_path) as b, Client(b) as c, Worker(b, name="fake") as w:
        running = c.submit()
        lease, _ = w.lease()
        wish = c.send(DRAIN, {"worker": "fake"})
        assert w.expect(QUIET)[0]["session"] == w.session
        waiting = c.submit()
        w.beat()
        w.expect(QUIET)  # the first may have been lost
        w.register()     # and a new registration changes nothing
        assert w.nothing(LEASE)
        assert c.stats()["workers_draining"] == 1
        w.send(GOODBYE, {"session": w.session})
        code, header, _ = c.answer(wish)
        assert code == WORKER_LIST
        assert [(row["name"], row["state"]) for row in header["workers"]] == [("fake", "draining")]
        end = time.monotonic() + LONG_S
        while c.ask(WORKERS, {})[1]["workers"]:
            assert time.monotonic() < end, "it is not forgotten"
            time.sleep(0.02)
        with Worker(b, name="fake") as other:  # the wish was for the session that was there
            for _ in range(2):
                again, _ = other.lease()
                other.done(again)
        assert c.wait(running)[0]["state"] == c.wait(waiting)[0]["state"] == "done"
        assert lease["job"] == running


def test_a_wish_that_dies_with_the_broker_was_not_answered(tmp_path):
    """The worker did not hear of it; whoever asked sees no answer and asks again."""
    with Broker(tmp_path) as b, Worker(b, name="fake") as w:
        with Client(b) as c:
            assert c.ask(DRAIN, {"worker": "fake"}, timeout_s=0.7) is None
        b.kill()
        b.start()
        w.expect(REREGISTER)
        w.register()
        with Client(b) as c:
            job = c.submit()
            w.done(w.lease()[0])
            assert c.wait(job)[0]["state"] == "done", "nobody drains it"
            wish = c.send(DRAIN, {"worker": "fake"})
            w.expect(QUIET)
            w.send(GOODBYE, {"session": w.session})
            assert c.answer(wish)[0] == WORKER_LIST


def test_a_wish_is_answered_too_when_the_worker_is_lost(tmp_path):
    with Broker(tmp_path, lease_ms=1000) as b, Client(b) as c:
        w = Worker(b, name="fake")
        wish = c.send(DRAIN, {"worker": "fake"})
        w.socket.close()
        assert c.answer(wish)[0] == WORKER_LIST


def test_a_name_that_is_nobodys_or_that_of_two_is_said(tmp_path):
    with Broker(tmp_path, echo()) as b, Client(b) as c, Worker(b, name="twin") as w, \
            Worker(b, name="twin"):
        assert c.refused(DRAIN, {"worker": "nobody"})["code"] == "unknown_worker"
        refusal = c.refused(DRAIN, {"worker": "twin"})
        assert refusal["code"] == "ambiguous" and "session" in refusal["fix"]
        done = drain(b, "twin")
        assert done.returncode == 1 and "2 workers are named twin" in done.stderr
        assert c.ask(DRAIN, {"worker": w.session})[0] == WORKER_LIST
        assert w.expect(QUIET)


def test_a_drain_survives_a_cancel_of_what_the_worker_runs(tmp_path, started):
    with Broker(tmp_path, SLEEP) as b, penstock.Client(b.clients) as client, Client(b) as c:
        one = started(b, "one")
        job, = submit(client, "sleep", 1, ms=60000)
        until(client, lambda rows: rows.get("one", {}).get("leases"))
        client.drain("one")
        assert one.process.poll() is None, "it ends what it runs"
        assert c.ask(CANCEL, {"job": str(job)})[1]["state"] == "cancelled"
        assert one.end() == 0
