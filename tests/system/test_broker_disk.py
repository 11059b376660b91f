"""What the broker does when its store or its disk is full, damaged or old."""
import time

from real_broker import (ACCEPTED, CANCEL, REFUSED, STATE, SUBMIT, Broker, Client, Worker, body)

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
