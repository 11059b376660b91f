"""The worker process against a broker that the test plays: leases, crashes, drain, reconnection."""
import os
import pathlib
import signal
import subprocess
import time

import msgpack
import pytest
from penstock.worker.executor import oom_kills

from scripted_broker import FakeBroker

WORKER = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock-worker"
STAGES = "test.echo,test.sleep,test.crash,test.fail"


class Worker:
    def __init__(self, broker, *args):
        self.process = subprocess.Popen([WORKER, "--connect", broker.endpoint, "--stages", STAGES,
                                         "--name", "tested", *args])

    def child(self):
        """The pid of the process that computes; the started one only keeps it."""
        pid = self.process.pid
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return int(text.split()[0])

    def end(self, timeout_s=20):
        return self.process.wait(timeout_s)


@pytest.fixture
def broker(tmp_path):
    b = FakeBroker(tmp_path / "w")
    yield b
    b.close()


@pytest.fixture
def start(broker):
    started = []

    def run(*args):
        started.append(Worker(broker, *args))
        return started[-1]

    yield run
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


def test_it_registers_with_what_it_offers(broker, start):
    worker = start("--credit", "9")
    message = broker.register()
    assert sorted(message["runs"]) == sorted(STAGES.split(","))
    assert message["name"] == "tested"
    assert message["credit_jobs"] == 9
    assert message["pid"] == worker.child()
    assert len(message["session"]) == 32


def test_all_offers_what_can_run_here_and_no_test_stage(broker):
    process = subprocess.Popen([WORKER, "--connect", broker.endpoint], stderr=subprocess.DEVNULL)
    try:
        runs = broker.register()["runs"]
        assert "post.embed" in runs
        assert not [run for run in runs if run.startswith(("test.", "infer."))], "no model is here"
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_recipes_names_a_folder_that_is_there():
    done = subprocess.run([WORKER, "--connect", "ipc:///nowhere/w", "--recipes", "/nowhere"],
                          stderr=subprocess.PIPE, timeout=30, check=False)
    assert done.returncode == 2 and b"--recipes /nowhere" in done.stderr


def test_a_named_stage_that_cannot_open_ends_the_worker_with_the_reason(broker):
    run = subprocess.run([WORKER, "--connect", broker.endpoint, "--stages", "infer.embed"],
                         stderr=subprocess.PIPE, timeout=30, check=False)
    assert run.returncode == 1
    assert b"infer.embed needs a model" in run.stderr and b"--models" in run.stderr
    assert broker.receive(0.2) is None


def test_wrong_usage_is_told_with_the_choices():
    for args, words in ((["--stages", "infer.nothing"], [b"infer.nothing", b"infer.embed"]),
                        (["--threads", "many"], [b"many"]),
                        (["--credit", "65"], [b"1 to 64"]),
                        (["--connect", "tcp://10.1.2.3:5"], []),
                        (["nonsense"], [b"nonsense"])):
        run = subprocess.run([WORKER, *args], stderr=subprocess.PIPE, timeout=30, check=False)
        assert run.returncode in (1, 2), (args, run)
        for word in words:
            assert word in run.stderr


def test_a_stage_runs_and_its_output_comes_back(broker, start):
    start()
    broker.register()
    job, attempt = broker.lease(["test.echo"], {"x": [1, "two"]})
    done = broker.expect("STAGE_DONE")
    assert (done["job"], done["stage"], done["attempt"]) == (job, 0, attempt)
    assert not done["more"]
    assert done.document() == {"input": None, "body": {"x": [1, "two"]}, "stage": 0, "batch": 1}


def test_a_span_hands_over_in_memory_and_reports_each_stage(broker, start):
    start()
    broker.register()
    broker.lease(["test.echo", {"run": "test.echo", "checkpoint": True}, "test.echo"], {"b": 1})
    outs = [broker.expect("STAGE_DONE") for _ in range(3)]
    assert [o["stage"] or 0 for o in outs] == [0, 1, 2]
    assert [bool(o["more"]) for o in outs] == [True, True, False]
    assert outs[2].document()["input"] == outs[1].document()
    assert outs[1].document()["input"] == outs[0].document()


