"""The stream of ended jobs: replay from an offset, the live edge, gaps, and readers that do not read."""
import asyncio
import itertools
import json
import os
import subprocess
import time

import msgpack
import pytest
import zmq
from real_broker import (DROP, ENDED, EVENT, EVENTS, EVENTS_STOP, LONG_S, PROGRESS, STREAM, SUBSCRIBE,
                         Broker, Client, EchoWorker, Worker, echo)

import penstock

BIN = os.environ["PENSTOCK_BIN"]


class Subscriber(Client):
    """One subscription; ends() gives the ENDED messages up to the live edge."""

    def __init__(self, broker, **fields):
        super().__init__(broker)
        self.stream = self.send(SUBSCRIBE, fields)

    def until(self, *whats):
        """(the ends that came, the STREAM message that said one of these)."""
        ends = []
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            code, h, payload = self.receive()
            assert h["req"] == self.stream, h
            if code == ENDED:
                ends.append(dict(h, payload=payload))
            elif code == STREAM and h["what"] in whats:
                return ends, h
            else:
                assert code == STREAM, h
        raise AssertionError(f"no {whats}")

    def take(self, n):
        """The next n ends."""
        ends = []
        while len(ends) < n:
            code, h, payload = self.receive()
            if code == ENDED:
                ends.append(dict(h, payload=payload))
        return ends


def run_jobs(client, n, **fields):
    jobs = [client.submit(**fields) for _ in range(n)]
    for job in jobs:
        client.wait(job)
    return jobs


@pytest.fixture(name="broker")
def broker_fixture(tmp_path):
    with Broker(tmp_path, echo(), echo("other")) as broker:
        yield broker


def test_a_consumer_that_comes_back_with_its_offset_misses_nothing_and_gets_nothing_twice(broker):
    with Client(broker) as client, EchoWorker(broker):
        first = run_jobs(client, 5)
        with Subscriber(broker, **{"from": 0}) as s:
            ends, live = s.until("live")
            assert sorted(e["job"] for e in ends) == sorted(first)
            assert [e["offset"] for e in ends] == sorted({e["offset"] for e in ends})
            assert all(e["state"] == "done" and e["pipeline"] == "echo" and e["payload"] == b"" for e in ends)
            more = run_jobs(client, 3)
            assert sorted(e["job"] for e in s.take(3)) == sorted(more), "as they end"
        away = run_jobs(client, 4)
        broker.kill()
        broker.start()
        with Subscriber(broker, **{"from": live["offset"]}) as s:
            assert sorted(e["job"] for e in s.until("live")[0]) == sorted(more + away)
        with Subscriber(broker, **{"from": ends[2]["offset"], "results": True}) as s:
            again, _ = s.until("live")
            assert [e["job"] for e in again[:2]] == [e["job"] for e in ends[3:]]
            assert all("path" in msgpack.unpackb(e["payload"]) or "by" in msgpack.unpackb(e["payload"])
                       for e in again)


def test_filters_kinds_of_ends_and_an_offset_of_another_store(broker):
    with Client(broker) as client, Subscriber(broker, pipeline="other") as live, Worker(broker) as worker:
        job = client.submit(key="my-key")
        worker.fail(worker.lease()[0], "permanent", "no good")
        other = client.submit(pipeline="other", delay_ms=3600000)
        client.ask(5, {"job": other, "reason": "changed my mind"})
        assert [(e["job"], e["state"], e["reason"]) for e in live.take(1)] == \
            [(other, "cancelled", "changed my mind")]
        with Subscriber(broker, **{"from": 0, "kind": "text.embed", "pipeline": "echo"}) as s:
            (end,), _ = s.until("live")
            assert (end["job"], end["state"], end["error_class"], end["reason"], end["key"]) == \
                (job, "failed", "permanent", "no good", "my-key")
        with Subscriber(broker, **{"from": 0, "kind": "no.such"}) as s:
            assert s.until("live")[0] == []
        with Client(broker) as c:
            assert c.refused(SUBSCRIBE, {"from": 1 << 40})["field"] == "from"


