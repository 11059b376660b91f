"""What the broker keeps when it, its workers or its clients fail: kill -9, restarts, bad messages."""
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import threading
import time

import msgpack
import pytest
import zmq

from real_broker import (ACCEPTED, ACCEPTED_MANY, CANCEL, CHAIN, LEASE, LIST, LONG_S, PING, PONG, REFUSED, REGISTER,
                         RESULT, RESULT_GET, STAGE_ACK, STAGE_DONE, SUBMIT, SUBMIT_MANY, WAIT, Broker, Client,
                         EchoWorker, Worker, body, echo, frames, tag)

KILLS = 25


# ---- restarts ----

def test_sigterm_ends_with_status_0_and_a_restart_goes_on(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        queued = [client.submit() for _ in range(5)]
        later, gone = client.submit(delay_ms=700), client.submit(ttl_ms=300)
        with Worker(broker, credit=1) as w:
            leased, _ = w.lease()
            assert broker.stop() == 0
            time.sleep(0.35)
            broker.start()
            code, _, _ = client.ask(WAIT, {"job": gone})
            assert code == RESULT, "a job whose time passed while the broker was down has expired"
            w.send(STAGE_DONE, {"job": leased["job"], "stage": 0, "attempt": leased["attempt"]}, b"\x80")
            assert w.expect(STAGE_ACK)[0]["verdict"] == "stale"
            w.register()
            for job in queued:
                lease, _ = w.lease()
                assert lease["job"] == job and lease["attempt"] > leased["attempt"]
                assert w.done(lease) == "recorded"
            lease, _ = w.lease()
            assert lease["job"] == later
            w.done(lease)


def test_a_draining_broker_refuses_submits_or_is_gone(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        accepted, stop = [], threading.Event()

        def terminate():
            stop.wait(5)
            broker.stop()
        stopper = threading.Thread(target=terminate)
        stopper.start()
        for i in range(3000):
            client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())
            if i == 500:
                stop.set()
        answers = []
        while (got := client.receive(1)) is not None:
            answers.append(got)
        stopper.join()
        accepted = [h["job"] for code, h, _ in answers if code == ACCEPTED]
        assert {h["code"] for code, h, _ in answers if code == REFUSED} <= {"draining"}
        broker.start()
        with EchoWorker(broker):
            for job in accepted:
                assert client.wait(job)[0]["state"] == "done"


def test_a_checkpoint_survives_kill_9_and_later_stages_do_not_run_the_first_again(tmp_path):
    with Broker(tmp_path, CHAIN) as broker, Client(broker) as client:
        job = client.submit(pipeline="chain")
        big = msgpack.packb({"path": ["test.a"], "pad": "x" * 100000})
        with Worker(broker, "test.a") as w:
            assert w.done(w.lease()[0], big) == "recorded"
        broker.kill()
        broker.start()
        with Worker(broker, "test.a", "test.b", "test.c") as w:
            lease, payload = w.lease()
            assert (lease["job"], lease["stage"]) == (job, 1)
            assert payload[1:] == [big] and [s["run"] for s in lease["plan"]] == ["test.b", "test.c"]
            w.send(STAGE_DONE, {"job": job, "stage": 1, "attempt": lease["attempt"], "more": True}, b"\x80")
            assert w.expect(STAGE_ACK)[0]["verdict"] == "recorded"
            assert w.done(lease) == "recorded"
        assert client.wait(job)[0]["state"] == "done"


def test_what_was_only_in_memory_is_run_again_after_kill_9(tmp_path):
    with Broker(tmp_path, CHAIN) as broker, Client(broker) as client:
        job = client.submit(pipeline="chain")
        with Worker(broker, "test.a", "test.b") as w:
            lease, _ = w.lease()
            for stage, more in ((0, True), (1, False)):
                w.send(STAGE_DONE, {"job": job, "stage": stage, "attempt": lease["attempt"], "more": more},
                       msgpack.packb({"path": ["test.a", "test.b"][:stage + 1]}))
                assert w.expect(STAGE_ACK)[0]["verdict"] == "recorded"
        assert client.show(job)["stage"] == 2
        broker.kill()
        broker.start()
        assert client.show(job)["stage"] == 1
        with EchoWorker(broker, "test.b", "test.c"):
            assert client.wait(job)[1]["path"] == ["test.a", "test.b", "test.c"]


def test_ends_keys_tries_and_cancels_survive_kill_9(tmp_path):
    with Broker(tmp_path, echo(tries=2)) as broker, Client(broker) as client:
        done, failing, cancelled = (client.submit(key=k) for k in ("done", "failing", "cancelled"))
        client.ask(CANCEL, {"job": cancelled, "reason": "no"})
        with Worker(broker) as w:
            w.done(w.lease()[0], msgpack.packb({"n": 1}))
            w.fail(w.lease()[0], "transient", "first")
        broker.kill()
        broker.start()
        assert client.wait(done)[1] == {"n": 1}
        assert client.wait(cancelled)[0]["reason"] == "no"
        fields = {"kind": "text.embed", "pipeline": "echo"}
        for key, job in (("done", done), ("failing", failing), ("cancelled", cancelled)):
            _, h, _ = client.ask(SUBMIT, dict(fields, key=key), body())
            assert h["existing"] and h["job"] == job
        with Worker(broker) as w:
            w.fail(w.lease()[0], "transient", "second")
        assert client.wait(failing)[0]["state"] == "failed"
        assert [a["reason"] for a in client.show(failing)["attempts"]] == ["first", "second"]


def test_a_job_keeps_its_pipeline_when_the_file_changes_or_goes(tmp_path):
    with Broker(tmp_path, CHAIN, echo()) as broker, Client(broker) as client:
        job = client.submit(pipeline="chain")
        broker.stop()
        (tmp_path / "pipelines" / "p0.yaml").unlink()
        broker.start()
        with EchoWorker(broker, "test.a", "test.b", "test.c"):
            assert client.wait(job)[1]["path"] == ["test.a", "test.b", "test.c"]
        h = client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "chain"}, body())
        assert h["code"] == "unknown_pipeline"


