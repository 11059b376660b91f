"""Sources of jobs, such as cameras: block, drop_oldest, sample, with what was left out counted on disk."""
import json
import os
import subprocess

import msgpack
import pytest

import penstock
from real_broker import (ACCEPTED, ACCEPTED_MANY, REFUSED, RESULT, SUBMIT, SUBMIT_MANY, WAIT, Broker,
                         Client, Worker, body, echo)

SETTINGS = """sources:
  - {name: door, policy: block, depth: 2}
  - {name: gate, policy: drop_oldest, depth: 2}
  - {name: belt, policy: sample, depth: 20, above: 2, keep_one_of: 3}
  - {name: "*", policy: block, depth: 100}
levels:
  - {level: 9, jobs_max: 2, full: drop_oldest}
"""


@pytest.fixture
def broker(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    with Broker(tmp_path, echo(), extra=("--settings", str(path))) as b:
        yield b


def header(source, **fields):
    return dict({"kind": "text.embed", "pipeline": "echo", "source": source}, **fields)


def counts(client, name):
    return next(s for s in client.stats()["sources"] if s["name"] == name)


def test_a_blocked_source_is_refused_and_told_when_to_come_again(broker):
    with Client(broker) as c:
        first = c.submit(source="door")
        c.submit(source="door")
        why = c.refused(SUBMIT, header("door"), body())
        assert (why["code"], why["field"], why["limit"]) == ("full", "source", "at most 2 jobs"), why
        assert "source door has 2 live jobs" in why["message"] and why["retry_after_ms"] > 0, why
        c.submit(source="window")
        assert c.show(first)["source"] == "door"
        with Worker(broker, credit=1) as w:
            w.done(w.lease()[0])
            c.wait(first)
        c.submit(source="door")


def test_the_oldest_that_waits_is_dropped_and_counted_for_good(broker):
    with Client(broker) as c:
        jobs = [c.submit(source="gate") for _ in range(5)]
        for job in jobs[:3]:
            h, _ = c.wait(job)
            assert (h["state"], h["reason"]) == ("cancelled", "dropped"), h
        assert [c.state(job) for job in jobs[3:]] == ["ready", "ready"]
        assert counts(c, "gate") == {"tenant": "default", "name": "gate", "policy": "drop_oldest",
                                     "depth": 2, "jobs": 2, "dropped": 3, "sampled": 0}
    broker.kill()
    broker.start()
    with Client(broker) as c:
        assert counts(c, "gate")["dropped"] == 3 and counts(c, "gate")["jobs"] == 2
        c.submit(source="gate")
        assert c.wait(jobs[3])[0]["reason"] == "dropped"
        assert counts(c, "gate")["dropped"] == 4


def test_a_job_that_runs_is_never_dropped(broker):
    with Client(broker) as c, Worker(broker, credit=1) as w:
        running = c.submit(source="gate")
        lease, _ = w.lease()
        waiting = c.submit(source="gate")
        last = c.submit(source="gate")
        assert c.wait(waiting)[0]["reason"] == "dropped"
        w.done(lease)
        assert c.wait(running)[0]["state"] == "done"
        lease, _ = w.lease()
        assert lease["job"] == last
        other = c.submit(source="gate")
        w.done(lease)
        lease, _ = w.lease()
        assert lease["job"] == other
        w.done(lease)
        assert counts(c, "gate")["dropped"] == 1


def test_when_all_run_the_newer_one_is_refused(broker):
    with Client(broker) as c, Worker(broker, credit=2) as w:
        c.submit(source="gate"), c.submit(source="gate")
        leases = [w.lease()[0] for _ in range(2)]
        assert c.refused(SUBMIT, header("gate"), body())["code"] == "full"
        for lease in leases:
            w.done(lease)


def test_a_known_key_drops_nobody(broker):
    with Client(broker) as c:
        first = c.submit(source="gate", key="frame-1")
        second = c.submit(source="gate")
        code, h, _ = c.ask(SUBMIT, header("gate", key="frame-1"), body())
        assert code == ACCEPTED and h["job"] == first and h["existing"], h
        assert c.state(first) == c.state(second) == "ready"
        assert counts(c, "gate")["dropped"] == 0 and counts(c, "gate")["jobs"] == 2
        third = c.submit(source="gate")
        assert c.wait(first)[0]["reason"] == "dropped"
        assert c.state(second) == c.state(third) == "ready"
        code, h, _ = c.ask(SUBMIT, header("gate", key="frame-1"), body())
        assert code == ACCEPTED and h["state"] == "cancelled" and h["existing"], h
        assert c.state(second) == "ready", "nobody made room for it"


def test_a_deep_source_is_sampled_and_what_is_left_out_is_counted(broker):
    with Client(broker) as c:
        verdicts = [c.ask(SUBMIT, header("belt"), body())[:2] for _ in range(11)]
        assert [code for code, _ in verdicts] == [ACCEPTED] * 3 + [REFUSED] * 2 + [ACCEPTED] + \
            [REFUSED] * 2 + [ACCEPTED] + [REFUSED] * 2
        why = verdicts[3][1]
        assert why["code"] == "sampled" and not why.get("retry_after_ms"), why
        assert why["field"] == "source" and "one of 3" in why["limit"], why
        assert counts(c, "belt")["sampled"] == 6 and counts(c, "belt")["jobs"] == 5
    broker.kill()
    broker.start()
    with Client(broker) as c:
        assert counts(c, "belt")["sampled"] == 6


def test_each_job_of_a_batch_meets_the_policy(broker):
    with Client(broker) as c:
        texts = msgpack.packb([msgpack.unpackb(body(str(i))) for i in range(6)])
        code, h, _ = c.ask(SUBMIT_MANY, header("gate"), texts)
        assert code == ACCEPTED_MANY and (h["accepted"], h["refused"]) == (2, 4), \
            "who is not on disk yet cannot be dropped"
        code, h, _ = c.ask(SUBMIT_MANY, header("gate"), texts)
        assert (h["accepted"], h["refused"]) == (2, 4), h
        assert counts(c, "gate")["dropped"] == 2
        code, h, _ = c.ask(SUBMIT_MANY, header("belt"), texts)
        assert [v.get("code") for v in h["jobs"]] == [None, None, None, "sampled", "sampled", None]


def test_a_full_level_can_drop_the_oldest_of_the_same_tenant(broker):
    with Client(broker) as c:
        jobs = [c.submit(priority=9) for _ in range(3)]
        assert c.wait(jobs[0])[0]["reason"] == "dropped"
        assert [c.state(job) for job in jobs[1:]] == ["ready", "ready"]
        c.submit(priority=8)


def test_a_waiting_client_is_told_of_the_drop(broker):
    with Client(broker) as c, Client(broker) as other:
        job = c.submit(source="gate")
        req = c.send(WAIT, {"job": job, "timeout_ms": 60000})
        other.submit(source="gate"), other.submit(source="gate")
        code, h, _ = c.answer(req)
        assert code == RESULT and h["state"] == "cancelled" and h["reason"] == "dropped", h


def test_both_clients_and_the_command_line_name_a_source(broker):
    program = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")

    def run(*args):
        done = subprocess.run([program, *args, "--endpoint", broker.clients], capture_output=True,
                              text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout
    with penstock.Client(broker.clients) as c:
        job = c.submit("text.embed", {"texts": ["a"]}, pipeline="echo", source="gate")
    run("submit", "text.embed", "--text", "b", "--pipeline", "echo", "--source", "gate")
    run("submit", "text.embed", "--text", "c", "--pipeline", "echo", "--source", "gate")
    shown = json.loads(run("job", "show", str(job), "--json"))
    assert (shown["source"], shown["state"], shown["reason"]) == ("gate", "cancelled", "dropped")
    row = next(line for line in run("status").splitlines() if line.startswith("gate"))
    assert row.split() == ["gate", "drop_oldest", "2", "2", "1", "0"], row
