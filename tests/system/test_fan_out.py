"""A stage fans out to jobs of their own, and the next one joins what became of them: also when workers
and the broker are killed in between, when parts fail, and when the whole is cancelled."""
import pathlib
import subprocess
import sys
import time

import msgpack
import penstock
from real_broker import CANCEL, LONG_S, STAGE_DONE, Broker, Client, Worker, echo

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/parts"
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
