"""The broker's settings file: shares, levels and stages that are bounded, read again while it runs."""
import os
import signal
import subprocess
import time

import msgpack
import pytest
from real_broker import (ACCEPTED, ACCEPTED_MANY, LEASE, REFUSED, SUBMIT, SUBMIT_MANY, Broker, Client,
                         Worker, body, echo)
from uploads import UPLOAD_BEGIN, UPLOAD_DROP, Upload

CHAIN = """name: two
kind: text.embed
stages:
  - {name: a, run: test.a}
  - {name: b, run: test.b}
"""


class Settings:
    """A settings file beside a broker; put() writes it as an editor does."""

    def __init__(self, root, text):
        self.path = root / "settings.yaml"
        self.path.write_text(text)

    def put(self, text):
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    @property
    def extra(self):
        return ("--settings", str(self.path))


def until_logged(broker, *words, deadline_s=20):
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        if any(all(w in line for w in words) for line in broker.log.read_text().splitlines()):
            return
        time.sleep(0.02)
    raise AssertionError(f"no line with {words} in {broker.log.read_text()[-2000:]}")


def test_a_full_level_refuses_with_its_limit_and_when_to_come_again(tmp_path):
    settings = Settings(tmp_path, "levels:\n  - {level: 9, jobs_max: 2}\n")
    with Broker(tmp_path, echo(), extra=settings.extra) as b, Client(b) as c:
        low = {"kind": "text.embed", "pipeline": "echo", "priority": 9}
        jobs = [c.submit(priority=9) for _ in range(2)]
        why = c.refused(SUBMIT, low, body())
        assert why["code"] == "full" and why["field"] == "priority", why
        assert why["limit"] == "at most 2 jobs" and "2 live jobs" in why["message"], why
        assert why["retry_after_ms"] > 0 and "settings" in why["fix"], why
        c.submit(priority=8)
        with Worker(b, credit=1) as w:
            lease, _ = w.lease()  # the one of level 8
            w.done(lease)
            lease, _ = w.lease()
            w.done(lease)
            assert c.wait(jobs[0])[0]["state"] == "done"
            c.submit(priority=9)


def test_new_settings_hold_at_once_and_bad_ones_change_nothing(tmp_path):
    settings = Settings(tmp_path, "levels:\n  - {level: 4, jobs_max: 1}\n")
    with Broker(tmp_path, echo(), extra=settings.extra) as b, Client(b) as c:
        header = {"kind": "text.embed", "pipeline": "echo"}
        c.submit()
        c.refused(SUBMIT, header, body())
        settings.put("levels:\n  - {level: 4, jobs_max: nine}\n")
        until_logged(b, "settings_refused", "settings.yaml", "jobs_max", "line: 2")
        c.refused(SUBMIT, header, body())
        settings.put("levels:\n  - {level: 4, jobs_max: 3}\n")
        until_logged(b, "settings_loaded", str(settings.path))
        deadline = time.monotonic() + 20
        while c.ask(SUBMIT, header, body())[0] == REFUSED:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        settings.path.unlink()
        b.process.send_signal(signal.SIGHUP)
        until_logged(b, "settings_refused", "No such file")
        c.submit()
        c.refused(SUBMIT, header, body())


def test_what_is_upstream_of_a_full_stage_waits_and_what_is_downstream_goes_first(tmp_path):
    settings = Settings(tmp_path, "stages:\n  - {run: test.b, jobs_max: 2}\n")
    with Broker(tmp_path, CHAIN, echo(), extra=settings.extra) as b, Client(b) as c:
        for _ in range(5):
            c.submit(pipeline="two")
        other = c.submit()  # its pipeline has no such stage
        with Worker(b, "test.a", credit=8) as a:
            for _ in range(2):
                a.done(a.lease()[0])
            assert a.nothing(LEASE)
            with Worker(b, "test.echo") as e:
                lease, _ = e.lease()
                assert lease["job"] == other
                e.done(lease)
            with Worker(b, "test.b", credit=1) as z:
                lease, _ = z.lease()
                assert lease["stage"] == 1 and a.nothing(LEASE)
                z.done(lease)
                assert a.lease()[0]["stage"] == 0


def test_a_full_first_stage_refuses_the_submit_and_stays_full_over_a_restart(tmp_path):
    settings = Settings(tmp_path, "stages:\n  - {run: test.echo, jobs_max: 2}\n")
    with Broker(tmp_path, echo(), extra=settings.extra) as b:
        with Client(b) as c:
            c.submit(), c.submit()
            why = c.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())
            assert "stage test.echo" in why["message"] and why["retry_after_ms"] > 0, why
        b.kill()
        b.start()
        with Client(b) as c:
            c.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())
            with Worker(b) as w:
                w.done(w.lease()[0])
                deadline = time.monotonic() + 20
                while c.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())[0] != ACCEPTED:
                    assert time.monotonic() < deadline