def test_a_span_that_begins_in_the_middle_takes_its_input_from_the_frames(broker, start):
    start()
    broker.register()
    big = {"text": "x" * 2_500_000}
    packed = msgpack.packb(big)
    parts = [packed[i:i + 1_000_000] for i in range(0, len(packed), 1_000_000)]
    broker.lease(["test.echo"], {"b": 1}, first=2, inputs=parts)
    done = broker.expect("STAGE_DONE")
    assert done["stage"] == 2
    assert len(done.payload) == 3 and max(len(p) for p in done.payload) <= 1 << 20
    assert done.document()["input"] == big


@pytest.mark.parametrize("parts", [1, 2, 16])
def test_a_body_in_parts_is_put_together_and_kept_apart_from_the_input(broker, start, parts):
    start()
    broker.register()
    body, given = {"text": "b" * 300_000}, {"i": "x" * 1000}
    packed, packed_input = msgpack.packb(body), msgpack.packb(given)
    step = -(-len(packed) // parts)
    cut = [packed[at:at + step] for at in range(0, len(packed), step)]
    for inputs in ([], [packed_input], [packed_input[:500], packed_input[500:]]):
        broker.lease(["test.echo"], cut, first=1, inputs=inputs, in_parts=True)
        done = broker.expect("STAGE_DONE").document()
        assert done["body"] == body and done["input"] == (given if inputs else None)


def test_a_lease_with_fewer_frames_than_its_body_has_parts_is_refused(broker, start):
    start()
    broker.register()
    broker.send("LEASE", {"job": "0" * 12 + "1", "kind": "test", "stage": 0, "attempt": 99, "seed": 1,
                          "body_parts": 3, "plan": [{"name": "a", "run": "test.echo"}]}, [b"\x80"])
    failed = broker.expect("STAGE_FAILED")
    assert failed["attempt"] == 99 and "3 parts" in failed["reason"]


def test_jobs_with_the_same_stages_run_as_one_batch(broker, start):
    start()
    broker.register()
    for number in range(4):
        broker.lease(["test.echo", {"run": "test.echo", "batch_max": 8, "batch_delay_ms": 2000}],
                     {"n": number}, number=100 + number)
    begun = time.monotonic()
    broker.lease(["test.echo"], {"alone": 1}, number=200)
    done = [broker.expect("STAGE_DONE") for _ in range(9)]
    second = [d.document() for d in done if d["stage"] == 1]
    assert [d["batch"] for d in second] == [4] * 4, "the delay let them gather"
    assert all(d.document()["batch"] == 1 for d in done if not d["stage"]), "chunks of batch_max"
    assert time.monotonic() - begun < 15


def test_a_full_batch_does_not_wait_and_alone_stays_alone(broker, start):
    start()
    broker.register()
    stage = {"run": "test.echo", "batch_max": 3, "batch_delay_ms": 10000}
    begun = time.monotonic()
    for number in range(3):
        broker.lease([stage], {}, number=100 + number)
    assert [broker.expect("STAGE_DONE").document()["batch"] for _ in range(3)] == [3] * 3
    broker.lease([stage], {}, alone=True)
    assert broker.expect("STAGE_DONE").document()["batch"] == 1
    assert time.monotonic() - begun < 8


def test_heartbeats_go_on_while_a_stage_computes(broker, start):
    start()
    broker.register()
    broker.lease(["test.sleep"], {"ms": 2000, "deaf": 1})
    before = len(broker.beats)
    broker.expect("STAGE_DONE")
    beats = broker.beats[before:]
    assert len(beats) >= 10, "2 s at 100 ms each, with room for a busy machine"
    gaps = [b.at - a.at for a, b in zip(beats, beats[1:])]
    assert max(gaps) < 1.0


def test_progress_is_streamed_while_a_stage_runs(broker, start):
    start()
    broker.register()
    job, attempt = broker.lease(["test.sleep"], {"ms": 500})
    progress = broker.expect("PROGRESS")
    assert (progress["job"], progress["attempt"], progress["type"]) == (job, attempt, "progress")
    assert progress["data"]["total"] == 500
    broker.expect("STAGE_DONE")


def test_a_stage_that_fails_tells_its_class_and_reason(broker, start):
    start()
    broker.register()
    for name in ("transient", "permanent"):
        broker.lease(["test.fail"], {"class": name, "reason": "the page is upside down"})
        failed = broker.expect("STAGE_FAILED")
        assert (failed["error_class"] or "transient") == name
        assert failed["reason"] == "the page is upside down"
    broker.lease(["test.fail"], {"class": "permanent", "reason": "é" * 400})
    assert broker.expect("STAGE_FAILED")["reason"].strip("é?") == "", "cut, and still UTF-8"


def test_a_crash_is_reported_with_its_cause_and_the_worker_comes_back(broker, start):
    worker = start()
    broker.register()
    old = broker.session
    body = {"signal": int(signal.SIGSEGV), "ms": 500}
    job, attempt = broker.lease(["test.sleep", "test.crash"], body)
    queued = broker.lease(["test.echo"], {}, number=77)
    said = []
    while not said or said[-1].name != "GOODBYE":
        said.append(broker.expect("STAGE_DONE", "STAGE_FAILED", "RETURN", "GOODBYE"))
    assert len([m for m in said if m.name in ("STAGE_FAILED", "RETURN")]) == 2
    failed = next(m for m in said if m.name == "STAGE_FAILED")
    returned = next(m for m in said if m.name == "RETURN")
    assert (failed["job"], failed["stage"], failed["attempt"]) == (job, 1, attempt)
    assert failed["error_class"] == "worker_died"
    assert failed["reason"] == "killed by signal 11 (Segmentation fault) in stage test.crash"
    assert (returned["job"], returned["attempt"]) == queued, "what had not begun is given back"
    assert said[-1]["session"] == old
    message = broker.register()
    assert message["session"] != old
    assert worker.process.poll() is None, "the keeper is the same"
    broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE")


def test_a_stage_that_exits_is_a_death_too(broker, start):
    start()
    broker.register()
    broker.lease(["test.crash"], {"exit": 5})
    assert broker.expect("STAGE_FAILED")["reason"] == "exited with status 5 in stage test.crash"


def test_a_job_whose_worker_is_killed_from_outside_is_blamed_the_second_time(broker, start):
    before = oom_kills()
    worker, verdicts = start(), []
    for _ in range(2):
        broker.register()
        job, attempt = broker.lease(["test.sleep"], {"ms": 60000}, number=5)
        broker.expect("PROGRESS")
        os.kill(worker.child(), signal.SIGKILL)
        verdicts.append(broker.expect("STAGE_FAILED", "RETURN"))
        assert (verdicts[-1]["job"], verdicts[-1]["attempt"]) == (job, attempt)
        broker.expect("GOODBYE")
    first, second = verdicts
    assert second.name == "STAGE_FAILED" and second["error_class"] == "worker_died"
    assert "killed by signal 9 (Killed) in stage test.sleep" in second["reason"]
    if before is None or oom_kills() != before:
        pytest.skip("whether the kernel killed for want of memory is not to be seen here")
    assert first.name == "RETURN"


def test_a_finished_stage_is_not_blamed_for_a_later_crash(broker, start):
    """Its outcome was on the way: it is given back, not counted as a death."""
    broker.acknowledge = False
    worker = start()
    broker.register()
    job, attempt = broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE")
    os.kill(worker.child(), signal.SIGKILL)
    returned = broker.expect("RETURN")
    assert (returned["job"], returned["attempt"]) == (job, attempt)


def test_the_worker_dies_with_its_keeper(broker, start):
    worker = start()
    broker.register()
    child = worker.child()
    worker.process.kill()
    worker.process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            if pathlib.Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                return
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its keeper")


def test_sigterm_drains(broker, start):
    worker = start()
    broker.register()
    running, _ = broker.lease(["test.sleep"], {"ms": 1500}, number=1)
    broker.expect("PROGRESS")
    queued, _ = broker.lease(["test.sleep"], {"ms": 60000}, number=2)
    time.sleep(0.2)
    worker.process.terminate()
    said = [broker.expect("GOODBYE", "RETURN", "STAGE_DONE") for _ in range(3)]
    by_name = {m.name: m for m in said}
    assert set(by_name) == {"GOODBYE", "RETURN", "STAGE_DONE"}
    assert by_name["RETURN"]["job"] == queued
    assert by_name["STAGE_DONE"]["job"] == running, "what runs is finished"
    assert worker.end() == 0


def test_sigterm_ends_an_idle_worker_and_one_without_a_broker(broker, start):
    worker = start()
    broker.register()
    worker.process.terminate()
    broker.expect("GOODBYE")
    assert worker.end() == 0
    lonely = subprocess.Popen([WORKER, "--connect", broker.endpoint + "-nobody", "--stages", STAGES])
    time.sleep(0.5)
    lonely.terminate()
    assert lonely.wait(20) == 0


def test_a_lease_that_comes_while_it_drains_is_given_back(broker, start):
    worker = start()
    broker.register()
    broker.lease(["test.sleep"], {"ms": 1500}, number=1)
    broker.expect("PROGRESS")
    worker.process.terminate()
    broker.expect("GOODBYE")
    late, _ = broker.lease(["test.echo"], {}, number=2)
    assert broker.expect("RETURN")["job"] == late
    broker.expect("STAGE_DONE")
    assert worker.end() == 0


def test_a_cancelled_lease_stops_and_is_not_reported(broker, start):
    start()
    broker.register()
    job, attempt = broker.lease(["test.sleep"], {"ms": 60000})
    broker.expect("PROGRESS")
    queued, queued_attempt = broker.lease(["test.sleep"], {"ms": 60000})
    broker.send("CANCEL_LEASE", {"job": queued, "attempt": queued_attempt})
    broker.send("CANCEL_LEASE", {"job": job, "attempt": attempt})
    broker.nothing(0.5)
    broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE", timeout_s=10)


def test_reregister_drops_the_leases_and_keeps_the_session(broker, start):
    start()
    session = broker.register()["session"]
    broker.lease(["test.sleep"], {"ms": 60000})
    broker.expect("PROGRESS")
    broker.send("REREGISTER", {"reason": "the broker forgot"})
    assert broker.register()["session"] == session
    broker.lease(["test.echo"], {})
    assert broker.expect("STAGE_DONE").document()["body"] == {}, "the sleeper stopped for it"


def test_a_broker_that_restarts_is_found_again_and_hears_the_outcome(broker, start):
    broker.acknowledge = False
    start()
    session = broker.register()["session"]
    job, attempt = broker.lease(["test.echo"], {"kept": True})
    broker.expect("STAGE_DONE")
    broker.restart()
    assert broker.register()["session"] == session
    again = broker.expect("STAGE_DONE")
    assert (again["job"], again["attempt"]) == (job, attempt), "the same token"
    broker.ack(again, "stale")
    broker.nothing(1)
    broker.acknowledge = True
    broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE")


def test_an_outcome_without_an_answer_is_sent_again(broker, start):
    broker.lease_ms = 500
    broker.acknowledge = False
    start()
    broker.register()
    broker.lease(["test.echo"], {})
    first, second = broker.expect("STAGE_DONE"), broker.expect("STAGE_DONE", timeout_s=5)
    assert first.header == second.header and first.payload == second.payload
    broker.ack(second)
    more = 0  # one may have been on its way already
    while broker.receive(1.5):
        more += 1
    assert more <= 1, "acknowledged, it is not sent again"


def test_a_stage_past_its_timeout_is_reported_and_cancelled(broker, start):
    start()
    broker.register()
    job, _ = broker.lease([{"run": "test.sleep", "timeout_ms": 300}], {"ms": 60000})
    failed = broker.expect("STAGE_FAILED")
    assert failed["job"] == job and failed["error_class"] == "timeout"
    assert "300 ms" in failed["reason"]
    broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE", timeout_s=10)


def test_a_stage_that_ignores_its_timeout_takes_the_process_along(broker, start):
    worker = start("--grace-ms", "300")
    broker.register()
    child = worker.child()
    late, _ = broker.lease([{"run": "test.sleep", "timeout_ms": 300}], {"ms": 60000, "deaf": 1})
    queued, _ = broker.lease(["test.echo"], {}, number=5)
    failed = broker.expect("STAGE_FAILED")
    assert failed["job"] == late and failed["error_class"] == "timeout"
    returned = broker.expect("RETURN")
    assert returned["job"] == queued
    broker.expect("GOODBYE")
    broker.register()
    assert worker.child() != child
    assert worker.process.poll() is None


def test_a_stage_that_it_does_not_offer_is_refused_and_so_is_a_bad_plan(broker, start):
    start()
    broker.register()
    broker.lease(["infer.embed"], {})
    assert "infer.embed" in broker.expect("STAGE_FAILED")["reason"]
    broker.lease([], {})
    assert "plan" in broker.expect("STAGE_FAILED")["reason"]
    broker.socket.send_multipart([broker.peer, b"PS\x01\xc4", b"\xc1\xc1", b""])
    broker.socket.send_multipart([broker.peer, b"junk"])
    broker.lease(["test.echo"], {})
    broker.expect("STAGE_DONE")