def test_what_was_deleted_before_it_was_sent_is_told_as_a_gap(broker):
    with Client(broker) as client, Worker(broker) as worker:
        jobs = []
        for _ in range(4):
            jobs.append(client.submit())
            worker.fail(worker.lease()[0], "permanent", "no good")
            client.wait(jobs[-1])
        for job in jobs[:3]:
            client.ask(DROP, {"job": job})
        with Subscriber(broker, **{"from": 1}) as s:
            _, gap = s.until("gap")
            assert gap["lost"] == 2 and gap["offset"] == 3
            assert [e["job"] for e in s.until("live")[0]] == jobs[3:]
        with Subscriber(broker, **{"from": 0}) as s:
            assert [e["job"] for e in s.until("live")[0]] == jobs[3:], "all that are kept: no gap"
        client.ask(DROP, {"job": jobs[3]})
        with Subscriber(broker, **{"from": 2}) as s:
            assert s.until("gap")[1]["offset"] == 4
            assert s.until("live")[0] == []


def test_a_hole_between_ends_that_are_kept_is_told_as_a_gap(broker):
    with Client(broker) as client, Worker(broker) as worker:
        jobs = []
        for _ in range(4):
            jobs.append(client.submit())
            worker.fail(worker.lease()[0], "permanent", "no good")
            client.wait(jobs[-1])
        for job in jobs[1:3]:
            client.ask(DROP, {"job": job})
        with Subscriber(broker, **{"from": 0}) as s:
            ended, gap = s.until("gap")
            assert [e["job"] for e in ended] == jobs[:1]
            assert (gap["offset"], gap["lost"]) == (3, 2)
            assert [e["job"] for e in s.until("live")[0]] == jobs[3:]


def test_stopped_and_surplus_subscriptions(broker):
    with Client(broker) as client, EchoWorker(broker):
        req = client.send(SUBSCRIBE, {})
        assert client.answer(req)[1]["what"] == "begun"
        client.socket.send_multipart([b"PS\x01" + bytes([EVENTS_STOP]), msgpack.packb({"req": req})])
        client.wait(client.submit())
        assert not any(code == ENDED for code, _, _ in client.early)
        for _ in range(16):
            client.send(SUBSCRIBE, {})
        refused = client.refused(SUBSCRIBE, {})
        assert refused["code"] == "full" and "16" in refused["limit"] and refused["retry_after_ms"]


def slow_socket(broker):
    """Reads nothing and has room for next to nothing."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger, socket.rcvhwm = 0, 1
    socket.connect(broker.clients)
    return socket


def read_all(socket, timeout_s=LONG_S):
    while socket.poll(int(timeout_s * 1000)):
        parts = socket.recv_multipart()
        yield parts[0][3], msgpack.unpackb(parts[1])


def test_a_subscriber_that_does_not_read_is_dropped_with_its_offset_and_can_resume(broker):
    """Results of 8 MB: the broker's bound for one peer is reached, and nobody else notices."""
    with Client(broker) as client, Worker(broker, credit=8) as worker:
        big = msgpack.packb({"data": b"x" * 8000000})
        big = [big[at:at + 1000000] for at in range(0, len(big), 1000000)]
        slow = slow_socket(broker)
        slow.send_multipart([b"PS\x01" + bytes([SUBSCRIBE]),
                             msgpack.packb({"req": 9, "from": 0, "results": True})])
        jobs = []
        for _ in range(20):
            jobs.append(client.submit())
            assert worker.done(worker.lease()[0], big) == "recorded"
        deadline = time.monotonic() + 4 * LONG_S
        while "event=subscriber_dropped" not in broker.log.read_text():
            assert time.monotonic() < deadline
            worker.beat()
            worker.receive(0.2)
        client.wait(jobs[-1])
        seen, dropped = [], None
        for code, h in read_all(slow):
            if code == ENDED:
                seen.append(h)
            elif h["what"] == "dropped":
                dropped = h["offset"]
                break
        slow.close()
        assert dropped is not None and seen and dropped == seen[-1]["offset"] and len(seen) < 20
        with Subscriber(broker, **{"from": dropped}) as s:
            rest, _ = s.until("live")
        assert [e["job"] for e in seen] + [e["job"] for e in rest] == jobs


