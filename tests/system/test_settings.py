"""The broker's settings file: shares, levels and stages that are bounded, read again while it runs."""
import os
import signal
import subprocess
import time

import pytest
from real_broker import ACCEPTED, LEASE, REFUSED, SUBMIT, Broker, Client, Worker, body, echo

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


@pytest.mark.parametrize("text,words", [("tenants: [{name: a, weight: 0}]", ("weight", "1 to 1000", "line: 1")),
                                        ("tenants: [{nam: a}]", ("nam", "fields are"))])
def test_a_broker_does_not_start_with_settings_that_it_cannot_read(tmp_path, text, words):
    settings = Settings(tmp_path, text)
    program = os.path.join(os.environ["PENSTOCK_BIN"], "penstock-broker")
    run = subprocess.run([program, "--dir", str(tmp_path), *settings.extra], capture_output=True,
                         text=True, timeout=60, check=False)
    assert run.returncode == 1 and not run.stdout
    assert all(w in run.stderr for w in ("settings.yaml", *words)), run.stderr
