"""What the broker does when its store or its disk is full, damaged or old."""
import os
import pathlib
import subprocess
import time

import pytest
from real_broker import (ACCEPTED, CANCEL, LIST, REFUSED, RESULT, STATE, SUBMIT, WAIT, Broker, Client,
                         Worker, body, echo)

MIB = 1 << 20


def fill(client, payload, most=10000):
    """Submits until refused; returns the accepted ids and the refusal."""
    jobs = []
    for _ in range(most):
        code, header, _ = client.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, payload)
        if code == REFUSED:
            return jobs, header
        assert code == ACCEPTED
        jobs.append(header["job"])
    raise AssertionError("the store is never full")


def test_a_full_store_refuses_jobs_and_still_records_outcomes_and_cancels(tmp_path):
    """The cap is no fault of the disk: nothing is reopened, nothing flaps, what is accepted ends."""
    with Broker(tmp_path, extra=["--blob-cap", str(24 * MIB)]) as broker, Client(broker) as client:
        jobs, refusal = fill(client, body("x" * 500000))
        assert refusal["code"] == "full" and "80 %" in refusal["limit"] and refusal["retry_after_ms"] > 0
        time.sleep(1.2)
        assert not client.stats()["accepting"] or client.ask(
            SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body("y" * 900000))[0] == REFUSED
        code, header, _ = client.ask(CANCEL, {"job": jobs[-1]})
        assert code == STATE and header["state"] == "cancelled"
        with Worker(broker) as w:
            for _ in jobs[:-1]:
                lease, payload = w.lease()
                assert len(payload[0]) > 500000
                assert w.done(lease) == "recorded"
        for job in jobs[:-1]:
            assert client.wait(job)[0]["state"] == "done"
        log = broker.log.read_text()
        assert "disk_failed" not in log and "disk_recovered" not in log


def store(*args):
    program = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock-broker"
    return subprocess.run([program, "store", *args], text=True, timeout=60, check=False,
                          capture_output=True)


def check(folder):
    return store("check", "--dir", folder)


# ---- retention ----

def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


def gone(client, job):
    code, header, _ = client.ask(WAIT, {"job": job})
    assert code in (RESULT, REFUSED), header
    return code == REFUSED and header["code"] == "unknown_job"


def test_ended_jobs_go_after_their_time_with_their_keys_and_dead_letters_stay_longer(tmp_path):
    with Broker(tmp_path, echo(tries=1), lease_ms=30000, extra=["--retain-ms", "400"]) as broker, \
            Client(broker) as client:
        live = client.submit(delay_ms=3600000)
        done = [client.submit(body("x" * 3000), key=f"k{i}") for i in range(300)]
        with Worker(broker) as w:
            for _ in done:
                w.done(w.lease()[0])
            failed = client.submit()
            w.fail(w.lease()[0], "permanent", "broken on purpose")
        assert client.wait(failed)[0]["state"] == "failed"
        until(lambda: all(gone(client, job) for job in (done[0], done[150], done[-1])))
        until(lambda: client.stats()["deleted"] == 300)
        stats = client.stats()
        assert (stats["stored_jobs"], stats["retained"]) == (2, 1)
        assert client.wait(failed)[0]["state"] == "failed"
        assert client.state(live) == "delayed"
        assert client.submit(key="k7") not in done, "its key went with it"
        broker.kill()
        broker.start()
        assert client.wait(failed)[0]["state"] == "failed" and gone(client, done[3])
    checked = check(tmp_path)
    assert checked.returncode == 0 and checked.stderr.startswith("0 problems in 3 jobs and 0 payload"), \
        "records, indexes and payloads went together"


