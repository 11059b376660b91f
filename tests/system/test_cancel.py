"""A cancel is durable, and honoured wherever the job is: in the queue, between two stages, at every
decode step, inside a batch, in a helper process, in a stage in Python."""
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import time

import msgpack
import penstock
import pytest
from real_broker import CANCEL, LONG_S, STATE, Broker, Client, echo
from scripted_broker import FakeBroker

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES = pathlib.Path(__file__).with_name("python_stages.py")
TINY = f"tiny-llama={ROOT / 'examples/models/tiny-llama'}"
BERT = f"bert={ROOT / 'tests/golden/models/bert'}"


class Worker:
    """A real worker and what it logs."""

    def __init__(self, endpoint, stages, *args, **env):
        self.process = subprocess.Popen(
            [BIN / "penstock-worker", "--connect", endpoint, "--stages", stages, "--threads", "1",
             *args], stderr=subprocess.PIPE, text=True, env=dict(os.environ, **env))
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            sys.stderr.write(line)

    def cancelled(self, job):
        """(stage program, how far it was) of the cancel that it honoured."""
        end = time.monotonic() + LONG_S
        while time.monotonic() < end:
            for line in self.lines:
                if (m := re.search(rf'event=stage_cancelled job={job} run=(\S+) how="([^"]*)"', line)):
                    return m[1], m[2]
            time.sleep(0.02)
        raise AssertionError(f"it has not stopped for {job}: {self.lines}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join(5)
        self.process.stderr.close()


@pytest.fixture(name="fake")
def fixture_fake(tmp_path):
    broker = FakeBroker(tmp_path / "w", lease_ms=20000)
    yield broker
    broker.close()


def cancel(broker, job, attempt):
    broker.send("CANCEL_LEASE", {"job": job, "attempt": attempt})


# ---- at the broker ----

def test_a_cancel_of_a_queued_job_outlives_the_broker(tmp_path):
    with Broker(tmp_path, echo()) as b:
        with Client(b) as c:
            queued, delayed = c.submit(), c.submit(delay_ms=3600000)
            for job in (queued, delayed):
                code, header, _ = c.ask(CANCEL, {"job": job, "reason": "enough"})
                assert (code, header["state"]) == (STATE, "cancelled")
        b.kill()
        b.start()
        with Client(b) as c:
            for job in (queued, delayed):
                header, _ = c.wait(job)
                assert (header["state"], header["reason"]) == ("cancelled", "enough")


# ---- in a real worker ----

def test_between_two_stages_the_next_one_does_not_begin(fake):
    with Worker(fake.endpoint, "test.sleep,test.echo") as worker:
        fake.register()
        job, attempt = fake.lease(["test.sleep", "test.echo"], {"ms": 700, "deaf": 1})
        time.sleep(0.2)
        cancel(fake, job, attempt)
        assert worker.cancelled(job) == ("test.echo", "before it began")
        fake.nothing(0.3)


def prompt(max_tokens, stream):
    return {"prompt": "The press on line two", "max_tokens": max_tokens, "stream": stream,
            "temperature": 1.0, "top_p": 1.0}


def generate(fake, max_tokens, stream, **more):
    """Leases a text.generate job as one span of the encoder and the decoder."""
    stages = [{"run": run, "name": run[:6], "model": "tiny-llama", "batch_max": 2,
               "batch_delay_ms": 3000} for run in ("encode.prompt", "infer.generate")]
    return fake.lease(stages, prompt(max_tokens, stream), kind="text.generate", **more)


def tokens_until(fake, job, n):
    """Hears the pieces of the job until so many tokens are written."""
    heard = 0
    while heard < n:
        message = fake.expect("PROGRESS", "STAGE_DONE")
        assert message.name == "PROGRESS" or message["stage"] in (0, None), "it ended before"
        if message.name == "PROGRESS" and message["job"] == job:
            heard = message["data"]["tokens"]
    return heard


def rest_of(fake, job, heard, seconds=1.0):
    end = time.monotonic() + seconds
    while (message := fake.receive(max(0, end - time.monotonic()))):
        if message.name == "PROGRESS" and message["job"] == job:
            heard = message["data"]["tokens"]
        else:
            fake.early.append(message)
    return heard


@pytest.mark.parametrize("company", [False, True])
def test_a_text_stops_within_a_few_decode_steps(fake, company):
    """Every piece that was written before the worker knew is heard, so that the last one says how many
    tokens there were; the worker says how many there were when it stopped. The difference is counted,
    not timed; the slowest backend, a token a step, leaves time to cancel on a busy machine."""
    fake.early = []
    with Worker(fake.endpoint, "encode.prompt,infer.generate", "--model", TINY, "--backend", "ref",
                "--speculate", "off") as worker:
        fake.register()
        job, attempt = generate(fake, 900, True)
        other = generate(fake, 60, False, number=77)[0] if company else None
        heard = tokens_until(fake, job, 8)
        cancel(fake, job, attempt)
        run, how = worker.cancelled(job)
        assert run == "infer.generate" and re.fullmatch(r"cancelled after \d+ tokens", how)
        stopped = int(how.split()[2])
        known = rest_of(fake, job, heard)
        assert 8 <= known <= stopped <= known + 4 and stopped < 900, (heard, known, stopped)
        if company:
            while not any(m["stage"] == 1 for m in fake.early):
                fake.early.append(fake.expect("STAGE_DONE"))
        done = [m for m in fake.early if m.name == "STAGE_DONE" and m["stage"] == 1]
        assert [m["job"] for m in done] == ([other] if company else []), "the other one goes on"


def test_a_job_in_a_batch_of_embeddings_stops_and_the_others_end(fake):
    ids = struct.pack("<32I", *(5 + i % 90 for i in range(32)))

    def tokens(n):
        packed = msgpack.packb({"model": "bert", "seqs": [ids] * n})
        return [packed[at:at + (1 << 20)] for at in range(0, len(packed), 1 << 20)]
    with Worker(fake.endpoint, "infer.embed", "--model", BERT) as worker:
        fake.register()
        stage = {"run": "infer.embed", "model": "bert", "batch_max": 4, "batch_delay_ms": 1000}
        alone, _ = fake.lease([stage], {}, first=1, inputs=tokens(3), alone=True)
        vectors = fake.expect("STAGE_DONE").document()["vectors"]
        small, _ = fake.lease([stage], {}, number=5, first=1, inputs=tokens(3))
        large, attempt = fake.lease([stage], {}, number=6, first=1, inputs=tokens(60000))
        last, _ = fake.lease([stage], {}, number=7, first=1, inputs=tokens(3))
        time.sleep(1.2)  # the batch has begun, or is about to
        cancel(fake, large, attempt)
        run, how = worker.cancelled(large)
        n = re.fullmatch(r"cancelled after (\d+) of 60000 texts", how)
        assert run == "infer.embed" and (how == "before it began" or int(n[1]) < 60000), how
        done = [fake.expect("STAGE_DONE") for _ in range(2)]
        assert {m["job"] for m in done} == {small, last} and alone not in {m["job"] for m in done}
        assert all(m.document()["vectors"] == vectors for m in done), "the same bits as alone"


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_helper_that_reads_a_document_is_killed(fake, tmp_path):
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    helper.chmod(0o755)
    with Worker(fake.endpoint, "encode.document,test.echo", PENSTOCK_EXTRACT=str(helper)) as worker:
        fake.register()
        body = {"document": b"%PDF-1.4\n", "format": "pdf"}
        job, attempt = fake.lease(["encode.document"], body, kind="contract.analyze")
        end = time.monotonic() + LONG_S
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
            assert time.monotonic() < end, "the helper was not started"
            time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        cancel(fake, job, attempt)
        assert worker.cancelled(job)[0] == "encode.document"
        assert not alive(pid)
        fake.lease(["test.echo"], {})
        fake.expect("STAGE_DONE")


# ---- in Python ----

@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_stage_in_python_sees_it_and_the_next_one_does_not_begin(tmp_path, processes):
    ledger = tmp_path / "ledger"
    pipe = """name: two
kind: text.embed
stages: [{name: a, run: py.do}, {name: b, run: py.do}]
retry: {max: 3, backoff_ms: 20, backoff_max_ms: 100}
timeout_ms: 20000
"""
    with Broker(tmp_path, pipe) as b, penstock.Client(b.clients) as client:
        worker = subprocess.Popen([sys.executable, "-m", "penstock.worker", STAGES, "--endpoint",
                                   b.workers, "--processes", processes])
        try:
            for wish in ({"block": 0.7}, {"sleep": 60}):
                ledger.unlink(missing_ok=True)
                text = json.dumps({"log": str(ledger), **wish})
                job = client.submit("text.embed", {"texts": [text]}, pipeline="two")
                end = time.monotonic() + LONG_S
                while not ledger.exists():
                    assert time.monotonic() < end, "it was not begun"
                    time.sleep(0.02)
                assert client.cancel(job, "enough") == "cancelled"
                after = client.submit("text.embed", {"texts": ["{}"]}, pipeline="two")
                assert client.wait(after, LONG_S).done, "the stage has let go"
                assert len(ledger.read_text().splitlines()) == 1, "one stage of one attempt"
                assert client.result(job).reason == "enough"
        finally:
            worker.terminate()
            assert worker.wait(LONG_S) == 0
