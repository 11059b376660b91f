"""Several messages in one (MANY): the broker's answers and leases, and the peers that speak it."""
import os
import pathlib
import subprocess
import sys
import time

import msgpack
import pytest
import zmq

from real_broker import (ACCEPTED, LEASE, LIST, LONG_S, PING, PONG, REFUSED, RESULT, STAGE_ACK,
                         STAGE_DONE, SUBMIT, WAIT, Broker, Client, Worker, body, dealer, echo, frames,
                         tag)
from scripted_broker import CODES, FakeBroker

MANY = 0x70
BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])


@pytest.fixture
def mine(tmp_path):
    with Broker(tmp_path, echo()) as broker:
        yield broker


@pytest.fixture
def client(mine):
    with Client(mine) as c:
        yield c


def many(*messages, n=None):
    """A MANY of messages, each (code, header, payload...)."""
    items = [[code, msgpack.packb(header), *payload] for code, header, *payload in messages]
    return frames(MANY, {"n": len(items) if n is None else n}, msgpack.packb(items))


def inside(parts):
    """The messages of one that came: (code, header, payload), and whether they came in a MANY."""
    if parts[0][3] != MANY:
        return [(parts[0][3], msgpack.unpackb(parts[1]), b"".join(parts[2:]))], False
    items = msgpack.unpackb(parts[2])
    assert msgpack.unpackb(parts[1]) == {"n": len(items)}
    return [(item[0], msgpack.unpackb(item[1]), b"".join(item[2:])) for item in items], True


def heard(socket, count):
    """So many messages, and how many of them came with others or alone in a MANY."""
    got, gathered = [], 0
    while len(got) < count:
        assert socket.poll(LONG_S * 1000), got
        more, packed = inside(socket.recv_multipart())
        got += more
        gathered += len(more) if packed else 0
    assert len(got) == count
    return got, gathered


def submit(req, text="hello"):
    return SUBMIT, {"req": req, "kind": "text.embed", "pipeline": "echo"}, body(text)


def test_requests_of_one_message_are_answered_as_if_they_came_alone(client):
    client.raw(*many(*[submit(i) for i in range(20)], (PING, {"req": 20})))
    got, gathered = heard(client.socket, 21)
    assert {h["req"] for code, h, _ in got if code == ACCEPTED} == set(range(20))
    assert len({h["job"] for code, h, _ in got if code == ACCEPTED}) == 20
    assert [h["many"] for code, h, _ in got if code == PONG] == [True]
    assert gathered == 20  # all that are answered in a MANY


def test_who_asks_alone_is_never_answered_in_one(client):
    client.raw(*many((PING, {"req": 1}), (LIST, {"req": 2, "limit": 1})))
    heard(client.socket, 2)
    for i in range(10):
        client.raw(*frames(*submit(i)))
    got, gathered = heard(client.socket, 10)
    assert gathered == 0 and all(code == ACCEPTED for code, *_ in got)


def test_a_bad_message_is_refused_by_itself(client):
    client.raw(*many(submit(1), (SUBMIT, {"req": 2, "kind": "nonsense"}, body()), (0x7F, {"req": 3}),
                     (LEASE, {"req": 4}), (SUBMIT, {"req": 5}), (WAIT, {"req": 6, "job": 7}), submit(8)))
    got, _ = heard(client.socket, 7)
    codes = {h["req"]: h.get("code", "accepted") for _, h, _ in got}
    assert codes == {1: "accepted", 2: "unknown_kind", 3: "unknown_type", 4: "unknown_type", 5: "missing",
                     6: codes[6], 8: "accepted"}
    assert codes[6] not in ("accepted", "unknown_type")


def test_one_inside_another_is_refused(client):
    inner = msgpack.packb([[PING, msgpack.packb({"req": 1})]])
    client.raw(*many((MANY, {"n": 1}, inner), (PING, {"req": 2})))
    got, _ = heard(client.socket, 2)
    assert sorted(code for code, *_ in got) == sorted([REFUSED, PONG])
    assert next(h["code"] for code, h, _ in got if code == REFUSED) == "unknown_type"


@pytest.mark.parametrize("payload, n", [
    (b"\xc1", 1), (b"\x90", 1), (b"\x80", 1), (msgpack.packb([[PING, b"\x80"]]), 2),
    (msgpack.packb([[PING, b"\x80"]] * 257), 257), (b"\xdd\xff\xff\xff\xff", 256)],
    ids=["no msgpack", "no message", "no list", "another count", "too many", "not all there"])
