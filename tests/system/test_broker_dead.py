"""Dead letters: what is kept of them, queued again, dropped; and which jobs a dead worker counts for."""
import json
import os
import subprocess

import pytest

from real_broker import (ACCEPTED_MANY, CANCEL_LEASE, DROP, DROPPED, GOODBYE, LEASE, REQUEUE, REFUSED, SHOW, Broker, Client,
                         EchoWorker, Worker, body, echo)

RETRY = echo("timed").replace("deaths_max: 3", "deaths_max: 3, timeouts_max: 2")


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path, echo(), RETRY, lease_ms=1000, heartbeat_ms=200) as b:
        yield b


@pytest.fixture
def client(broker):
    with Client(broker) as c:
        yield c


@pytest.fixture
def worker(broker):
    with Worker(broker, name="w") as w:
        yield w
        w.send(GOODBYE, {"session": w.session})


def dead_letter(client, worker, words="x", error_class="permanent", **fields):
    job = client.submit(body(words), **fields)
    worker.fail(worker.lease()[0], error_class, f"{words[:20]} is no good")
    client.wait(job)
    return job


def requeue(client, **fields):
    code, h, _ = client.ask(REQUEUE, fields)
    assert code == ACCEPTED_MANY, h
    return h


def test_a_dead_letter_keeps_every_attempt_and_is_run_again_once(broker, client, worker):
    job = client.submit(body("x"), seed=5, has_seed=True, priority=2)
    for i in range(3):
        worker.fail(worker.lease()[0], "transient", f"broken {i}")
    assert client.wait(job)[0]["state"] == "failed"
    shown = client.show(job)
    assert [a["reason"] for a in shown["attempts"]] == ["broken 0", "broken 1", "broken 2"]
    assert {a["outcome"] for a in shown["attempts"]} == {"transient"}
    assert shown["heir"] == "" == shown["origin"]
    verdict, = requeue(client, job=job)["jobs"]
    assert verdict["origin"] == job and verdict["job"] != job and not verdict["existing"]
    again, = requeue(client, job=job)["jobs"]
    assert again["existing"] and again["job"] == verdict["job"]
    heir = client.show(verdict["job"])
    assert (heir["origin"], heir["seed"], heir["priority"]) == (job, 5, 2)
    assert client.show(job)["heir"] == verdict["job"] and client.show(job)["state"] == "failed"
    lease, payload = worker.lease()
    assert lease["job"] == verdict["job"] and payload == [body("x")]
    worker.done(lease)
    assert client.wait(verdict["job"])[0]["state"] == "done"


def test_all_that_a_filter_lets_through_are_run_again(client, worker):
    bad = [dead_letter(client, worker, f"x{i}") for i in range(5)]
    page = requeue(client, error_class="permanent", limit=3)
    assert [v["origin"] for v in page["jobs"]] == bad[:1:-1] and page["next"]
    rest = requeue(client, error_class="permanent", limit=3, before=page["next"])
    assert [v["origin"] for v in rest["jobs"]] == bad[1::-1] and "next" not in rest
    assert requeue(client, error_class="permanent")["jobs"] == [], "each only once"
    assert requeue(client, kind="text.generate")["jobs"] == []


def test_only_dead_letters_are_run_again_or_dropped(client, worker):
    job = client.submit()
    for code in REQUEUE, DROP:
        assert client.refused(code, {"job": job})["code"] == "not_dead"
        assert client.refused(code, {"job": "0000000000001"})["code"] == "unknown_job"
    worker.done(worker.lease()[0])
    client.wait(job)
    assert client.refused(REQUEUE, {"job": job})["code"] == "not_dead"


def test_dropped_letters_are_gone_for_good(broker, client, worker):
    bad = [dead_letter(client, worker, "y" * 3000) for _ in range(4)]
    assert client.ask(DROP, {"job": bad[0]})[1]["dropped"] == 1
    code, h, _ = client.ask(DROP, {})
    assert code == DROPPED and h["dropped"] == 3 and "next" not in h
    broker.kill()
    broker.start()
    for job in bad:
        assert client.ask(SHOW, {"job": job})[0] == REFUSED
    assert client.stats()["stored_jobs"] == 0


def test_a_requeued_letter_survives_a_kill(broker, client, worker):
    job = dead_letter(client, worker, "z" * 5000)
    heir = requeue(client, job=job)["jobs"][0]["job"]
    broker.kill()
    broker.start()
    assert client.show(heir)["origin"] == job
    assert requeue(client, job=job)["jobs"][0]["job"] == heir
    with EchoWorker(broker):
        assert client.wait(heir)[0]["state"] == "done"