def test_a_lower_queue_max_does_not_keep_a_broker_from_its_jobs(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        jobs = [client.submit() for _ in range(20)]
        broker.stop()
        broker.start("--queue-max", "5")
        assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())["code"] == "full"
        with EchoWorker(broker):
            assert {client.wait(j)[0]["state"] for j in jobs} == {"done"}
        client.ask(CANCEL, {"job": client.submit()})


def test_a_second_broker_on_a_store_is_refused_with_the_first_ones_pid(tmp_path):
    with Broker(tmp_path) as broker:
        second = subprocess.run(broker.command, stderr=subprocess.PIPE, text=True, timeout=20)
        assert second.returncode != 0
        assert str(broker.process.pid) in second.stderr


def test_usage_errors_end_with_2_and_bad_pipelines_name_the_file(tmp_path):
    program = [os.path.join(os.environ["PENSTOCK_BIN"], "penstock-broker"), "--dir", str(tmp_path)]
    for bad in (["--lease-ms", "x"], ["--queue-max", "0"], ["--nonsense"], ["stray"],
                ["--lease-ms", "1000", "--heartbeat-ms", "900"]):
        assert subprocess.run(program + bad, capture_output=True, timeout=20).returncode == 2, bad
    (tmp_path / "broken.yaml").write_text("name: [")
    ended = subprocess.run(program + ["--pipelines", str(tmp_path)], capture_output=True, timeout=20)
    assert ended.returncode == 1 and b"broken.yaml" in ended.stderr


# ---- kill -9 under load ----

