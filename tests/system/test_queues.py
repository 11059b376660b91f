"""What stands at each stage: QUEUES, `penstock queue`, and what a key that is no admin's may see."""
import json
import os
import subprocess

from real_broker import LONG_S, QUEUE_LIST, QUEUES, Broker, Client, Worker, body, echo


def penstock(broker, *words):
    program = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")
    done = subprocess.run([program, *words, "--endpoint", broker.clients], capture_output=True, text=True,
                          check=False, timeout=LONG_S)
    assert done.returncode == 0, done
    return done.stdout


def test_queues_tell_what_stands_where_and_what_went_by(tmp_path):
    with Broker(tmp_path, echo()) as broker, Client(broker) as client, Worker(broker, credit=1) as worker:
        assert client.ask(QUEUES, {})[1]["queues"] == []
        jobs = [client.submit() for _ in range(3)] + [client.submit(delay_ms=3600000)]
        lease, _ = worker.lease()
        assert worker.done(lease) == "recorded"
        client.wait(lease["job"])
        worker.lease()
        code, answer, _ = client.ask(QUEUES, {})
        row, = answer["queues"]
        assert code == QUEUE_LIST and lease["job"] in jobs
        assert {k: row[k] for k in ("pipeline", "stage", "index", "run", "ready", "leased", "delayed", "in", "out")} \
            == {"pipeline": "echo", "stage": "only", "index": 0, "run": "test.echo", "ready": 1, "leased": 1,
                "delayed": 1, "in": 4, "out": 1}
        assert row["bytes"] == 3 * len(body())
        assert json.loads(penstock(broker, "queue", "ls", "--json"))[0]["ready"] == 1
        head, line = penstock(broker, "queue", "ls").splitlines()
        assert head.split() == ["pipeline", "stage", "ready", "leased", "delayed", "oldest", "bytes"]
        assert line.split()[:5] == ["echo", "only", "1", "1", "1"]
        head, line = penstock(broker, "queue", "stat").splitlines()
        assert head.split() == ["pipeline", "stage", "in", "out", "in/s", "out/s"]
        assert line.split()[:4] == ["echo", "only", "4", "1"]


def test_dlq_is_dead(tmp_path):
    with Broker(tmp_path, echo(tries=1)) as broker, Client(broker) as client, Worker(broker) as worker:
        job = client.submit()
        worker.fail(worker.lease()[0], "permanent", "no good")
        client.wait(job)
        assert penstock(broker, "dlq", "ls") == penstock(broker, "dead", "ls")
        assert job in penstock(broker, "dlq", "ls")
