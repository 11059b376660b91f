"""Stages in Python under the promises of the engine's own worker: against a real broker, and against
one that the test plays."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import msgpack
import penstock
import pytest
from penstock.worker.executor import oom_kills
from real_broker import LONG_S, Broker
from scripted_broker import FakeBroker

STAGES = pathlib.Path(__file__).with_name("python_stages.py")
PIPELINE = """name: {name}
kind: text.embed
stages: [{stages}]
retry: {{max: 3, backoff_ms: 20, backoff_max_ms: 100, deaths_max: {deaths}}}
timeout_ms: {timeout_ms}
"""
MODES = pytest.mark.parametrize("processes", [0, 2])


def pipeline(name, *runs, deaths=3, timeout_ms=20000, more=""):
    stages = ", ".join(f"{{name: s{i}, run: {run}{more}}}" for i, run in enumerate(runs))
    return PIPELINE.format(name=name, stages=stages, deaths=deaths, timeout_ms=timeout_ms)


PIPELINES = (pipeline("do", "py.do"), pipeline("two", "py.do", "py.next"),
             pipeline("once", "py.do", deaths=1), pipeline("short", "py.do", timeout_ms=500),
             pipeline("batch", "py.batch", more=", batch: {max: 8, delay_ms: 2}"))


class Worker:
    """A worker process on python_stages.py."""

    def __init__(self, endpoint, *args):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "penstock.worker", str(STAGES), "--endpoint", endpoint, *args],
            stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            sys.stderr.write(line)

    def said(self, event):
        """Waits until it has logged this event; returns the line."""
        end = time.monotonic() + LONG_S
        while time.monotonic() < end:
            for line in self.lines:
                if f"event={event} " in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"it has not said {event}: {self.lines}")

    def drain(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(LONG_S)
        self.reader.join(5)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(5)
        self.process.stderr.close()


@pytest.fixture(scope="module", name="broker")
def fixture_broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("pyw"), *PIPELINES, lease_ms=1500, heartbeat_ms=200) as b:
        yield b


@pytest.fixture(name="client")
def fixture_client(broker):
    with penstock.Client(broker.clients) as c:
        yield c


def submit(client, pipeline="do", **wish):
    return client.submit("text.embed", {"texts": [json.dumps(wish)]}, pipeline=pipeline)


def begun(ledger, n):
    """The ledger's lines (job, attempt, pid), once there are n."""
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        lines = [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
        if len(lines) >= n and len(lines[-1]) == 3:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"{n} attempts were not begun, but {lines}")


