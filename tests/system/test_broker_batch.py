"""Many jobs in one message, shown from outside."""
import msgpack
import pytest

from real_broker import (ACCEPTED, ACCEPTED_MANY, SUBMIT, SUBMIT_MANY, Broker, Client, EchoWorker, body, echo)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("b"), echo(), echo("narrow", queue_max=3)) as broker:
        yield broker


@pytest.fixture
def client(shared):
    with Client(shared) as c:
        yield c


def text(words):
    return {"texts": [words]}


def submit_many(client, *lists, **fields):
    header = dict({"kind": "text.embed", "pipeline": "echo"}, **fields)
    code, h, _ = client.ask(SUBMIT_MANY, header, *[msgpack.packb(items) for items in lists])
    assert code == ACCEPTED_MANY, h
    assert h["accepted"] + h["refused"] == len(h["jobs"]) == sum(map(len, lists))
    return h["jobs"]


def test_a_batch_is_accepted_in_one_commit_and_every_job_ends(shared, client):
    before = client.stats()
    jobs = submit_many(client, [text(f"a{i}") for i in range(600)], [text(f"b{i}") for i in range(400)])
    after = client.stats()
    assert after["commits"] - before["commits"] == 1
    assert after["commit_ops"] - before["commit_ops"] == 1000
    assert len({j["job"] for j in jobs}) == 1000
    with EchoWorker(shared, credit=64):
        for job in jobs:
            header, _ = client.wait(job["job"])
            assert header["state"] == "done"


def test_one_bad_job_of_a_batch_harms_no_other(client):
    jobs = submit_many(client, [text("x"), {"texts": []}, {}, 7, ["k" * 300, text("x")], text("y")])
    assert [j.get("code") for j in jobs] == [None, "limit", "missing", "type", "limit", None]
    assert [j.get("field") for j in jobs[1:5]] == ["texts", "texts", "payload", "key"]
    assert all(j["message"] and j["limit"] for j in jobs[1:4])
    assert client.state(jobs[0]["job"]) == client.state(jobs[5]["job"]) == "ready"


def test_each_job_of_a_batch_has_its_own_key(client):
    first = submit_many(client, [["batch-a", text("x")], ["batch-b", text("y")], ["batch-a", text("x")]])
    assert [j["existing"] for j in first] == [False, False, True]
    assert first[0]["job"] == first[2]["job"] != first[1]["job"]
    again = submit_many(client, [["batch-b", text("y")], ["batch-a", text("other")], text("x")])
    assert again[0]["existing"] and again[0]["job"] == first[1]["job"]
    assert again[1]["code"] == "key_conflict"
    assert not again[2]["existing"]
    code, h, _ = client.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "batch-a"}, body("x"))
    assert code == ACCEPTED and h["job"] == first[0]["job"]


def test_seeds_count_up_within_a_batch(client):
    jobs = submit_many(client, [text("x")] * 3, has_seed=True, seed=40)
    assert [j["seed"] for j in jobs] == [40, 41, 42]
    drawn = submit_many(client, [text("x")] * 3)
    assert len({j["seed"] for j in drawn}) == 3


def test_a_full_queue_refuses_the_rest_of_a_batch(client):
    jobs = submit_many(client, [text(str(i)) for i in range(5)], pipeline="narrow")
    assert [j.get("code") for j in jobs] == [None] * 3 + ["full"] * 2
    assert all(j["retry_after_ms"] > 0 for j in jobs[3:])


def test_a_batch_that_cannot_be_read_is_refused_whole(client):
    known = {"kind": "text.embed", "pipeline": "echo"}
    assert client.refused(SUBMIT_MANY, dict(known, kind="nothing"), msgpack.packb([text("x")]))["code"] == \
        "unknown_kind"
    assert client.refused(SUBMIT_MANY, known, msgpack.packb([]))["code"] == "limit"
    assert client.refused(SUBMIT_MANY, known, msgpack.packb([text("x")] * 1025))["limit"] == "1 to 1024 jobs"
    assert client.refused(SUBMIT_MANY, known, msgpack.packb(text("x")))["code"] == "type"
    assert client.refused(SUBMIT_MANY, known, b"\xdd\xff\xff\xff\xff")["code"] == "malformed"


def test_a_batch_survives_a_kill(tmp_path):
    with Broker(tmp_path, echo()) as broker, Client(broker) as client:
        jobs = submit_many(client, [text(str(i)) for i in range(300)])
        broker.kill()
        broker.start()
        with EchoWorker(broker, credit=64):
            assert all(client.wait(j["job"])[0]["state"] == "done" for j in jobs)