def test_a_full_store_makes_room_by_deleting_what_ended_first(tmp_path):
    with Broker(tmp_path, lease_ms=30000, extra=["--blob-cap", str(24 * MIB)]) as broker, \
            Client(broker) as client:
        jobs, _ = fill(client, body("x" * 500000))
        with Worker(broker) as w:
            for _ in jobs:
                w.done(w.lease()[0])
        for job in jobs:
            assert client.wait(job)[0]["state"] == "done"
        until(lambda: client.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"},
                                 body("y" * 500000))[0] == ACCEPTED)
        assert gone(client, jobs[0]) and not gone(client, jobs[-1])
        assert 0 < client.stats()["deleted"] < len(jobs), "no more than is needed"


# ---- damage ----

def flip(path, text):
    """Flips a bit wherever the file has this text."""
    data = bytearray(path.read_bytes())
    at = data.find(text)
    assert at >= 0
    while at >= 0:
        data[at + len(text) // 2] ^= 0x10
        at = data.find(text, at + 1)
    path.write_bytes(data)


def test_a_version_byte_that_flipped_is_set_aside_as_other_damage(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        kept, lost = client.submit(), client.submit(key="the-damaged-one")
        broker.kill()
        path = tmp_path / "meta" / "data.mdb"
        data = bytearray(path.read_bytes())
        at = data.find(b"the-damaged-one")
        while at >= 0:
            begin = data.rfind(b"PSJ", 0, at)
            if begin >= 0 and at - begin < 400:
                data[begin + 3] ^= 0x40
            at = data.find(b"the-damaged-one", at + 1)
        path.write_bytes(data)
        broker.start()
        assert client.stats()["set_aside"] == 1 and "set_aside" in broker.log.read_text()
        assert client.state(kept) == "ready"
        assert client.refused(WAIT, {"job": lost})["code"] == "store"


def test_a_full_file_system_is_said_to_be_full(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", tmp_path],
                      capture_output=True, check=False).returncode != 0:
        pytest.skip("nobody may mount a tmpfs here")
    try:
        with Broker(tmp_path) as broker, Client(broker) as client:
            header = {"kind": "text.embed", "pipeline": "echo"}
            job, why = client.submit(), None
            deadline = time.monotonic() + 30
            while why is None or why["code"] != "disk":
                assert time.monotonic() < deadline
                code, h, _ = client.ask(SUBMIT, header, body("x" * 400000))
                why = h if code == REFUSED else None
            assert "No space left" in why["message"], why
            assert client.state(job) == "ready"
            log = broker.log.read_text()
            assert "No space left" in log and "Input/output" not in log, log[-2000:]
            subprocess.run(["mount", "-o", "remount,size=200m", tmp_path], check=True)
            until(lambda: client.ask(SUBMIT, header, body("y"))[0] == ACCEPTED)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=False)


def test_a_damaged_record_is_set_aside_counted_and_repaired(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        kept = [client.submit(key="the-first-one"), client.submit(key="the-third-one")]
        lost = client.submit(key="the-damaged-one")
        broker.kill()
        flip(tmp_path / "meta" / "data.mdb", b"the-damaged-one")
        broker.start()
        assert client.stats()["set_aside"] == 1 and "set_aside" in broker.log.read_text()
        listed = client.ask(LIST, {})[1]
        assert listed["damaged"] == 1
        assert {row["job"] for row in listed["jobs"]} == set(kept)
        assert client.refused(WAIT, {"job": lost})["code"] == "store"
        with Worker(broker) as w:
            for _ in kept:
                w.done(w.lease()[0])
        assert client.wait(kept[1])[0]["state"] == "done"
        assert broker.stop() == 0
        checked = check(tmp_path)
        assert checked.returncode == 1 and lost in checked.stdout and "repair" in checked.stderr
        repaired = store("repair", "--dir", tmp_path)
        assert repaired.returncode == 0 and lost in repaired.stdout
        assert [p.name for p in (tmp_path / "quarantine").iterdir()] == [f"{lost}.job"]
        assert check(tmp_path).returncode == 0
        broker.start()
        assert client.stats()["set_aside"] == 0
        assert client.refused(WAIT, {"job": lost})["code"] == "unknown_job"
        client.submit(key="the-damaged-one")