def test_timeouts_transient_failures_and_deaths_are_counted_apart(client, worker):
    job = client.submit(pipeline="timed")
    for kind in "transient", "timeout", "transient":
        worker.fail(worker.lease()[0], kind)
    worker.fail(worker.lease()[0], "worker_died")
    assert client.until(job, "ready", "leased", "delayed")["deaths"] == 1
    worker.fail(worker.lease()[0], "timeout", "too slow")
    header, _ = client.wait(job)
    assert (header["state"], header["error_class"], header["reason"]) == ("failed", "timeout", "too slow")


def test_a_lease_that_had_not_begun_when_its_worker_died_counts_for_nothing(broker, client):
    jobs = [client.submit(body(str(i))) for i in range(3)]
    with Worker(broker, name="doomed") as w:
        leases = [w.lease()[0] for _ in jobs]
        w.fail(leases[0], "worker_died", "killed by signal 11")
        w.send(GOODBYE, {"session": w.session, "dead": True})
        shown = [client.until(job, "ready") for job in jobs]
        assert [s["deaths"] for s in shown] == [1, 0, 0]
        assert [len(s["attempts"]) for s in shown] == [1, 0, 0]
        assert w.nothing(CANCEL_LEASE)
    with EchoWorker(broker):
        assert all(client.wait(job)[0]["state"] == "done" for job in jobs)


def test_who_was_only_near_a_death_is_cleared_and_who_causes_it_is_found(broker, client):
    """A worker that vanishes leaves all its jobs under suspicion; each then runs with nobody near."""
    jobs = [client.submit(body(str(i))) for i in range(4)]
    with Worker(broker, name="vanishes") as w:
        assert {w.lease()[0]["job"] for _ in jobs} == set(jobs)
    assert [client.until(job, "ready")["deaths"] for job in jobs] == [1, 1, 1, 1]
    poison, ends = jobs[1], set()
    while len(ends) < len(jobs):
        with Worker(broker, name="another") as w:
            while len(ends) < len(jobs):
                lease, _ = w.lease()
                assert lease["alone"] and w.nothing(LEASE)
                if lease["job"] == poison:
                    break
                assert w.done(lease) == "recorded"
                ends.add(lease["job"])
        if client.until(poison, "ready", "failed")["state"] == "failed":
            ends.add(poison)
    ended = [client.show(job) for job in jobs]
    assert [(e["state"], e["deaths"]) for e in ended] == [("done", 1), ("failed", 3), ("done", 1), ("done", 1)]
    assert ended[1]["error_class"] == "worker_died"


def test_a_busy_worker_drains_for_a_job_that_has_to_run_alone_then_takes_the_rest(broker, client):
    with Worker(broker, name="vanishes") as w:
        suspect = client.submit()
        w.lease()
    assert client.until(suspect, "ready")["deaths"] == 1
    with Worker(broker, name="busy", credit=3) as w:
        lease, _ = w.lease()
        assert lease["job"] == suspect
        others = [client.submit(body(str(i))) for i in range(5)]
        assert w.nothing(LEASE)
        w.fail(lease)  # it comes back after a pause, when the worker holds others
        held = [w.lease()[0] for _ in range(3)]
        client.until(suspect, "ready")
        for lease in held:
            assert lease["job"] in others and w.done(lease) == "recorded"
        lease, _ = w.lease()
        while lease["job"] != suspect:  # taken before the suspect was ready again
            held.append(lease)
            assert w.done(lease) == "recorded"
            lease, _ = w.lease()
        assert lease["alone"] and w.nothing(LEASE)
        assert w.done(lease) == "recorded"
        for _ in range(len(others) - len(held)):
            assert w.done(w.lease()[0]) == "recorded"
    assert all(client.wait(job)[0]["state"] == "done" for job in [suspect, *others])


def test_the_command_line_lists_requeues_and_drops(broker, client, worker):
    def penstock(*args):
        done = subprocess.run([os.path.join(os.environ["PENSTOCK_BIN"], "penstock"), "dead", *args, "--endpoint",
                               broker.clients], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr
    bad = [dead_letter(client, worker, f"w{i}") for i in range(3)]
    code, out, _ = penstock("ls", "--json")
    assert code == 0 and [d["job"] for d in json.loads(out)["dead"]] == bad[::-1]
    code, out, _ = penstock("show", bad[0])
    assert code == 0 and "w0 is no good" in out
    code, out, _ = penstock("requeue", bad[0])
    assert code == 0 and out.split()[0] == bad[0]
    assert client.show(out.split()[1])["origin"] == bad[0]
    assert "w0 is no good" not in penstock("ls")[1]
    assert penstock("requeue")[0] == 2 and penstock("drop", "--all", bad[1])[0] == 2
    code, out, _ = penstock("requeue", "--all", "--class", "permanent")
    assert code == 0 and len(out.splitlines()) == 2
    code, out, _ = penstock("drop", "--all", "--json")
    assert code == 0 and json.loads(out) == {"dropped": 3}
    assert penstock("drop", bad[0])[0] == 1
    assert client.stats()["stored_jobs"] == 3, "what was made of them is still there"