def test_quotas_name_limit_and_use_hold_over_restarts_and_say_when_to_come_again(tmp_path):
    settings = Settings(tmp_path, "tenants:\n  - {name: default, jobs_max: 20, bytes_max: 4000}\n")
    header = {"kind": "text.embed", "pipeline": "echo"}
    with Broker(tmp_path, echo(), extra=settings.extra) as b:
        with Client(b) as c:
            for _ in range(20):
                c.submit()
            why = c.refused(SUBMIT, header, body())
            assert why["code"] == "full" and why["limit"] == "at most 20 jobs", why
            assert "tenant default has 20 live jobs" in why["message"], why
            assert why["retry_after_ms"] == 1000, "nothing has been measured yet"
        b.kill()
        b.start()
        with Client(b) as c, Worker(b, credit=1) as w:
            c.refused(SUBMIT, header, body())
            began = time.monotonic()
            for _ in range(10):
                w.done(w.lease()[0])
            paced_ms = (time.monotonic() - began) * 1000 / 10
            for _ in range(10):
                c.submit()
            wait_ms = c.refused(SUBMIT, header, body())["retry_after_ms"]
            assert 10 <= wait_ms <= max(100, 4 * paced_ms) + 100, (wait_ms, paced_ms)
            big = c.refused(SUBMIT, header, body("x" * 5000))
            assert big["code"] == "full", big  # the jobs come first
            for _ in range(15):
                w.done(w.lease()[0])
            never = c.refused(SUBMIT, header, body("x" * 5000))
            assert never["code"] == "limit" and not never.get("retry_after_ms"), never
            assert never["limit"] == "at most 4000 bytes", never
            later = None
            while later is None:
                code, h, _ = c.ask(SUBMIT, header, body("x" * 1500))
                later = h if code == REFUSED else None
            assert later["code"] == "full" and later["retry_after_ms"] > 0, later
            assert "bytes in live jobs and uploads" in later["message"], later


def test_a_known_key_is_answered_with_its_job_however_full_it_is(tmp_path):
    settings = Settings(tmp_path, "tenants:\n  - {name: default, jobs_max: 3}\n"
                                  "sources:\n  - {name: gate, policy: block, depth: 1}\n"
                                  "  - {name: belt, policy: sample, depth: 1, above: 1, keep_one_of: 2}\n")
    header = {"kind": "text.embed", "pipeline": "echo"}
    with Broker(tmp_path, echo(), extra=settings.extra) as b, Client(b) as c:
        gate = c.submit(key="g", source="gate")
        belt = c.submit(key="b", source="belt")
        assert c.refused(SUBMIT, dict(header, source="gate"), body())["code"] == "full"
        again = c.ask(SUBMIT, dict(header, key="g", source="gate"), body())[1]
        assert (again["job"], again["existing"]) == (gate, True), "its source is full"
        again = c.ask(SUBMIT, dict(header, key="b", source="belt"), body())[1]
        assert (again["job"], again["existing"]) == (belt, True), "it would be sampled out"
        third = c.submit(key="t")
        assert c.refused(SUBMIT, dict(header, key="new"), body())["code"] == "full"
        again = c.ask(SUBMIT, dict(header, key="t"), body())[1]
        assert (again["job"], again["existing"], again["state"]) == (third, True, "ready")
        assert c.refused(SUBMIT, dict(header, key="t"), body("else"))["code"] == "key_conflict"
        _, h, _ = c.ask(SUBMIT_MANY, header, msgpack.packb(
            [["t", {"texts": ["hello"]}], ["x", {"texts": ["hello"]}], ["g", {"texts": ["hello"]}]]))
        assert [v.get("job") for v in h["jobs"]] == [third, None, gate]
        assert h["jobs"][1]["code"] == "full"
        sources = {s["name"]: s for t in c.stats()["tenants"] for s in t.get("sources", [])} \
            if any("sources" in t for t in c.stats()["tenants"]) else {}
        assert sources.get("belt", {}).get("sampled", 0) == 0, "what is known was not sampled out"