class Load:
    """Submits without pause, half of them under keys, and keeps a ledger of what was accepted.

    A submit whose answer does not come is sent again under its key; without one it is forgotten,
    for nothing was promised."""

    def __init__(self, broker):
        self.broker, self.halt = broker, threading.Event()
        self.accepted, self.keys, self.problems = {}, {}, []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        with Client(self.broker) as c:
            open_, n = {}, 0
            while not self.halt.is_set() or any(key for _, key in open_.values()):
                while len(open_) < 20 and not self.halt.is_set():
                    n += 1
                    self.submit(c, open_, f"key-{n}" if n % 2 else "")
                got = c.receive(0.2)
                if got:
                    self.note(open_, *got[:2])
                for req in [r for r, (at, _) in open_.items() if time.monotonic() - at > 2]:
                    _, key = open_.pop(req)
                    if key:
                        self.submit(c, open_, key)

    @staticmethod
    def submit(c, open_, key):
        fields = {"kind": "text.embed", "pipeline": "chain", **({"key": key} if key else {})}
        open_[c.send(SUBMIT, fields, body("load" * 400))] = (time.monotonic(), key)

    def note(self, open_, code, h):
        _, key = open_.pop(h.get("req"), (0, None))
        if code != ACCEPTED:
            if h["code"] != "draining":
                self.problems.append(h)
        elif key and self.keys.setdefault(key, h["job"]) != h["job"]:
            self.problems.append(f"{key} is two jobs")
        elif key is not None:
            self.accepted[h["job"]] = key


def start_worker(broker, runs, ledger):
    return subprocess.Popen([sys.executable, str(pathlib.Path(__file__).with_name("real_broker.py")),
                             broker.workers, runs, str(ledger)])


def test_every_accepted_job_ends_done_exactly_once_whatever_is_killed(tmp_path):
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"SEED={seed}")
    draw = random.Random(seed)
    spans = ["test.a,test.b,test.c", "test.a,test.c", "test.b", "test.a,test.b,test.c"]
    ledgers = [tmp_path / f"acks-{i}" for i in range(len(spans))]
    with Broker(tmp_path, CHAIN, lease_ms=1000, heartbeat_ms=200) as broker:
        workers = [start_worker(broker, *pair) for pair in zip(spans, ledgers)]
        load = Load(broker)
        try:
            for turn in range(2 * KILLS):
                time.sleep(draw.uniform(0.1, 0.4))
                if turn % 2:
                    broker.kill()
                    broker.start()
                else:
                    i = draw.randrange(len(workers))
                    workers[i].kill()
                    workers[i].wait()
                    workers[i] = start_worker(broker, spans[i], ledgers[i])
            load.halt.set()
            load.thread.join(60)
            check_ledger(broker, load, ledgers)
        finally:
            load.halt.set()
            for w in workers:
                w.kill()
                w.wait()


def check_ledger(broker, load, ledgers):
    assert not load.problems, load.problems[:3]
    assert len(load.accepted) > 100
    with Client(broker) as c:
        results = {job: c.wait(job, 60) for job in load.accepted}
        listed = list_all(c)
    for job, (header, result) in results.items():
        assert header["state"] == "done", (job, header)
        assert result["path"] == ["test.a", "test.b", "test.c"]
        assert result["by"] == header["attempt"], "the outcome is of the attempt that recorded it"
    assert len(set(listed)) == len(listed)
    assert set(load.accepted) <= set(listed)
    recorded = [line.split()[:2] for path in ledgers if path.exists()
                for line in path.read_text().splitlines() if line.endswith("recorded")]
    ends = [job for job, stage in recorded if stage == "2"]
    assert len(ends) == len(set(ends)), "no end was recorded twice"


def list_all(c):
    rows, before = [], None
    while True:
        _, h, _ = c.ask(LIST, {"limit": 500, **({"before": before} if before else {})})
        rows += [row["job"] for row in h["jobs"]]
        before = h.get("next")
        if not before:
            return rows


# ---- messages that are wrong ----

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("b"), echo()) as broker:
        yield broker


