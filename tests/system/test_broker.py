"""What the broker promises, shown from outside: clients and workers made of pyzmq and msgpack."""
import contextlib
import time

import msgpack
import pytest

from real_broker import (ACCEPTED, CANCEL, CANCEL_LEASE, CHAIN, EVENT, EVENTS, EVENTS_STOP, HEARTBEAT,
                         JOBS, LEASE, LIST, PING, PONG, PROGRESS, REFUSED, REGISTER, REGISTERED,
                         REREGISTER, RESULT_GET, RETURN, SHOW, STAGE_ACK, STAGE_DONE, STATE, SUBMIT,
                         TERMINAL, WAIT, WORKER_LIST, WORKERS, Broker, Client, EchoWorker, Worker,
                         body, echo, frames)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One broker for the tests that leave nothing behind which another would notice."""
    with Broker(tmp_path_factory.mktemp("b"), echo(), CHAIN, echo("fragile", tries=2, deaths=2),
                echo("quick", timeout_ms=100), echo("narrow", queue_max=3), lease_ms=1000,
                heartbeat_ms=200) as broker:
        yield broker


@pytest.fixture
def client(shared):
    with Client(shared) as c:
        yield c


@pytest.fixture
def worker(shared):
    """A worker that goes away in order, so that it leaves no lost leases to the next test."""
    with Worker(shared) as w:
        yield w
        w.leave()


# ---- a job's way through ----

def test_a_job_is_accepted_leased_and_its_result_returned(client, worker):
    job = client.submit(body("x"), seed=7, has_seed=True)
    assert client.state(job) == "ready"
    lease, payload = worker.lease()
    assert (lease["job"], lease["stage"], lease["kind"], lease["seed"]) == (job, 0, "text.embed", 7)
    assert [s["run"] for s in lease["plan"]] == ["test.echo"]
    assert payload == [body("x")]
    assert client.state(job) == "leased"
    assert worker.done(lease, msgpack.packb({"answer": 42}), numerics_id="fake-1") == "recorded"
    header, result = client.wait(job)
    assert result == {"answer": 42}
    assert (header["state"], header["attempt"], header["numerics_id"]) == (
        "done", lease["attempt"], "fake-1")
    shown = client.show(job)
    assert shown["state"] == "done" and shown["seed"] == 7
    assert shown["stages"][0]["worker"] == "fake" and shown["stages"][0]["run_us"] == 5


def test_large_bodies_and_results_arrive_whole(client, worker):
    text = body("é" * 300000)
    job = client.submit(text)
    lease, payload = worker.lease()
    assert payload == [text]
    whole = msgpack.packb({"data": bytes(range(256)) * (3 << 12)})
    parts = [whole[at:at + (1 << 20)] for at in range(0, len(whole), 1 << 20)]
    assert worker.done(lease, parts) == "recorded"
    code, header, payload = client.ask(WAIT, {"job": job})
    assert header["state"] == "done" and payload == whole


def test_names_of_64_bytes_are_kept_whole(shared, client):
    run, name = "test." + "r" * 59, "w" * 64
    with Worker(shared, run, "test.echo", name=name) as w:
        row = next(row for row in client.ask(WORKERS, {})[1]["workers"] if row["name"] == name)
        assert run in row["runs"]
        job = client.submit()
        w.done(w.lease()[0])
        client.wait(job)
        assert client.show(job)["stages"][0]["worker"] == name
        w.leave()


@pytest.mark.parametrize("run_us", [2**64 - 1, 2**63, 10**12])
def test_a_stage_cannot_have_begun_before_its_lease(client, worker, run_us):
    job = client.submit()
    worker.done(worker.lease()[0], run_us=run_us)
    client.wait(job)
    shown = client.show(job)
    stage = shown["stages"][0]
    assert shown["accepted_ms"] <= stage["started_ms"] <= stage["done_ms"] and stage["run_us"] == run_us


@pytest.mark.parametrize("result", [[b"\xc1"], [b"\x81"], [b"\x80\x80"], [b"\xa1\xff"], [b"\xda", b"\xff"]])
def test_a_result_that_is_no_document_fails_its_attempt(client, worker, result):
    job = client.submit()
    lease, _ = worker.lease()
    worker.done(lease, result)
    again, _ = worker.lease()
    assert again["job"] == job and again["attempt"] != lease["attempt"]
    worker.done(again)
    assert client.wait(job)[1] == {"by": again["attempt"]}
    [attempt] = client.show(job)["attempts"]
    assert "msgpack" in attempt["reason"] and "test.echo" in attempt["reason"]


def test_a_span_is_one_lease_and_its_stages_follow_each_other(shared, client):
    with EchoWorker(shared, "test.a", "test.b", "test.c"):
        job = client.submit(pipeline="chain")
        _, result = client.wait(job)
        assert result["path"] == ["test.a", "test.b", "test.c"]
        assert len({s["attempt"] for s in client.show(job)["stages"]}) == 1


def test_stages_go_to_the_workers_that_can_run_them(shared, client):
    with EchoWorker(shared, "test.a", "test.c"), EchoWorker(shared, "test.b"):
        jobs = [client.submit(pipeline="chain") for _ in range(20)]
        for job in jobs:
            assert client.wait(job)[1]["path"] == ["test.a", "test.b", "test.c"]


def test_a_worker_without_the_model_gets_nothing(tmp_path):
    text = echo().replace("run: test.echo", "run: test.echo, model: m1")
    with Broker(tmp_path, text) as broker, Client(broker) as client:
        with Worker(broker, models=["m2"]) as other, Worker(broker, models=["m1"]) as right:
            job = client.submit()
            assert right.lease()[0]["job"] == job
            assert other.nothing(LEASE)


def test_higher_priorities_go_first_and_equal_ones_by_age(client, shared):
    jobs = {p: [client.submit(priority=p) for _ in range(2)] for p in (7, 0, 4)}
    with Worker(shared, credit=1) as w:
        order = []
        for _ in range(6):
            lease, _ = w.lease()
            order.append(lease["job"])
            w.done(lease)
        assert order == jobs[0] + jobs[4] + jobs[7]


def test_credits_bound_what_a_worker_holds(client, shared):
    jobs = [client.submit() for _ in range(3)]
    with Worker(shared, credit=2) as w:
        first, second = w.lease()[0], w.lease()[0]
        assert w.nothing(LEASE)
        w.done(first)
        third = w.lease()[0]
        assert [x["job"] for x in (first, second, third)] == jobs
        w.done(second), w.done(third)


def test_credits_in_bytes_bound_it_too_but_never_starve_a_large_job(client, shared):
    jobs = [client.submit(body("x" * 50000)) for _ in range(2)]
    with Worker(shared, credit_bytes=60000) as w:
        lease, _ = w.lease()
        assert w.nothing(LEASE)
        w.done(lease)
        w.done(w.lease()[0])
    assert [client.wait(j)[0]["state"] for j in jobs] == ["done", "done"]


# ---- idempotency ----

def test_the_same_key_returns_the_same_job_whatever_its_state(client, worker):
    fields = {"kind": "text.embed", "pipeline": "echo", "key": "k-1"}
    code, first, _ = client.ask(SUBMIT, fields, body())
    assert code == ACCEPTED and not first.get("existing")
    _, again, _ = client.ask(SUBMIT, fields, body())
    assert again["existing"] and again["job"] == first["job"] and again["seed"] == first["seed"]
    worker.done(worker.lease()[0])
    client.wait(first["job"])
    _, late, _ = client.ask(SUBMIT, fields, body())
    assert late["existing"] and late["job"] == first["job"] and late["state"] == "done"


def test_the_same_key_with_another_body_is_refused_with_the_job_named(client):
    job = client.submit(key="k-2")
    refusal = client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "k-2"},
                             body("other"))
    assert refusal["code"] == "key_conflict" and job in refusal["message"]
    client.ask(CANCEL, {"job": job})


def test_a_burst_of_one_key_makes_one_job(client):
    reqs = [client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "k-3"}, body())
            for _ in range(200)]
    answers = [client.receive() for _ in reqs]
    assert {code for code, _, _ in answers} == {ACCEPTED}
    assert len({h["job"] for _, h, _ in answers}) == 1
    assert sum(not h.get("existing") for _, h, _ in answers) == 1
    client.ask(CANCEL, {"job": answers[0][1]["job"]})


def test_a_burst_of_one_key_that_expires_at_once_ends_one_job(client):
    for round_ in range(20):
        for _ in range(20):
            client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": f"x-{round_}",
                                 "ttl_ms": 1}, body())
    answers = [client.receive() for _ in range(400)]
    assert {code for code, _, _ in answers} == {ACCEPTED}
    jobs = {h["job"] for _, h, _ in answers}
    assert len(jobs) == 20
    assert {client.wait(job)[0]["state"] for job in jobs} == {"expired"}


def test_the_broker_draws_a_seed_that_stays(client):
    a, b = client.submit(key="s-1"), client.submit()
    seeds = [client.show(j)["seed"] for j in (a, b)]
    assert seeds[0] != seeds[1]
    assert client.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "s-1"},
                      body())[1]["seed"] == seeds[0]
    for job in (a, b):
        client.ask(CANCEL, {"job": job})


# ---- ends other than done ----

def test_a_transient_failure_is_retried_with_a_delay_until_the_tries_are_used_up(client, worker):
    job = client.submit(pipeline="fragile")
    for attempt in range(2):
        lease, _ = worker.lease()
        assert worker.fail(lease, "transient", f"broke {attempt}") == "recorded"
    header, _ = client.wait(job)
    assert (header["state"], header["error_class"], header["reason"]) == (
        "failed", "transient", "broke 1")
    shown = client.show(job)
    assert [a["reason"] for a in shown["attempts"]] == ["broke 0", "broke 1"]
    assert [a["outcome"] for a in shown["attempts"]] == ["transient", "transient"]


def test_a_permanent_failure_ends_the_job_at_once(client, worker):
    job = client.submit()
    worker.fail(worker.lease()[0], "permanent", "the text is no text")
    header, _ = client.wait(job)
    assert (header["state"], header["error_class"], header["reason"]) == (
        "failed", "permanent", "the text is no text")


def test_a_job_that_kills_its_workers_runs_alone_and_is_then_quarantined(shared, client):
    job = client.submit(pipeline="fragile")
    with Worker(shared) as first:
        assert not first.lease()[0].get("alone")
    with Worker(shared) as second:  # the first is silent now; this one keeps beating
        assert second.lease()[0]["alone"]
    header, _ = client.wait(job)
    assert (header["state"], header["error_class"]) == ("failed", "worker_died")
    assert [a["outcome"] for a in client.show(job)["attempts"]] == ["worker_died"] * 2


def test_a_stage_past_its_time_is_taken_back_though_its_worker_is_alive(client, shared):
    job = client.submit(pipeline="quick")
    with Worker(shared) as w:
        lease, _ = w.lease()
        cancelled, _ = w.expect(CANCEL_LEASE)
        assert (cancelled["job"], cancelled["attempt"]) == (job, lease["attempt"])
        assert w.done(lease) == "stale"
        again, _ = w.lease()
        assert again["attempt"] > lease["attempt"]
        w.done(again)
    assert client.wait(job)[0]["attempt"] == again["attempt"]
    assert client.show(job)["attempts"][0]["outcome"] == "timeout"


def test_a_returned_lease_is_no_try(client, worker):
    job = client.submit(pipeline="fragile")
    for _ in range(4):
        lease, _ = worker.lease()
        worker.send(RETURN, {"job": job, "stage": 0, "attempt": lease["attempt"]})
        assert worker.expect(STAGE_ACK)[0]["verdict"] == "recorded"
    worker.done(worker.lease()[0])
    assert client.wait(job)[0]["state"] == "done"
    assert client.show(job)["attempts"] == []


def test_cancel_ends_a_queued_job_and_says_so_after_the_commit(client):
    job = client.submit()
    code, h, _ = client.ask(CANCEL, {"job": job, "reason": "changed my mind"})
    assert code == STATE and h["state"] == "cancelled"
    header, _ = client.wait(job)
    assert (header["state"], header["reason"]) == ("cancelled", "changed my mind")
    assert client.ask(CANCEL, {"job": job})[1]["state"] == "cancelled"


def test_cancel_takes_a_lease_back_and_a_late_outcome_is_stale(client, worker):
    job = client.submit()
    lease, _ = worker.lease()
    assert client.ask(CANCEL, {"job": job})[1]["state"] == "cancelled"
    assert worker.expect(CANCEL_LEASE)[0]["attempt"] == lease["attempt"]
    assert worker.done(lease) == "stale"
    assert client.wait(job)[0]["state"] == "cancelled"


def test_a_long_reason_is_cut_between_characters_and_can_be_read(client, worker):
    jobs = [client.submit(), client.submit()]
    for job, reason in zip(jobs, ("\u00e9" * 256, "a" + "\u53f7" * 170)):
        lease, _ = worker.lease()
        assert lease["job"] == job and worker.fail(lease, "permanent", reason) == "recorded"
        shown, _ = client.wait(job)
        assert shown["state"] == "failed" and reason.startswith(shown["reason"])
        assert len(shown["reason"].encode()) >= 508
        assert client.show(job)["reason"] == shown["reason"]
    cancelled = client.submit()
    client.ask(CANCEL, {"job": cancelled, "reason": "\u00e9" * 256})
    assert client.wait(cancelled)[0]["reason"] == "\u00e9" * 255
    assert client.ask(LIST, {"limit": 5})[0] == JOBS


def test_a_job_that_nobody_was_told_of_cannot_be_cancelled(client, shared):
    """Ids can be guessed, and a submit that is being committed may turn out to be a duplicate."""
    first = client.submit(key="guessed")
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

    def guess(ms):
        value = ms << 20
        return "".join(alphabet[value >> 5 * i & 31] for i in reversed(range(13)))
    for _ in range(100):
        client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "guessed"}, body())
        for ms in range(-1, 3):
            client.send(CANCEL, {"job": guess(int(time.time() * 1000) + ms)})
    seen = [client.receive() for _ in range(500)]
    assert {h["job"] for code, h, _ in seen if code == ACCEPTED} == {first}
    assert {h["code"] for code, h, _ in seen if code == REFUSED} == {"unknown_job"}
    client.ask(CANCEL, {"job": first})


def test_a_job_expires_by_the_brokers_own_timer(client, worker):
    job = client.submit(ttl_ms=400)
    lease, _ = worker.lease()
    assert 0 < lease["left_ms"] <= 400
    header, _ = client.wait(job)
    assert header["state"] == "expired"
    assert worker.expect(CANCEL_LEASE)[0]["job"] == job


def test_a_delayed_job_holds_no_lease_until_its_time(client, worker):
    began = time.monotonic()
    job = client.submit(delay_ms=500)
    assert client.state(job) == "delayed"
    lease, _ = worker.lease()
    assert lease["job"] == job and time.monotonic() - began >= 0.49
    worker.done(lease)


# ---- fencing ----

def test_only_the_current_attempt_records_an_outcome(shared, client):
    job = client.submit()
    with Worker(shared) as slow, Worker(shared, "test.none") as beating:
        old, _ = slow.lease()
        beating.nothing(LEASE, 1.6)  # beyond the lease time, in which the slow one says nothing
        with Worker(shared) as fresh:
            new, _ = fresh.lease()
            assert new["job"] == job and new["attempt"] > old["attempt"]
            slow.send(STAGE_DONE, {"job": job, "stage": 0, "attempt": old["attempt"]}, b"\x80")
            assert slow.expect(STAGE_ACK)[0]["verdict"] == "stale"
            assert fresh.done(new, msgpack.packb({"by": "fresh"})) == "recorded"
            assert fresh.done(new, msgpack.packb({"by": "again"})) == "stale"
    assert client.wait(job)[1] == {"by": "fresh"}


def test_an_outcome_of_another_stage_or_beyond_the_span_is_stale(client, worker):
    job = client.submit()
    lease, _ = worker.lease()
    for stage, more in ((1, False), (0, True)):
        worker.send(STAGE_DONE, {"job": job, "stage": stage, "attempt": lease["attempt"],
                                 "more": more}, b"\x80")
        assert worker.expect(STAGE_ACK)[0]["verdict"] == "stale"
    assert worker.done(lease) == "recorded"


def test_an_unknown_session_is_told_to_register_again(shared):
    with Worker(shared, "test.none") as w:
        w.send(HEARTBEAT, {"session": "nobody", "epoch": w.epoch})
        assert w.expect(REREGISTER)[0]["reason"]
        w.send(HEARTBEAT, {"session": w.session, "epoch": w.epoch + 1})
        w.expect(REREGISTER)
        w.send(REGISTER, w.registration)
        assert w.expect(REGISTERED)[0]["heartbeat_ms"] == 200


def test_a_silent_worker_is_forgotten_and_may_come_back(shared, client):
    with Worker(shared, "test.none", name="silent") as w:
        time.sleep(1.5)
        listed = client.ask(WORKERS, {})
        assert listed[0] == WORKER_LIST
        assert "silent" not in [x["name"] for x in listed[1]["workers"]]
        w.beat()
        w.expect(REREGISTER)
        w.register()
        assert "silent" in [x["name"] for x in client.ask(WORKERS, {})[1]["workers"]]


# ---- asking ----

def test_wait_answers_the_state_when_its_time_is_over(client):
    job = client.submit()
    code, h, _ = client.ask(WAIT, {"job": job, "timeout_ms": 50})
    assert code == STATE and h["state"] == "ready"
    assert client.ask(RESULT_GET, {"job": job})[0] == STATE
    client.ask(CANCEL, {"job": job})
    assert client.ask(RESULT_GET, {"job": job})[1]["state"] == "cancelled"


def test_several_clients_wait_for_one_job(shared, worker):
    with Client(shared) as a, Client(shared) as b:
        job = a.submit()
        reqs = [(c, c.send(WAIT, {"job": job, "timeout_ms": 20000})) for c in (a, b)]
        worker.done(worker.lease()[0])
        assert {c.answer(req)[1]["state"] for c, req in reqs} == {"done"}


def test_events_follow_a_job_to_its_last_one(client, worker):
    job = client.submit()
    req = client.send(EVENTS, {"job": job})
    lease, _ = worker.lease()
    worker.send(PROGRESS, {"job": job, "stage": 0, "attempt": lease["attempt"], "type": "token",
                           "data": {"index": 0, "text": "hi"}})
    worker.send(PROGRESS, {"job": job, "stage": 0, "attempt": lease["attempt"] - 1,
                           "type": "token", "data": {"index": 0, "text": "stale"}})
    worker.done(lease)
    seen = []
    while not seen or not seen[-1].get("last"):
        code, h, _ = client.answer(req)
        assert code == EVENT
        seen.append(h)
    assert [h["seq"] for h in seen] == sorted({h["seq"] for h in seen})
    assert [h["data"]["text"] for h in seen if h["type"] == "token"] == ["hi"]
    states = [h["data"] for h in seen if h["type"] == "state"]
    assert [s["state"] for s in states] == ["ready", "leased", "done", "done"]
    assert [s.get("what") for s in states] == [None, "leased", "stage_done", "ended"]


def test_events_of_a_finished_job_are_its_end(client):
    job = client.submit()
    client.ask(CANCEL, {"job": job})
    code, h, _ = client.ask(EVENTS, {"job": job})
    assert code == EVENT and h["last"] and h["data"]["state"] == "cancelled"


def test_events_stop_ends_a_stream(client, worker):
    job = client.submit()
    req = client.send(EVENTS, {"job": job})
    assert client.answer(req)[1]["data"]["state"] == "ready"
    client.socket.send_multipart(frames(EVENTS_STOP, {"req": req}))
    client.ask(PING, {})
    client.early.clear()  # what was sent before the stop
    worker.done(worker.lease()[0])
    client.wait(job)
    assert client.answer(req, 0.3) is None


def test_list_pages_newest_first_and_filters(client):
    jobs = [client.submit() for _ in range(7)]
    for job in jobs[:3]:
        client.ask(CANCEL, {"job": job})
    rows, before = [], None
    while True:
        code, h, _ = client.ask(LIST, {"limit": 2, **({"before": before} if before else {})})
        assert code == JOBS and len(h["jobs"]) <= 2
        rows += h["jobs"]
        before = h.get("next")
        if before is None or len(rows) > 9:
            break
    assert [r["job"] for r in rows[:7]] == jobs[::-1]
    assert [r["state"] for r in rows[:7]] == ["ready"] * 4 + ["cancelled"] * 3
    ready = client.ask(LIST, {"state": "ready"})[1]["jobs"]
    assert [r["job"] for r in ready] == jobs[:2:-1]
    assert client.ask(LIST, {"kind": "text.generate"})[1]["jobs"] == []
    assert client.refused(LIST, {"state": "lost"})["field"] == "state"
    for job in jobs[3:]:
        client.ask(CANCEL, {"job": job})


def test_a_filter_that_matches_little_does_not_hold_the_broker(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        first = None
        for _ in range(101):  # a client that asks for more than its queue holds loses answers
            reqs = [client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body()) for _ in range(100)]
            jobs = [client.receive()[1]["job"] for _ in reqs]
            first = first or jobs[0]
        client.ask(CANCEL, {"job": first})
        page = client.ask(LIST, {"state": "cancelled"})[1]
        assert page["jobs"] == [] and page["next"], "the page ends early and says where to go on"
        page = client.ask(LIST, {"state": "cancelled", "before": page["next"]})[1]
        assert [row["job"] for row in page["jobs"]] == [first] and not page.get("next")


def test_unknown_jobs_are_refused_by_name(client):
    for code in (WAIT, RESULT_GET, SHOW, CANCEL, EVENTS):
        h = client.refused(code, {"job": "0000000000001"})
        assert h["code"] == "unknown_job" and "0000000000001" in h["message"]


def test_ping_and_status_say_that_it_accepts(client):
    code, h, _ = client.ask(PING, {})
    assert code == PONG and h.get("accepting", True) and h["epoch"] >= 1 and h["version"]
    stats = client.stats()
    assert stats["accepting"] and stats["commits"] > 0 and stats["uptime_ms"] > 0


# ---- limits ----

def test_a_full_pipeline_refuses_with_its_limit_and_when_to_come_back(client):
    jobs = [client.submit(pipeline="narrow") for _ in range(3)]
    h = client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "narrow"}, body())
    assert h["code"] == "full" and "3" in h["limit"] and h["retry_after_ms"] > 0
    client.ask(CANCEL, {"job": jobs[0]})
    jobs[0] = client.submit(pipeline="narrow")
    for job in jobs:
        client.ask(CANCEL, {"job": job})


def follow(shared, stack, job):
    """As many followers as may be, from as many clients as that takes."""
    followers = [stack.enter_context(Client(shared)) for _ in range(4096 // 256)]
    for follower in followers:
        for _ in range(256):
            follower.send(EVENTS, {"job": job})
        for _ in range(256):
            assert follower.receive()[0] == EVENT
    return followers


def test_one_client_may_wait_for_256_jobs_at_a_time(client, shared):
    job = client.submit(delay_ms=10**9)
    with Client(shared) as greedy:
        reqs = [greedy.send(WAIT, {"job": job, "timeout_ms": 60000}) for _ in range(257)]
        code, h, _ = greedy.receive()
        assert (code, h["code"], h["req"]) == (REFUSED, "full", reqs[-1]) and "256" in h["limit"]
        assert client.ask(WAIT, {"job": job, "timeout_ms": 1})[0] == STATE
        client.ask(CANCEL, {"job": job})
        assert {greedy.receive()[1]["state"] for _ in reqs[:-1]} == {"cancelled"}


def test_followers_that_went_away_make_room_for_those_who_are_here(client, shared):
    job = client.submit(delay_ms=10**9)
    with contextlib.ExitStack() as gone:
        follow(shared, gone, job)
        assert client.refused(WAIT, {"job": job})["code"] == "full"
    deadline = time.monotonic() + 20
    while (got := client.ask(WAIT, {"job": job, "timeout_ms": 1}))[0] != STATE:
        assert got[1]["code"] == "full" and time.monotonic() < deadline
        time.sleep(0.2)
    assert client.stats()["watches"] == 0
    client.ask(CANCEL, {"job": job})


def test_followers_that_are_here_stay_when_there_are_too_many(client, shared):
    job = client.submit(delay_ms=10**9)
    with contextlib.ExitStack() as stack:
        followers = follow(shared, stack, job)
        assert client.refused(WAIT, {"job": job})["code"] == "full"
        client.ask(CANCEL, {"job": job})
        for follower in followers:
            last = set()
            while len(last) < 256:
                code, h, _ = follower.receive()
                assert code == EVENT and h["job"] == job
                if h.get("last"):
                    assert h["data"]["state"] == "cancelled"
                    last.add(h["req"])


def test_a_full_broker_refuses_jobs(tmp_path):
    with Broker(tmp_path, extra=["--queue-max", "5"]) as broker, Client(broker) as client:
        jobs = [client.submit() for _ in range(5)]
        assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())["code"] == "full"
        with EchoWorker(broker):
            assert {client.wait(job)[0]["state"] for job in jobs} == {"done"}


def test_every_terminal_state_is_seen_in_the_stats(client):
    jobs = client.stats()["jobs"]
    assert all(jobs[state] > 0 for state in TERMINAL)