def test_uploads_count_against_the_bytes_of_their_tenant(tmp_path):
    settings = Settings(tmp_path, "tenants:\n  - {name: default, bytes_max: 1000000}\n")
    data = body("y" * 600000)
    with Broker(tmp_path, echo(), extra=settings.extra) as b:
        with Client(b) as c:
            first = Upload(c, data).begin()
            begin = {"bytes": len(data), "crc": first.crc}
            why = c.refused(UPLOAD_BEGIN, begin)
            assert why["code"] == "full" and why["field"] == "bytes", why
            assert "tenant default" in why["message"] and "1000000" in why["limit"], why
            c.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, data)
        b.kill()
        b.start()
        with Client(b) as c:
            c.refused(UPLOAD_BEGIN, begin)
            first.client = c
            job = first.send().submit()["job"]  # its bytes do not count twice
            c.refused(UPLOAD_BEGIN, begin)
            with Worker(b) as w:
                w.done(w.lease()[0])
            c.wait(job)
            second = Upload(c, data).begin()
            c.refused(UPLOAD_BEGIN, begin)
            second.state(UPLOAD_DROP, {"upload": second.name})
            Upload(c, data).begin()


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second_also_after_a_restart(tmp_path):
    settings = Settings(tmp_path, "tenants:\n  - {name: default, rate_per_s: 0.5, burst: 5}\n")
    header = {"kind": "text.embed", "pipeline": "echo"}
    with Broker(tmp_path, echo(), extra=settings.extra) as b:
        began = time.monotonic()
        with Client(b) as c:
            for _ in range(5):
                c.submit()
            code, h, _ = c.ask(SUBMIT, header, body())
            taken = 5 + (code == ACCEPTED)
            if code == REFUSED:
                assert h["code"] == "full" and "0.5 jobs a second" in h["limit"], h
                assert 0 < h["retry_after_ms"] <= 2000, h
        b.kill()
        b.start()
        with Client(b) as c:
            while time.monotonic() - began < 4:
                taken += c.ask(SUBMIT, header, body())[0] == ACCEPTED
                time.sleep(0.05)
            assert taken <= 5 + 0.5 * (time.monotonic() - began), taken
            wait_ms = 0
            while (answer := c.ask(SUBMIT, header, body()))[0] == ACCEPTED:
                pass
            wait_ms = answer[1]["retry_after_ms"]
            time.sleep(wait_ms / 1000 + 0.01)
            c.submit()


def test_each_job_of_a_batch_has_its_own_verdict_on_the_quota(tmp_path):
    settings = Settings(tmp_path, "tenants:\n  - {name: default, jobs_max: 3}\n")
    with Broker(tmp_path, echo(), extra=settings.extra) as b, Client(b) as c:
        jobs = msgpack.packb([msgpack.unpackb(body(str(i))) for i in range(5)])
        code, h, _ = c.ask(SUBMIT_MANY, {"kind": "text.embed", "pipeline": "echo"}, jobs)
        assert code == ACCEPTED_MANY and (h["accepted"], h["refused"]) == (3, 2), h
        assert [v.get("code") for v in h["jobs"]] == [None] * 3 + ["full"] * 2
        assert all(v["limit"] == "at most 3 jobs" and v["retry_after_ms"] > 0 for v in h["jobs"][3:])


def test_a_key_is_honoured_through_its_window_and_goes_with_its_job(tmp_path):
    settings = Settings(tmp_path, "dedupe_window_s: 3600\n")
    with Broker(tmp_path, echo(), extra=(*settings.extra, "--retain-ms", "1")) as b, Client(b) as c, \
            Worker(b) as w:
        header = {"kind": "text.embed", "pipeline": "echo", "key": "order-7"}
        job = c.submit(key="order-7")
        w.done(w.lease()[0])
        assert c.wait(job)[0]["state"] == "done"
        time.sleep(6)  # longer than retention rests between two looks
        code, h, _ = c.ask(SUBMIT, header, body())
        assert code == ACCEPTED and h["existing"] and h["job"] == job, h
        settings.put("dedupe_window_s: 1\n")
        deadline = time.monotonic() + 60
        while (h := c.ask(SUBMIT, header, body())[1])["job"] == job:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert not h.get("existing"), h


@pytest.mark.parametrize("text,words", [("tenants: [{name: a, weight: 0}]", ("weight", "1 to 1000", "line: 1")),
                                        ("tenants: [{nam: a}]", ("nam", "fields are"))])
def test_a_broker_does_not_start_with_settings_that_it_cannot_read(tmp_path, text, words):
    settings = Settings(tmp_path, text)
    program = os.path.join(os.environ["PENSTOCK_BIN"], "penstock-broker")
    run = subprocess.run([program, "--dir", str(tmp_path), *settings.extra], capture_output=True,
                         text=True, timeout=60, check=False)
    assert run.returncode == 1 and not run.stdout
    assert all(w in run.stderr for w in ("settings.yaml", *words)), run.stderr