def test_a_list_that_cannot_be_read_is_refused_as_a_whole(client, payload, n):
    client.raw(tag(MANY), msgpack.packb({"n": n}), payload)
    (code, header, _), = heard(client.socket, 1)[0]
    assert code == REFUSED and header.get("req", 0) == 0 and header["message"]


def test_what_stands_before_the_damage_counts(client):
    good = msgpack.packb([PING, msgpack.packb({"req": 7})])
    client.raw(tag(MANY), msgpack.packb({"n": 2}), b"\x92" + good + b"\x92\x02\xa1h")
    got, _ = heard(client.socket, 2)
    assert [(code, h.get("req", 0)) for code, h, _ in got] in ([(PONG, 7), (REFUSED, 0)],
                                                       [(REFUSED, 0), (PONG, 7)])


def test_leases_and_acknowledgements_go_together_to_a_worker_that_reads_them(mine, client):
    with Worker(mine, credit=64, many=True) as w:
        client.raw(*many(*[submit(i, f"t{i}") for i in range(32)]))
        jobs = {h["job"]: h["req"] for _, h, _ in heard(client.socket, 32)[0]}
        leases, gathered = heard(w.socket, 32)
        assert {code for code, *_ in leases} == {LEASE} and gathered == 32
        assert {h["job"] for _, h, _ in leases} == set(jobs)
        for _, h, payload in leases:
            assert payload == body(f"t{jobs[h['job']]}")
        done = [(STAGE_DONE, {"job": h["job"], "stage": 0, "attempt": h["attempt"]},
                 msgpack.packb({"of": h["job"]})) for _, h, _ in leases]
        w.socket.send_multipart(many(*done))
        acks, gathered = heard(w.socket, 32)
        assert gathered == 32
        assert {(code, h["verdict"]) for code, h, _ in acks} == {(STAGE_ACK, "recorded")}
        client.raw(*many(*[(WAIT, {"req": i, "job": job}) for i, job in enumerate(jobs)]))
        results, gathered = heard(client.socket, 32)
        assert gathered == 32
        for code, h, payload in results:
            assert code == RESULT and msgpack.unpackb(payload) == {"of": h["job"]}
        w.leave()


def test_long_payloads_go_alone_and_nothing_overtakes_them(mine, client):
    texts = ["short", "x" * 20000, "after"]
    with Worker(mine, credit=8, many=True) as w:
        client.raw(*many(*[submit(i, text) for i, text in enumerate(texts)]))
        heard(client.socket, 3)
        leases, gathered = heard(w.socket, 3)
        assert sorted(payload for _, _, payload in leases) == sorted(map(body, texts))
        assert gathered == 2
        for _, h, payload in leases:
            w.socket.send_multipart(frames(STAGE_DONE, {"job": h["job"], "stage": 0,
                                                        "attempt": h["attempt"]}, payload))
        assert len(heard(w.socket, 3)[0]) == 3
        w.leave()


def test_what_a_full_queue_does_not_take_comes_when_there_is_room(mine, client):
    slow = dealer(mine)
    slow.rcvhwm, slow.sndhwm = 1, 20000
    slow.connect(mine.clients)
    for req in range(8000):  # more answers than its queues hold, each alone
        slow.send_multipart(frames(PING, {"req": req}))
    for first in range(10000, 10800, 16):
        slow.send_multipart(many(*[submit(first + i) for i in range(16)]))
    deadline = time.monotonic() + LONG_S
    while client.stats()["stored_jobs"] < 800:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while client.stats()["owed"] == 0:
        assert time.monotonic() < deadline, "all of them found room: the test shows nothing"
    accepted = set()
    while len(accepted) < 800:
        assert slow.poll(LONG_S * 1000), len(accepted)
        for code, h, _ in inside(slow.recv_multipart())[0]:
            if code == ACCEPTED:
                assert h["req"] not in accepted
                accepted.add(h["req"])
            else:
                assert code == PONG
    assert client.stats()["owed"] == 0
    slow.close()


# ---- the project's own peers, against a broker that the test plays ----

@pytest.fixture
def broker(tmp_path):
    b = FakeBroker(tmp_path / "w", lease_ms=20000)
    b.many = True
    yield b
    b.close()