def runs(pid):
    """Whether a process is there that has not ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@MODES
def test_stages_run_and_fail_by_the_kind_of_their_exceptions(broker, client, tmp_path, processes):
    with Worker(broker.workers, "--processes", str(processes)) as w:
        result = client.wait(submit(client, hello="world"), LONG_S)
        assert result.unwrap()["did"] == {"hello": "world"} and result.value["input"] is None
        assert result.numerics_id == "python:py.do/7"
        assert (result.value["pid"] == w.process.pid) == (processes == 0)

        failed = client.wait(submit(client, permanent="no such part"), LONG_S)
        assert (failed.error_class, failed.reason) == ("permanent", "no such part")
        failed = client.wait(submit(client, divide=1), LONG_S)
        assert failed.error_class == "permanent"
        assert "py.do: ZeroDivisionError" in failed.reason and "python_stages.py:" in failed.reason
        for odd, words in (("object", "msgpack"), ([1], "list; it has to return a dict")):
            assert words in client.wait(submit(client, **{"return": odd}), LONG_S).reason

        for kind in "transient", "refused":
            job = submit(client, once=str(tmp_path / kind), **{kind: "try again"})
            assert client.wait(job, LONG_S).done
            attempts = client.show(job)["attempts"]
            assert len(attempts) == 1 and "try again" in attempts[0]["reason"]
        job = submit(client, transient="always")
        result = client.wait(job, LONG_S)
        assert (result.state, result.error_class) == ("failed", "transient")
        assert w.drain() == 0


@MODES
def test_a_span_of_two_stages_and_a_large_output(broker, client, processes):
    with Worker(broker.workers, "--processes", str(processes)) as w:
        job = submit(client, "two", big=5_000_000)
        assert client.wait(job, LONG_S).unwrap() == {"after": {"big": 5_000_000},
                                                     "bytes": 5_000_000, "stage": 1}
        big = client.wait(submit(client, big=9_000_000), LONG_S)
        assert len(big.unwrap()["big"]) == 9_000_000
        too_big = client.wait(submit(client, big=17_000_000), LONG_S)
        assert too_big.error_class == "permanent" and "at most 16777216" in too_big.reason
        assert w.drain() == 0


@MODES
def test_progress_is_seen_and_a_cancel_is_honoured(broker, client, processes):
    with Worker(broker.workers, "--processes", str(processes)) as w:
        w.said("worker_registered")
        job = submit(client, steps=3, sleep=60)
        seen = []
        for event in client.events(job, timeout=LONG_S):
            if event.type == "progress":
                seen.append((event.data["done"], event.data["total"], event.data["text"]))
                if event.data["done"] == 3:
                    assert client.cancel(job, "enough") == "cancelled"
        assert seen[-1] == (3, 3, "step 3") and seen == sorted(seen)
        assert client.wait(job, LONG_S).reason == "enough"
        assert client.wait(submit(client), LONG_S).done  # the stage has let go
        assert w.drain() == 0


@MODES
def test_a_stage_may_block_for_three_times_the_lease(broker, client, processes):
    with Worker(broker.workers, "--processes", str(processes)) as w:
        job = submit(client, block=4.5)
        assert client.wait(job, LONG_S).done
        shown = client.show(job)
        assert shown["attempts"] == [] and shown["deaths"] == 0
        assert "worker_reregisters" not in "".join(w.lines)


@MODES
def test_sigterm_ends_what_runs_and_gives_back_the_rest(broker, client, tmp_path, processes):
    ledger = tmp_path / "ledger"
    with Worker(broker.workers, "--processes", str(processes), "--credit", "6") as w:
        jobs = [submit(client, sleep=0.5, log=str(ledger), n=i) for i in range(6)]
        begun(ledger, 1)
        assert w.drain() == 0
    ran = {line[0] for line in begun(ledger, 1)}
    assert 1 <= len(ran) <= 2
    states = {job.job: client.result(job).state for job in jobs}
    assert all(states[job] == "done" for job in ran)
    assert all(states[job] == "ready" for job in states if job not in ran)
    assert all(client.show(job)["attempts"] == [] for job in jobs), "a return is no attempt"
    with Worker(broker.workers):
        assert all(result.done for result in client.gather(jobs, LONG_S))


@MODES
def test_a_job_of_a_killed_worker_is_leased_again_and_ends_once(broker, client, tmp_path, processes):
    """The ledger shows who began it, the broker who ended it."""
    ledger = tmp_path / "ledger"
    with Worker(broker.workers, "--processes", str(processes)) as first:
        job = submit(client, log=str(ledger), sleep=1.5)
        runner = int(begun(ledger, 1)[0][2])
        assert (runner == first.process.pid) == (processes == 0)
        first.process.kill()
    with Worker(broker.workers, "--processes", str(processes)) as second:
        lines = begun(ledger, 2)
        assert not runs(runner), "its children went with it"
        result = client.wait(job, LONG_S)
        shown = client.show(job)
        assert second.drain() == 0
    assert [line[0] for line in lines] == [job.job] * 2 and lines[0][1] != lines[1][1]
    assert result.done and result.attempt == int(lines[1][1])
    assert shown["deaths"] == 1 and [a["outcome"] for a in shown["attempts"]] == ["worker_died"]
    assert len(begun(ledger, 2)) == 2


def test_a_stage_that_crashes_in_a_child_is_reported_with_its_signal(broker, client, tmp_path):
    with Worker(broker.workers, "--processes", "2") as w:
        session = re.search(r"session=(\w+)", w.said("worker_registered"))[1]
        bystander = submit(client, sleep=1)
        job = submit(client, "once", signal=int(signal.SIGSEGV))
        result = client.wait(job, LONG_S)
        assert (result.state, result.error_class) == ("failed", "worker_died")
        assert "killed by signal 11 (Segmentation fault) in stage py.do" in result.reason
        exited = client.wait(submit(client, "once", exit=3), LONG_S)
        assert "exited with status 3 in stage py.do" in exited.reason
        again = submit(client, signal=int(signal.SIGABRT), once=str(tmp_path / "once"))
        assert client.wait(again, LONG_S).done and client.show(again)["deaths"] == 1
        assert client.wait(bystander, LONG_S).done
        assert client.show(bystander)["attempts"] == []
        assert session in [row["session"] for row in client.workers()]
        assert "worker_reregisters" not in "".join(w.lines)
        assert w.drain() == 0


def test_a_job_whose_child_is_killed_from_outside_is_blamed_the_second_time(broker, client, tmp_path):
    before, ledger = oom_kills(), tmp_path / "ledger"
    with Worker(broker.workers, "--processes", "1") as w:
        job = submit(client, log=str(ledger), sleep=3)
        for deaths in (1, 2):
            os.kill(int(begun(ledger, deaths)[deaths - 1][2]), signal.SIGKILL)
        result = client.wait(job, LONG_S)
        assert result.done and len(begun(ledger, 3)) == 3
        assert w.drain() == 0
    if before is None or oom_kills() != before:
        pytest.skip("whether the kernel killed for want of memory is not to be seen here")
    assert client.show(job)["deaths"] == 1, "the first was somebody's hand"


@MODES
def test_a_stage_over_its_time_is_told_and_stopped(broker, client, processes):
    with Worker(broker.workers, "--processes", str(processes)) as w:
        job = submit(client, "short", sleep=60)
        result = client.wait(job, LONG_S)
        assert (result.state, result.error_class) == ("failed", "timeout")
        assert "longer than its timeout of 500 ms" in result.reason
        assert client.wait(submit(client), LONG_S).done
        assert w.drain() == 0


@MODES
def test_jobs_of_one_plan_run_in_batches(broker, client, processes):
    jobs = [submit(client, "batch", **({"bad": 1} if i == 5 else {})) for i in range(24)]
    with Worker(broker.workers, "--processes", str(processes), "--credit", "32"):
        results = client.gather(jobs, LONG_S)
    assert [result.done for result in results] == [i != 5 for i in range(24)]
    assert "ValueError: a bad one" in results[5].reason
    assert max(result.value["batch"] for result in results if result.done) == 8


def test_an_outcome_survives_the_brokers_death(tmp_path):
    """The broker dies while a stage runs; the job still ends exactly once."""
    ledger = tmp_path / "ledger"
    with Broker(tmp_path, *PIPELINES, lease_ms=1500, heartbeat_ms=200) as b, \
            penstock.Client(b.clients) as client, Worker(b.workers) as w:
        w.said("worker_registered")
        job = submit(client, sleep=1, log=str(ledger))
        begun(ledger, 1)
        b.kill()
        time.sleep(1.5)  # the stage ends while nobody listens
        b.start()
        result = client.wait(job, timeout=60)
        assert result.unwrap()["did"]["sleep"] == 1
        assert client.wait(submit(client), timeout=60).done
        assert w.drain() == 0
        attempts = [int(line[1]) for line in begun(ledger, 1)]
        assert result.attempt in attempts and len(set(attempts)) == len(attempts)


# ---- against a broker that the test plays ----

@pytest.fixture(name="played")
def fixture_played(tmp_path):
    broker = FakeBroker(tmp_path / "w")
    yield broker
    broker.close()


def body(**wish):
    return {"texts": [json.dumps(wish)]}


def test_it_registers_with_what_it_offers_and_beats(played):
    with Worker(played.endpoint, "--name", "mine", "--credit", "9") as w:
        message = played.register()
        assert message["runs"] == ["py.batch", "py.deaf", "py.do", "py.next"]
        assert (message["name"], message["credit_jobs"], message["pid"]) == ("mine", 9, w.process.pid)
        played.nothing(0.5)
        assert len(played.beats) >= 3


def test_an_outcome_is_sent_until_it_is_acknowledged(played):
    played.lease_ms, played.acknowledge = 300, False
    with Worker(played.endpoint) as w:
        played.register()
        job, attempt = played.lease(["py.do"], body(a=1))
        first, second = played.expect("STAGE_DONE"), played.expect("STAGE_DONE")
        assert first.header == second.header and first.document() == second.document()
        played.restart()
        while (message := played.expect("REGISTER", "STAGE_DONE")).name != "REGISTER":
            pass
        played.registered(message)
        third = played.expect("STAGE_DONE")
        assert (third["job"], third["attempt"]) == (job, attempt)
        played.acknowledge = True
        played.ack(third)
        while (message := played.receive(0.8)):
            assert message.header == third.header, "what was on its way"
            played.ack(message)
        w.process.send_signal(signal.SIGTERM)
        assert played.expect("GOODBYE") and w.process.wait(LONG_S) == 0


def test_drain_returns_what_waits_and_a_cancel_is_not_answered(played):
    with Worker(played.endpoint, "--credit", "3") as w:
        played.register()
        running, _ = played.lease(["py.do"], body(sleep=60))
        waiting, _ = played.lease(["py.do"], body())
        cancelled, attempt = played.lease(["py.do"], body())
        played.send("CANCEL_LEASE", {"job": cancelled, "attempt": attempt})
        played.nothing(0.3)
        w.process.send_signal(signal.SIGTERM)
        seen = {played.expect("GOODBYE", "RETURN").name for _ in range(2)}
        assert seen == {"GOODBYE", "RETURN"}
        assert [m["job"] for m in played.seen if m.name == "RETURN"] == [waiting]
        late, _ = played.lease(["py.do"], body())
        assert played.expect("RETURN")["job"] == late
        played.send("CANCEL_LEASE", {"job": running, "attempt": 1})
        assert w.process.wait(LONG_S) == 0
        assert not [m for m in played.seen if m.name in ("STAGE_DONE", "STAGE_FAILED")]


def test_leases_that_it_cannot_run_are_answered(played):
    with Worker(played.endpoint):
        played.register()
        played.lease(["py.nothing"], body())
        failed = played.expect("STAGE_FAILED")
        assert failed["error_class"] == "transient" and "py.nothing" in failed["reason"]
        played.send("LEASE", {"job": "0000000000009", "plan": 5, "attempt": 1}, [b"\xc1"])
        played.lease(["py.next"], body(), first=1,
                     inputs=[msgpack.packb({"did": 1, "big": "xyz"})])
        assert played.expect("STAGE_DONE").document() == {"after": 1, "bytes": 3, "stage": 1}


def test_reregister_drops_all_leases(played):
    with Worker(played.endpoint):
        played.register()
        played.lease(["py.do"], body(sleep=0.5))
        played.lease(["py.do"], body())
        session = played.session
        played.send("REREGISTER", {"reason": "who are you"})
        assert played.register()["session"] == session
        played.nothing(1.0)
        played.lease(["py.do"], body(n=3))
        assert played.expect("STAGE_DONE").document()["did"] == {"n": 3}


@MODES
def test_a_deaf_stage_is_stopped_by_force(played, tmp_path, processes):
    """In a child only the child ends; in a thread the worker has to."""
    text = STAGES.read_text().replace('Worker("tested")', 'Worker("tested", grace=0.2)')
    with Worker(played.endpoint) as w:
        w.drain()
    (tmp_path / "quick.py").write_text(text)
    process = subprocess.Popen([sys.executable, "-m", "penstock.worker", str(tmp_path / "quick.py"),
                                "--endpoint", played.endpoint, "--processes", str(processes)])
    try:
        played.register()
        played.lease(["py.deaf"], body(block=60), timeout_ms=200)
        failed = played.expect("STAGE_FAILED")
        assert failed["error_class"] == "timeout"
        if processes:
            played.lease(["py.do"], body(n=1))
            assert played.expect("STAGE_DONE").document()["did"] == {"n": 1}
            process.terminate()
            played.expect("GOODBYE")
            assert process.wait(LONG_S) == 0
        else:
            played.expect("GOODBYE")
            assert process.wait(LONG_S) == 1
    finally:
        process.kill()
        process.wait()


def test_wrong_use_is_told():
    with pytest.raises(penstock.Invalid, match="two stages"):
        worker = penstock.Worker()
        worker.stage("a")(lambda job: {})
        worker.stage("a")
    with pytest.raises(penstock.Invalid, match="no stages"):
        penstock.Worker().run()
    for args, words in ((["nothing-here.py"], "nothing-here.py"), ([os.devnull], "0 workers"),
                        ([str(STAGES), "--credit", "65"], "1 to 64"),
                        ([str(STAGES), "--endpoint", "nowhere"], "not an endpoint")):
        done = subprocess.run([sys.executable, "-m", "penstock.worker", *args], capture_output=True,
                              text=True, timeout=LONG_S, check=False)
        assert done.returncode in (1, 2) and words in done.stderr, done
