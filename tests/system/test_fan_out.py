"""A stage fans out to jobs of their own, and the next one joins what became of them: also when workers
and the broker are killed in between, when parts fail, and when the whole is cancelled."""
import os
import pathlib
import subprocess
import sys
import time

import msgpack
import penstock
from real_broker import (ACCEPTED_MANY, CANCEL, EVENT, EVENTS, LONG_S, REFUSED, REQUEUE, SHOW, STAGE_DONE,
                         Broker, Client, Worker, echo)

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/parts"
PAGES = ROOT / "examples/pages"
FAN = """name: fan
kind: text.embed
stages:
  - {{name: split, run: test.split, fan_out: {{pipeline: echo, partial: {partial}}}}}
  - {{name: join, run: test.join}}
retry: {{max: 2, backoff_ms: 20, backoff_max_ms: 100}}
timeout_ms: 20000
"""


def fan_out(worker, lease, children, keep=None):
    """Ends the stage with these children; returns the verdict."""
    asked = {"children": children, **({} if keep is None else {"keep": keep})}
    return worker.done(lease, msgpack.packb(asked))


def bodies(*texts):
    return [{"texts": [text]} for text in texts]


def begin(tmp_path, partial="fail"):
    return Broker(tmp_path, echo(), FAN.format(partial=partial))