def test_followers_of_events_that_do_not_read_are_told_where_to_go_on(broker):
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit()
        slow = slow_socket(broker)
        slow.send_multipart([b"PS\x01" + bytes([EVENTS]), msgpack.packb({"req": 7, "job": job, "from": 0})])
        lease, _ = worker.lease()
        text = "x" * 60000
        for i in range(4000):
            worker.send(PROGRESS, {"job": job, "stage": 0, "attempt": lease["attempt"], "type": "token",
                                   "data": {"text": text, "tokens": i}})
            if i % 50 == 0:
                worker.beat()
                client.state(job)
                if client.stats()["watches"] == 0:
                    break
        else:
            raise AssertionError("the broker keeps it all")
        assert worker.done(lease) == "recorded"
        last = None
        for code, h in read_all(slow):
            assert code == EVENT
            if h["type"] == "dropped":
                break
            last = h["seq"]
        else:
            raise AssertionError("no word of it")
        assert h["last"] and h["seq"] == last
        slow.close()
        client.wait(job)
        req = client.send(EVENTS, {"job": job, "from": last})
        rest = [client.answer(req)[1]]
        while not rest[-1].get("last"):
            rest.append(client.answer(req)[1])
        assert [h["data"].get("what") for h in rest][-1] == "ended"


def test_the_command_line_follows_and_ends(broker):
    with Client(broker) as client, EchoWorker(broker):
        jobs = run_jobs(client, 3)
        done = subprocess.run([f"{BIN}/penstock", "results", "--json", "--results", "-e", broker.clients],
                              capture_output=True, text=True, check=False, timeout=LONG_S)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0 and sorted(x["job"] for x in lines) == sorted(jobs), done
        assert all(x["result"] for x in lines)
        with subprocess.Popen([f"{BIN}/penstock", "results", "--follow", "--from", str(lines[1]["offset"]),
                               "-e", broker.clients], stdout=subprocess.PIPE, text=True) as follow:
            assert lines[2]["job"] in follow.stdout.readline()
            broker.kill()
            broker.start()
            more = run_jobs(client, 1)
            assert more[0] in follow.stdout.readline(), "over a restart of the broker"
            follow.terminate()


def test_following_ends_after_its_timeout_with_what_came_and_fails_without_a_broker(broker):
    with Client(broker) as client, EchoWorker(broker):
        jobs = run_jobs(client, 2)

        def results(*args):
            began = time.monotonic()
            done = subprocess.run([f"{BIN}/penstock", "results", "--json", "-e", broker.clients, *args],
                                  capture_output=True, text=True, check=False, timeout=LONG_S)
            return done, [json.loads(line)["job"] for line in done.stdout.splitlines()], time.monotonic() - began
        done, seen, took = results("--follow", "--from", "0", "-t", "1.5")
        assert done.returncode == 0 and sorted(seen) == sorted(jobs) and took >= 1.5, done
        done, seen, _ = results("-t", "30")
        assert done.returncode == 0 and sorted(seen) == sorted(jobs)
        broker.kill()
        done, seen, took = results("--follow", "-t", "1.5")
        assert done.returncode == 3 and not seen and took >= 1.5, done
        broker.start()


def test_python_iterators_resume_by_themselves(broker):
    with Client(broker) as raw, EchoWorker(broker), penstock.Client(broker.clients) as client:
        first = run_jobs(raw, 3)
        seen = list(client.ended(0, follow=False))
        assert sorted(e.job for e in seen) == sorted(first) and all(e.value for e in seen)
        stream = client.ended(seen[0].offset)
        assert [next(stream).job, next(stream).job] == [e.job for e in seen[1:]]
        broker.kill()
        broker.start()
        more = run_jobs(raw, 2)
        assert sorted(e.job for e in itertools.islice(stream, 2)) == sorted(more)
        stream.close()

        async def gather():
            async with penstock.AsyncClient(broker.clients) as aio:
                return [e.job async for e in aio.ended(0, follow=False, results=False)]
        assert sorted(asyncio.run(gather())) == sorted(first + more)
        with pytest.raises(penstock.Refused):
            next(client.ended(1 << 40))