@pytest.fixture
def client(shared):
    """Whatever a test sent, the broker still takes a job and a worker still ends it."""
    with Client(shared) as c:
        yield c
    with Client(shared) as c, EchoWorker(shared):
        assert c.wait(c.submit())[0]["state"] == "done"


HEADER = msgpack.packb({"req": 77, "kind": "text.embed", "pipeline": "echo"})
TEXT_MAX = 768 * 1024
WRONG = {
    "no PS in front": ([b"XX\x01\x01", HEADER, body()], "malformed"),
    "a short tag": ([b"PS", HEADER, body()], "malformed"),
    "an empty tag": ([b"", HEADER, body()], "malformed"),
    "an unknown major": ([tag(1, major=9), HEADER, body()], "version"),
    "an unknown message": ([tag(0x7F), HEADER], "unknown_type"),
    "a worker's message": ([tag(0x82), msgpack.packb({"session": "s", "epoch": 1})], "unknown_type"),
    "no header": ([tag(SUBMIT)], "frames"),
    "no payload": ([tag(SUBMIT), HEADER], "frames"),
    "two payloads": ([tag(SUBMIT), HEADER, body(), body()], "frames"),
    "a header that is no map": ([tag(SUBMIT), msgpack.packb([1, 2]), body()], "type"),
    "an empty header": ([tag(SUBMIT), b"", body()], "malformed"),
    "a header with bytes behind it": ([tag(SUBMIT), HEADER + b"\x00", body()], "malformed"),
    "a declared gigabyte": ([tag(SUBMIT), HEADER, b"\x81\xa5texts\x91\xdb\x40\x00\x00\x00"], "malformed"),
    "a declared gigabyte of items": ([tag(SUBMIT), HEADER, b"\x81\xa5texts\xdd\x40\x00\x00\x00"], "malformed"),
    "a declared gigabyte in the header": ([tag(SUBMIT), b"\xdf\x40\x00\x00\x00", body()], "malformed"),
    "a depth bomb": ([tag(SUBMIT), HEADER, b"\x81\xa5texts" + b"\x91" * 5000 + b"\xc0"], "limit"),
    "an unknown kind": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": "text.sing"}), body()], "unknown_kind"),
    "an unknown pipeline": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": "text.embed", "pipeline": "p"}),
                             body()], "unknown_pipeline"),
    "a pipeline of another kind": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": "text.generate",
                                                                "pipeline": "echo"}), body()],
                                   "unknown_pipeline"),
    "a missing field of the message": ([tag(SUBMIT), msgpack.packb({"req": 77}), body()], "missing"),
    "a missing field of the kind": ([tag(SUBMIT), HEADER, b"\x80"], "missing"),
    "a number where a string belongs": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": 5}), body()], "type"),
    "a string where a list belongs": ([tag(SUBMIT), HEADER, msgpack.packb({"texts": "x"})], "type"),
    "a text over the limit": ([tag(SUBMIT), HEADER, msgpack.packb({"texts": ["x" * (TEXT_MAX + 1)]})], "limit"),
    "too many texts": ([tag(SUBMIT), HEADER, msgpack.packb({"texts": ["x"] * 257})], "limit"),
    "no texts": ([tag(SUBMIT), HEADER, msgpack.packb({"texts": []})], "limit"),
    "a priority that there is not": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": "text.embed",
                                                                  "priority": 10}), body()], "limit"),
    "a key that is too long": ([tag(SUBMIT), msgpack.packb({"req": 77, "kind": "text.embed",
                                                            "key": "k" * 257}), body()], "limit"),
    "bytes that are not UTF-8": ([tag(SUBMIT), HEADER, b"\x81\xa5texts\x91\xa2\xc3\x28"], "utf8"),
    "a header that is not UTF-8": ([tag(SUBMIT), b"\x82\xa3req\x4d\xa4kind\xa2\xff\xfe", body()], "utf8"),
    "a key given twice": ([tag(SUBMIT), HEADER, b"\x82\xa5texts\x91\xa1x\xa5texts\x91\xa1y"], "duplicate"),
    "an id that is none": ([tag(WAIT), msgpack.packb({"req": 77, "job": "not an id"})], "limit"),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_refuses(client, what):
    parts, expected = WRONG[what]
    client.raw(*parts)
    code, h, _ = client.receive()
    assert code == REFUSED, h
    assert h["code"] == expected, h
    assert h["message"] and h["field"] and h["limit"] and h["fix"], h
    if parts[1:] and b"\xa3req\x4d" in parts[1]:
        assert h["req"] == 77