def run_worker(kind, broker, tmp_path):
    if kind == "c":
        return subprocess.Popen([BIN / "penstock-worker", "--connect", broker.endpoint, "--stages", "test.echo",
                                 "--credit", "64"])
    stage = tmp_path / "stage.py"
    stage.write_text("import penstock\nworker = penstock.Worker('w', credit=64)\n"
                     "@worker.stage('test.echo', batch=64)\n"
                     "def echo(jobs):\n    return [job.body for job in jobs]\n")
    return subprocess.Popen([sys.executable, "-m", "penstock.worker", str(stage), "--connect", broker.endpoint])


@pytest.mark.parametrize("kind", ["c", "python"])
def test_a_worker_takes_leases_of_one_message_and_answers_in_one(kind, broker, tmp_path):
    worker = run_worker(kind, broker, tmp_path)
    try:
        assert broker.register()["many"] is True
        sent, plan = {}, [{"name": "echo", "run": "test.echo", "batch_max": 64, "timeout_ms": 60000}]
        for i in range(20):
            text = "x" * (20000 if i == 10 else 10 + i)
            sent[f"{i:013d}"] = msgpack.packb({"text": text})
        broker.acknowledge = False
        items = [[CODES["LEASE"], msgpack.packb({"job": job, "kind": "test", "stage": 0, "attempt": 1 + i,
                                                 "seed": 7, "plan": plan}), payload]
                 for i, (job, payload) in enumerate(sent.items())]
        broker.send("MANY", {"n": len(items)}, [msgpack.packb(items)])
        got, alone, together = {}, 0, 0
        while len(got) < len(sent):
            message = broker.expect("MANY", "STAGE_DONE")
            if message.name == "STAGE_DONE":
                alone += 1
                got[message["job"]] = b"".join(message.payload)
                continue
            for code, header, *payload in msgpack.unpackb(message.payload[0]):
                assert code == CODES["STAGE_DONE"]
                got[msgpack.unpackb(header)["job"]] = b"".join(payload)
                together += 1
        assert set(got) == set(sent) and all(sent[job] in payload for job, payload in got.items())
        assert together >= 2 and alone >= 1
        acks = [[CODES["STAGE_ACK"], msgpack.packb({"job": job, "stage": 0, "attempt": 1 + i,
                                                    "verdict": "recorded"})] for i, job in enumerate(sent)]
        broker.send("MANY", {"n": len(acks)}, [msgpack.packb(acks)])
        worker.terminate()
        broker.expect("GOODBYE")
        assert worker.wait(LONG_S) == 0
    finally:
        worker.kill()
        worker.wait()


def serve_clients(socket, seen, reads_many):
    """Accepts and finishes every job; notes how each request came."""
    while socket.poll(LONG_S * 1000):
        peer, *parts = socket.recv_multipart()
        messages, packed = inside(parts)
        answers = []
        for code, h, _ in messages:
            seen.append((code, packed))
            if code == PING:
                answers.append((PONG, {"req": h["req"], "version": "9", "epoch": 1, "accepting": True,
                                       **({"many": True} if reads_many else {})}))
            elif code == SUBMIT:
                answers.append((ACCEPTED, {"req": h["req"], "job": f"{len(seen):013d}", "state": "ready",
                                           "seed": 1}))
            elif code == WAIT:
                answers.append((RESULT, {"req": h["req"], "job": h["job"], "state": "done",
                                         "kind": "text.embed"}, msgpack.packb({"of": h["job"]})))
        if packed:
            socket.send_multipart([peer, *many(*answers)])
        else:
            for answer in answers:
                socket.send_multipart([peer, *frames(*answer)])
        if sum(code == WAIT for code, _ in seen) >= 40:
            return


@pytest.mark.parametrize("reads_many", [True, False])
def test_a_client_of_a_folder_gathers_requests_where_the_broker_reads_that(tmp_path, reads_many):
    (tmp_path / "in").mkdir()
    for i in range(40):
        (tmp_path / "in" / f"{i}.txt").write_text(f"text {i}")
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.linger = 0
    endpoint = f"ipc://{tmp_path}/clients"
    socket.bind(endpoint)
    client = subprocess.Popen([BIN / "penstock", "submit", "text.embed", tmp_path / "in", "--out",
                               tmp_path / "out"], env=dict(os.environ, PENSTOCK_ENDPOINT=endpoint),
                              stdout=subprocess.DEVNULL)
    seen = []
    try:
        serve_clients(socket, seen, reads_many)
        assert client.wait(LONG_S) == 0
    finally:
        client.kill()
        client.wait()
        socket.close()
    assert sum(code == SUBMIT for code, _ in seen) == 40
    assert any(packed for _, packed in seen) is reads_many