def test_children_are_jobs_of_their_own_and_are_joined_in_order(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split") as w:
        job = c.submit(pipeline="fan", priority=2)
        lease, _ = w.lease()
        assert [s["run"] for s in lease["plan"]] == ["test.split"], "the span ends there"
        assert fan_out(w, lease, bodies("a", "b", "c"), {"n": 3}) == "recorded"
        shown = c.show(job)
        assert (shown["state"], shown["children"]) == ("waiting", 3)
        with Worker(b, "test.echo") as e:
            leases = [e.lease() for _ in range(3)]
            for part, payload in reversed(leases):
                of = c.show(part["job"])
                assert (of["parent"], of["priority"], of["tenant"]) == (job, 2, shown["tenant"])
                e.done(part, msgpack.packb({"was": msgpack.unpackb(payload[0])["texts"]}))
        with Worker(b, "test.join") as j:
            lease, payload = j.lease()
            joined = msgpack.unpackb(b"".join(payload[1:]))
            assert joined["keep"] == {"n": 3}
            assert [p["result"]["was"] for p in joined["children"]] == [["a"], ["b"], ["c"]]
            assert [p["state"] for p in joined["children"]] == ["done"] * 3
            assert [p["job"] for p in joined["children"]] == [part["job"] for part, _ in leases]
            j.done(lease)
        assert c.wait(job)[0]["state"] == "done"


def test_a_part_that_fails_fails_the_whole_or_is_seen_by_the_join(tmp_path):
    for partial in ("fail", "allow"):
        (tmp_path / partial).mkdir()
        with begin(tmp_path / partial, partial) as b, Client(b) as c, \
                Worker(b, "test.split") as w, Worker(b, "test.echo") as e:
            job = c.submit(pipeline="fan")
            fan_out(w, w.lease()[0], bodies("good", "bad"))
            for _ in range(2):
                part, payload = e.lease()
                if b"bad" in payload[0]:
                    e.fail(part, "permanent", "no such page")
                else:
                    e.done(part)
            if partial == "fail":
                header, _ = c.wait(job)
                assert (header["state"], header["error_class"]) == ("failed", "permanent")
                assert "1 of the 2" in header["reason"] and "no such page" in header["reason"]
                continue
            with Worker(b, "test.join") as j:
                lease, payload = j.lease()
                parts = msgpack.unpackb(b"".join(payload[1:]))["children"]
                assert [p["state"] for p in parts] == ["done", "failed"]
                assert parts[1]["reason"] == "no such page" and parts[1]["result"] is None
                j.done(lease)
            assert c.wait(job)[0]["state"] == "done"


def test_none_at_all_joins_at_once_and_nonsense_is_refused_in_words(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split", "test.join") as w:
        for children, words in (([{"texts": []}], "child 0"), ([1], "child 0"),
                                (bodies(*"x" * 257), "at most 256"), ({}, "children")):
            job = c.submit(pipeline="fan")
            fan_out(w, w.lease()[0], children)
            header, _ = c.wait(job)
            assert header["error_class"] == "permanent" and words in header["reason"], header
        job = c.submit(pipeline="fan")
        fan_out(w, w.lease()[0], [])
        lease, payload = w.lease()
        assert msgpack.unpackb(payload[1]) == {"keep": None, "children": []}
        w.done(lease)
        assert c.wait(job)[0]["state"] == "done"


def test_a_cancel_of_the_whole_cancels_its_parts(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split") as w:
        job = c.submit(pipeline="fan")
        fan_out(w, w.lease()[0], bodies("a", "b"))
        with Worker(b, "test.echo", credit=1) as e:
            running, _ = e.lease()
            assert c.ask(CANCEL, {"job": job})[1]["state"] == "cancelled"
            first = c.show(job)["first_child"]
            assert running["job"] >= first
            assert e.done(running) == "stale"
            assert c.wait(running["job"])[0]["state"] == "cancelled"
        b.kill()
        b.start()
        with Client(b) as again:
            assert again.stats()["jobs"].get("ready", 0) == 0, "no part outlives the whole"


def test_the_outcome_and_the_parts_are_there_together_or_not_at_all(tmp_path):
    """The broker dies right behind the outcome; the stage runs again only if none was recorded."""
    with begin(tmp_path) as b:
        for _ in range(5):
            with Client(b) as c, Worker(b, "test.split") as w:
                job = c.submit(pipeline="fan")
                lease, _ = w.lease()
                w.send(STAGE_DONE, {"job": job, "stage": 0, "attempt": lease["attempt"]},
                       msgpack.packb({"children": bodies("a", "b", "c")}))
                b.kill()
            b.start()
            with Client(b) as c, Worker(b, "test.split") as w, Worker(b, "test.echo") as e, \
                    Worker(b, "test.join") as j:
                if c.show(job)["state"] != "waiting":
                    fan_out(w, w.lease()[0], bodies("a", "b", "c"))
                for _ in range(3):
                    e.done(e.lease()[0])
                j.done(j.lease()[0])
                assert c.wait(job)[0]["state"] == "done"
                assert c.show(job)["children"] == 3


def test_the_example_under_kills_of_its_workers(tmp_path):
    paragraphs = [f"part {i} has " + "words " * i for i in range(40)]
    expected = sum(len(p.split()) for p in paragraphs)
    pipelines = [(EXAMPLE / name).read_text().replace("deaths_max: 3", "deaths_max: 16")
                 for name in ("text.parts.yaml", "text.part.yaml")]
    command = [sys.executable, "-m", "penstock.worker", EXAMPLE / "text_parts.py", "--endpoint"]
    with Broker(tmp_path, *pipelines, lease_ms=800, heartbeat_ms=200) as b, \
            penstock.Client(b.clients) as client:
        jobs = [client.submit("text.embed", {"texts": ["\n\n".join(paragraphs)]},
                              pipeline="text.parts") for _ in range(4)]
        workers = [subprocess.Popen([*command, b.workers]) for _ in range(2)]
        try:
            for i in range(6):
                time.sleep(0.6)
                workers[i % 2].kill()
                workers[i % 2].wait()
                workers[i % 2] = subprocess.Popen([*command, b.workers])
            for result in client.gather(jobs, 4 * LONG_S):
                value = result.unwrap()
                assert value["words"] == expected and value["failed"] == []
                assert [p["begins"] for p in value["parts"]] == [p.strip()[:40] for p in paragraphs]
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(LONG_S)


# ---- families ----

def events(client, job):
    """The lines of the job's history so far, the newest last."""
    req, lines = client.send(EVENTS, {"job": job, "from": 0, "follow": False}), []
    while not lines or not lines[-1].get("last"):
        code, header, _ = client.answer(req)
        assert code == EVENT, header
        lines.append(header)
    return [line["data"] for line in lines if "what" in line["data"]]


def a_dead_family(client, splitter, part_worker):
    """A job that failed because one of its two parts did."""
    job = client.submit(pipeline="fan")
    fan_out(splitter, splitter.lease()[0], bodies("good", "bad"))
    for _ in range(2):
        part, payload = part_worker.lease()
        if b"bad" in payload[0]:
            part_worker.fail(part, "permanent", "no such page")
        else:
            part_worker.done(part)
    assert client.wait(job)[0]["state"] == "failed"
    return client.show(job)


def test_the_history_of_a_job_tells_of_its_parts(tmp_path):
    with begin(tmp_path, "allow") as b, Client(b) as c, Worker(b, "test.split") as w, \
            Worker(b, "test.echo") as e, Client(b) as follower:
        job = c.submit(pipeline="fan")
        lease, _ = w.lease()
        req = follower.send(EVENTS, {"job": job})
        fan_out(w, lease, bodies("a", "b"))
        first = c.show(job)["first_child"]
        for _ in range(2):
            part, _ = e.lease()
            if part["job"] == first:
                e.done(part)
            else:
                e.fail(part, "permanent", "no such page")
        with Worker(b, "test.join") as j:
            j.done(j.lease()[0])
        told = []
        while not told or not told[-1].get("last"):
            told.append(follower.answer(req)[1])
        parts = [t["data"] for t in told if t["type"] == "child"]
        assert sorted((p["child"], p["state"], p["reason"]) for p in parts) == \
            [(0, "done", ""), (1, "failed", "no such page")]
        assert first in [p["job"] for p in parts]
        assert sorted(t["seq"] for t in told) == [t["seq"] for t in told]
        lines = events(c, job)
        assert [x["what"] for x in lines] == \
            ["accepted", "leased", "stage_done", "joined", "leased", "stage_done", "ended"]
        assert (lines[2]["state"], lines[2]["children"], lines[2]["first_child"]) == ("waiting", 2, first)
        assert lines[3]["state"] == "ready"
        assert [x["what"] for x in events(c, first)] == ["accepted", "leased", "stage_done", "ended"]


def test_a_dead_parent_that_is_queued_again_asks_for_parts_anew(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split") as w, Worker(b, "test.echo") as e:
        dead = a_dead_family(c, w, e)
        code, header, _ = c.ask(REQUEUE, {"job": dead["job"]})
        assert (code, header["accepted"]) == (ACCEPTED_MANY, 1)
        again = header["jobs"][0]["job"]
        fan_out(w, w.lease()[0], bodies("good", "better"))
        for _ in range(2):
            e.done(e.lease()[0])
        with Worker(b, "test.join") as j:
            j.done(j.lease()[0])
        assert c.wait(again)[0]["state"] == "done"
        shown = c.show(again)
        assert shown["origin"] == dead["job"] and shown["first_child"] != dead["first_child"]
        assert c.show(dead["first_child"])["parent"] == dead["job"], "the first ones stay as they were"


def test_a_dead_part_that_is_queued_again_is_a_job_without_a_parent(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split") as w, Worker(b, "test.echo") as e:
        a_dead_family(c, w, e)
        bad = [j for j in c.ask(8, {"state": "failed"})[1]["jobs"] if c.show(j["job"])["parent"]][0]["job"]
        _, header, _ = c.ask(REQUEUE, {"job": bad})
        again = header["jobs"][0]["job"]
        e.done(e.lease()[0])
        assert c.wait(again)[0]["state"] == "done"
        assert (c.show(again)["parent"], c.show(again)["origin"]) == ("", bad)


def test_parts_have_the_deadline_of_the_whole_and_end_with_it(tmp_path):
    with begin(tmp_path) as b, Client(b) as c, Worker(b, "test.split") as w:
        job = c.submit(pipeline="fan", ttl_ms=2500)
        fan_out(w, w.lease()[0], bodies("a", "b", "c"))
        shown = c.show(job)
        with Worker(b, "test.echo", credit=1) as e:
            lease, _ = e.lease()
            assert 0 < lease["left_ms"] <= 2500
            assert c.show(lease["job"])["expires_ms"] == shown["expires_ms"]
            assert c.wait(job)[0]["state"] == "expired"
            assert c.wait(lease["job"])[0]["state"] in ("expired", "cancelled")
            assert e.done(lease) == "stale"
        b.kill()
        b.start()
        with Client(b) as again:
            jobs = again.ask(8, {})[1]["jobs"]
            assert len(jobs) == 4 and all(j["state"] in ("expired", "cancelled") for j in jobs)


def test_a_family_is_kept_and_deleted_as_one(tmp_path):
    """By time; and a dead letter that is dropped takes its parts along."""
    with Broker(tmp_path, echo(), FAN.format(partial="fail"), lease_ms=30000,
                extra=["--retain-ms", "1500"]) as b, \
            Client(b) as c, Worker(b, "test.split") as w, Worker(b, "test.echo") as e:
        job = c.submit(pipeline="fan")
        fan_out(w, w.lease()[0], bodies("a", "b"))
        e.done(e.lease()[0])
        time.sleep(2)
        first = c.show(job)["first_child"]
        assert c.show(first)["state"] in ("done", "leased", "ready"), "it outlived its time for its parent"
        e.done(e.lease()[0])
        with Worker(b, "test.join") as j:
            j.done(j.lease()[0])
        deadline = time.monotonic() + LONG_S
        while c.ask(SHOW, {"job": job})[0] != REFUSED:
            assert time.monotonic() < deadline, "it is kept longer than its time"
            time.sleep(0.05)
        assert c.ask(SHOW, {"job": first})[0] == REFUSED
        assert c.stats()["stored_jobs"] == 0
        dead = a_dead_family(c, w, e)
        deadline = time.monotonic() + LONG_S
        while c.ask(0x12, {"job": dead["job"]})[1].get("dropped") != 1:
            assert time.monotonic() < deadline
        assert c.stats()["stored_jobs"] == 0


# ---- the pages of a document ----

def pdf(*pages):
    """A PDF with a line of text a page; empty: none."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>",
               b"<</Type/Pages/Count %d/Kids[%s]>>" %
               (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * i) for i in range(len(pages)))),
               b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    for i, text in enumerate(pages):
        drawn = b"BT /F 12 Tf 72 700 Td (%s) Tj ET" % text.encode() if text else b""
        objects += [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R"
                    b"/Resources<</Font<</F 3 0 R>>>>>>" % (5 + 2 * i),
                    b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn)]
    out, places = b"%PDF-1.4\n", []
    for i, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (i, body)
    table = b"".join(b"%010d 00000 n \n" % at for at in places)
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" \
        % (len(objects) + 1, table, len(objects) + 1, len(out))


def test_the_pages_of_a_document_are_joined_in_order_with_those_that_failed(tmp_path):
    document = pdf("Rent is 1,250.00 a month", "", "Due in 14 days", "")
    pipelines = [(PAGES / name).read_text() for name in ("contract.pages.yaml", "contract.page.yaml")]
    helper = pathlib.Path(os.environ["PENSTOCK_BIN"]).resolve() / "penstock-extract"
    with Broker(tmp_path, *pipelines) as b, penstock.Client(b.clients) as client:
        job = client.submit("contract.analyze", {"document": document, "title": "lease"},
                            pipeline="contract.pages")
        broken = client.submit("contract.analyze", {"document": document[:300]}, pipeline="contract.pages")
        workers = [subprocess.Popen([sys.executable, "-m", "penstock.worker", PAGES / "contract_pages.py",
                                     "--endpoint", b.workers],
                                    env={**os.environ, "PENSTOCK_EXTRACT": str(helper)}) for _ in range(2)]
        try:
            value = client.gather([job], LONG_S)[0].unwrap()
            assert (value["title"], value["pages_in"], value["pages_ok"], value["pages_failed"]) == \
                ("lease", 4, 2, 2)
            assert [p["page"] for p in value["pages"]] == [1, 2, 3, 4]
            assert [p["state"] for p in value["pages"]] == ["done", "failed", "done", "failed"]
            assert value["pages"][0]["figures"] == ["1,250.00"] and value["pages"][2]["figures"] == ["14"]
            assert value["pages"][1]["reason"] == "blank"
            unread = client.gather([broken], LONG_S)[0]
            assert unread.state == "failed" and "cannot be read" in unread.reason
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(LONG_S)
