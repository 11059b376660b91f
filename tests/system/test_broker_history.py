"""What happened to a job, kept with it and told again."""
import pytest

from real_broker import (CANCEL, CHAIN, EVENT, EVENTS, STATE, Broker, Client, EchoWorker, Worker, echo)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("b"), echo(), CHAIN, lease_ms=1000, heartbeat_ms=200) as broker:
        yield broker


@pytest.fixture
def client(shared):
    with Client(shared) as c:
        yield c


def history(client, job, **fields):
    """Everything that EVENTS without following says, up to its last one."""
    req, seen = client.send(EVENTS, dict({"job": job, "from": 0, "follow": False}, **fields)), []
    while not seen or not seen[-1].get("last"):
        code, h, _ = client.answer(req)
        assert code == EVENT, h
        seen.append(h)
    return seen


def what(events):
    return [e["data"]["what"] for e in events if "what" in e["data"]]


def test_the_history_of_a_job_names_workers_failures_and_times(shared, client):
    job = client.submit()
    with Worker(shared, name="first") as w:
        w.fail(w.lease()[0], reason="the lamp is dark")
        w.done(w.lease()[0])
        client.wait(job)
        w.send(0x87, {"session": w.session})
    seen = history(client, job)
    assert what(seen) == ["accepted", "leased", "attempt_failed", "leased", "stage_done", "ended"]
    data = [e["data"] for e in seen]
    assert [d["by"] for d in data] == ["default", "first", "first", "first", "first", ""]
    assert data[2]["error_class"] == "transient" and data[2]["reason"] == "the lamp is dark"
    assert data[2]["state"] == "delayed" and data[-1]["state"] == "done"
    times = [d["at_ms"] for d in data]
    assert times == sorted(times) and times[0] > 1600000000000
    assert [e["seq"] for e in seen] == sorted({e["seq"] for e in seen})
    assert seen[1]["attempt"] == seen[2]["attempt"] != seen[3]["attempt"]


def test_a_history_is_told_again_behind_any_number_of_it(shared, client):
    with EchoWorker(shared, "test.a", "test.b", "test.c"):
        job = client.submit(pipeline="chain")
        client.wait(job)
    whole = history(client, job)
    assert what(whole) == ["accepted", "leased", "stage_done", "stage_done", "stage_done", "ended"]
    for i, event in enumerate(whole[:-1]):
        assert history(client, job, **{"from": event["seq"]}) == whole[i + 1:] or \
            [e["seq"] for e in history(client, job, **{"from": event["seq"]})] == \
            [e["seq"] for e in whole[i + 1:]]
    at_end = history(client, job, **{"from": whole[-1]["seq"]})
    assert len(at_end) == 1 and at_end[0]["data"]["state"] == "done"


def test_a_client_that_comes_back_misses_nothing(shared):
    with Client(shared) as first, Worker(shared, "test.a", "test.b", "test.c", name="w") as w:
        job = first.submit(pipeline="chain")
        req = first.send(EVENTS, {"job": job, "from": 0})
        lease, _ = w.lease()
        seen = [first.answer(req)[1] for _ in range(3)]
        assert what(seen) == ["accepted", "leased"]
        newest = max(e["seq"] for e in seen)
        first.socket.close()
        w.done(lease, stage=0, more=True)
        w.done(lease, stage=1, more=True)
        with Client(shared) as again:
            req = again.send(EVENTS, {"job": job, "from": newest})
            more = [again.answer(req)[1] for _ in range(3)]
            assert what(more) == ["stage_done", "stage_done"]
            w.done(lease)
            ends = [again.answer(req)[1] for _ in range(2)]
            assert what(ends) == ["stage_done", "ended"] and ends[-1]["last"]
        w.send(0x87, {"session": w.session})


def test_a_history_survives_a_kill_and_its_numbers_go_on(tmp_path):
    with Broker(tmp_path, echo()) as broker, Client(broker) as client:
        job = client.submit()
        with Worker(broker, name="before") as w:
            w.fail(w.lease()[0], reason="once")
            before = history(client, job)
            broker.kill()
        broker.start()
        with EchoWorker(broker, name="after"):
            client.wait(job)
        after = history(client, job)
        assert what(after) == ["accepted", "leased", "attempt_failed", "leased", "stage_done", "ended"]
        assert [e["data"]["by"] for e in after][1:5] == ["before", "before", "after", "after"]
        told = [e["seq"] for e in before if "what" in e["data"]]
        assert [e["seq"] for e in after][:3] == told
        assert all(e["seq"] > told[-1] for e in after[3:])


def test_a_cancel_says_whose_it_was(client):
    job = client.submit()
    assert client.ask(CANCEL, {"job": job, "reason": "wrong file"})[0] == STATE
    last = history(client, job)[-1]
    assert last["data"] == {"state": "cancelled", "what": "ended", "by": "default", "error_class": "cancelled",
                            "reason": "wrong file", "at_ms": last["data"]["at_ms"]}