def test_more_frames_than_a_message_may_have_are_refused(client):
    client.raw(*frames(SUBMIT, {"req": 1, "kind": "text.embed"}, *[b"x"] * 40))
    code, h, _ = client.receive()
    assert code == REFUSED and h["code"] == "limit" and "34" in h["limit"]


def test_a_frame_over_the_limit_costs_that_client_its_connection_only(shared, client):
    client.raw(tag(SUBMIT), HEADER, b"x" * (3 << 20))
    with Client(shared) as other:
        assert other.ask(PING, {})


def test_wrong_messages_of_a_worker_are_refused_or_ignored(shared, client):
    with Worker(shared, "test.none") as w:
        for parts in ([b"PS\x01\x84"], [tag(STAGE_DONE), b"\xc1"], [tag(REGISTER), b"\x80"],
                      [tag(SUBMIT), HEADER, body()], [tag(LEASE), HEADER], [b""],
                      frames(STAGE_DONE, {"job": "0000000000001", "stage": 99, "attempt": 1})):
            w.socket.send_multipart(parts)
            h, _ = w.expect(REFUSED)
            assert h["code"] and h["message"]
        w.send(STAGE_DONE, {"job": "0000000000001", "stage": 0, "attempt": 1}, b"\x80")
        assert w.expect(STAGE_ACK)[0]["verdict"] == "stale"


def test_random_messages_harm_nobody(shared, client):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    good = [frames(SUBMIT, {"req": 1, "kind": "text.embed", "pipeline": "echo", "key": "f"}, body()),
            frames(WAIT, {"req": 1, "job": "0000000000001"}), frames(LIST, {"req": 1, "limit": 5}),
            frames(STAGE_DONE, {"job": "0000000000001", "stage": 0, "attempt": 5}, b"\x80"),
            frames(REGISTER, {"session": "s", "name": "n", "runs": ["none"], "credit_jobs": 1})]
    with Worker(shared, "test.none") as w:
        for _ in range(1000):
            parts = [bytearray(p) for p in draw.choice(good)]
            for _ in range(draw.randint(0, 4)):
                at = draw.choice(parts)
                how = draw.randrange(4)
                if how == 0 and at:
                    at[draw.randrange(len(at))] = draw.randrange(256)
                elif how == 1:
                    del at[draw.randint(0, len(at)):]
                elif how == 2:
                    at += draw.randbytes(draw.randint(0, 20))
                else:
                    parts.insert(draw.randint(0, len(parts)), bytearray(draw.randbytes(8)))
            draw.choice((client.socket, w.socket)).send_multipart([bytes(p) for p in parts])
        while client.receive(0.2):
            pass


def test_large_results_to_a_client_that_does_not_read_are_bounded_and_come_as_it_reads(tmp_path):
    result = msgpack.packb({"pad": b"x" * (4 << 20)})
    parts = [result[at:at + (1 << 20)] for at in range(0, len(result), 1 << 20)]
    with Broker(tmp_path) as broker, Client(broker) as client:
        job = client.submit()
        with Worker(broker) as w:
            assert w.done(w.lease()[0], parts) == "recorded"
        slow = zmq.Context.instance().socket(zmq.DEALER)
        slow.linger, slow.rcvhwm, slow.sndhwm = 0, 1, 1000
        slow.connect(broker.clients)
        for req in range(1, 201):
            slow.send_multipart(frames(RESULT_GET, {"req": req, "job": job}))
        while client.stats()["owed"] == 0:
            time.sleep(0.05)
        status = pathlib.Path(f"/proc/{broker.process.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 400 * 1024
        assert client.ask(RESULT_GET, {"job": job})[2] == result
        answered = set()
        while len(answered) < 200:
            assert slow.poll(20000)
            got = slow.recv_multipart()
            answered.add(msgpack.unpackb(got[1])["req"])
            assert got[0][3] == RESULT and b"".join(got[2:]) == result
        assert client.stats()["owed"] == 0
        slow.close()


def test_a_submitter_that_does_not_read_gets_every_accepted_when_it_does(tmp_path):
    """More answers than its queues hold: single ones and those of batches are owed."""
    with Broker(tmp_path) as broker, Client(broker) as client:
        slow = zmq.Context.instance().socket(zmq.DEALER)
        slow.linger, slow.rcvhwm, slow.sndhwm = 0, 1, 20000
        slow.connect(broker.clients)
        header = {"kind": "text.embed", "pipeline": "echo"}
        batch = msgpack.packb([{"texts": ["x" * 100]}] * 4)
        n = 8000
        for req in range(1, n + 1):
            if req % 100 == 0:
                slow.send_multipart(frames(SUBMIT_MANY, dict(header, req=req), batch))
            else:
                slow.send_multipart(frames(SUBMIT, dict(header, req=req), body()))
        deadline = time.monotonic() + 60
        while client.stats()["stored_jobs"] < n + 3 * (n // 100):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.stats()["owed"] > 0, "all of them found room: the test shows nothing"
        answered = set()
        while len(answered) < n:
            assert slow.poll(20000), len(answered)
            got = slow.recv_multipart()
            h = msgpack.unpackb(got[1])
            assert got[0][3] == (ACCEPTED_MANY if h["req"] % 100 == 0 else ACCEPTED), h
            assert h["req"] not in answered
            answered.add(h["req"])
        assert client.stats()["owed"] == 0
        slow.close()


def test_a_client_that_never_reads_does_not_stop_the_others(shared, client):
    with Client(shared) as deaf:
        deaf.socket.rcvhwm = 1
        for _ in range(20000):
            deaf.send(LIST, {"limit": 500})
        with Client(shared) as other:
            for _ in range(20):
                assert other.ask(PING, {})


def test_more_connections_than_files_were_allowed_at_first_do_not_end_the_broker(tmp_path):
    with Broker(tmp_path) as broker:
        broker.stop()
        broker.command[:0] = ["prlimit", "--nofile=64:4096"]
        broker.start()
        with Client(broker) as client:
            crowd = [socket.socket(socket.AF_UNIX) for _ in range(300)]
            for one in crowd:
                one.settimeout(LONG_S)
                one.connect(broker.clients.removeprefix("ipc://"))
            assert client.ask(PING, {})[0] == PONG
            for one in crowd:
                one.close()
            assert client.ask(PING, {})[0] == PONG


def test_a_crowd_beyond_the_last_file_is_refused_and_the_broker_goes_on(tmp_path):
    """libzmq ends its process when an ipc connection cannot be accepted for want of files."""
    with Broker(tmp_path) as broker:
        broker.stop()
        broker.command[:0] = ["prlimit", "--nofile=128:128"]
        broker.start()
        with Client(broker) as client:
            assert client.ask(PING, {})[0] == PONG, "it is in before the crowd"
            crowd = [socket.socket(socket.AF_UNIX) for _ in range(400)]
            for one in crowd:
                one.settimeout(LONG_S)
                one.connect(broker.clients.removeprefix("ipc://"))
            assert client.ask(PING, {})[0] == PONG
            assert client.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())[0] == ACCEPTED
            deadline = time.monotonic() + LONG_S
            while "event=connections_refused" not in broker.log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert "event=few_files" in broker.log.read_text()
            for one in crowd:
                one.close()
        with Client(broker) as late:
            assert late.ask(PING, {})[0] == PONG, "there is room again"
