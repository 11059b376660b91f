"""Leases that join a stage while others run in it: who comes later may end first, results leave as soon
as they are there, and what other stages do goes on in between."""
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import penstock
import pytest
from real_broker import LONG_S, Broker
from scripted_broker import FakeBroker

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = "test.steps"


class Worker:
    def __init__(self, endpoint, *args):
        self.process = subprocess.Popen([BIN / "penstock-worker", "--connect", endpoint, *args])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@pytest.fixture(name="fake")
def fixture_fake(tmp_path):
    broker = FakeBroker(tmp_path / "w", lease_ms=20000)
    yield broker
    broker.close()


def stepping(fake):
    return Worker(fake.endpoint, "--stages", "test.steps,test.echo,test.sleep")




def test_who_joins_later_and_is_short_ends_first_and_other_stages_run_in_between(fake):
    with stepping(fake):
        fake.register()
        first, _ = fake.lease([STEPS, "test.echo"], {"steps": 60, "ms": 20})
        time.sleep(0.1)
        echo, _ = fake.lease(["test.echo"], {})
        assert fake.expect("STAGE_DONE")["job"] == echo, "it did not wait for the steps"
        short, _ = fake.lease(["test.echo", STEPS, "test.echo"], {"steps": 2, "ms": 1})
        done = [fake.expect("STAGE_DONE") for _ in range(3)]
        assert [m["job"] for m in done] == [short] * 3
        assert [m["stage"] for m in done] == [0, 1, 2] and not done[2]["more"]
        assert done[1].document()["order"] == 0
        assert done[2].document()["input"] == done[1].document(), "it is handed on"
        last = [fake.expect("STAGE_DONE") for _ in range(2)]
        assert [m["job"] for m in last] == [first] * 2 and last[0]["run_us"] > 60 * 20 * 1000 * 0.9


def test_of_those_that_wait_the_lower_priority_goes_first_and_their_wait_is_no_run(fake):
    with stepping(fake):
        fake.register()
        for number in (1, 2):
            fake.lease([STEPS], {"steps": 20, "ms": 20}, number=number)
        time.sleep(0.15)
        late, _ = fake.lease([STEPS], {"steps": 2, "ms": 20}, number=3, priority=7, timeout_ms=300)
        soon, _ = fake.lease([STEPS], {"steps": 2, "ms": 20}, number=4, priority=1, timeout_ms=300)
        done = {m["job"]: m for m in (fake.expect("STAGE_DONE") for _ in range(4))}
        assert done[soon].document()["order"] < done[late].document()["order"]
        assert done[late]["wait_us"] > 100000 > 0 < done[late]["run_us"] < 300000


def test_a_cancelled_one_leaves_between_steps_also_while_it_waits(fake):
    with stepping(fake):
        fake.register()
        leases = [fake.lease([STEPS], {"steps": 30, "ms": 20}) for _ in range(3)]
        time.sleep(0.2)
        for job, attempt in leases[1:]:
            fake.send("CANCEL_LEASE", {"job": job, "attempt": attempt})
        after, _ = fake.lease([STEPS], {"steps": 1, "ms": 1})
        assert fake.expect("STAGE_DONE")["job"] == after, "there is room for it"
        assert fake.expect("STAGE_DONE")["job"] == leases[0][0]
        fake.nothing(0.2)


def test_one_that_runs_past_its_timeout_is_reported_and_the_others_end(fake):
    with stepping(fake):
        fake.register()
        late, _ = fake.lease([STEPS], {"steps": 10000, "ms": 5}, timeout_ms=200)
        other, _ = fake.lease([STEPS], {"steps": 200, "ms": 5})
        failed = fake.expect("STAGE_FAILED")
        assert failed["job"] == late and failed["error_class"] == "timeout"
        assert fake.expect("STAGE_DONE")["job"] == other


def test_a_worker_that_drains_ends_what_has_begun_and_gives_back_what_waits(fake):
    with stepping(fake) as worker:
        fake.register()
        running = [fake.lease([STEPS], {"steps": 40, "ms": 20})[0] for _ in range(2)]
        time.sleep(0.3)
        waits = [fake.lease(["test.echo", STEPS], {"steps": 1, "ms": 20})[0] for _ in range(2)]
        for _ in waits:
            fake.expect("STAGE_DONE")  # the echo; they have joined
        time.sleep(0.1)
        worker.process.send_signal(signal.SIGTERM)
        ends = []
        while len(ends) < 4:
            message = fake.expect("STAGE_DONE", "RETURN", "GOODBYE")
            if message.name != "GOODBYE":
                ends.append((message.name, message["job"]))
        assert {job for name, job in ends if name == "RETURN"} == set(waits)
        assert {job for name, job in ends if name == "STAGE_DONE"} == set(running)
        assert worker.process.wait(LONG_S) == 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def metrics(port, name, wanted):
    """What the broker tells, as soon as that metric is as wanted."""
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG_S) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines()]
        told = {line[0].removeprefix("penstock_"): float(line[1]) for line in lines
                if line[0] != "#" and "{" not in line[0]}
        if wanted(told[name]):
            return told
        time.sleep(0.1)
    raise AssertionError(f"{name} is {told[name]}")


PIPE = """name: text.generate
kind: text.generate
stages:
  - {name: encode, run: encode.prompt, model: tiny-llama}
  - {name: infer, run: infer.generate, model: tiny-llama, timeout_ms: 600000}
  - {name: post, run: post.generate, model: tiny-llama}
retry: {max: 3, backoff_ms: 20, backoff_max_ms: 100}
timeout_ms: 60000
"""


def test_a_short_text_that_comes_while_long_ones_are_written_ends_first_with_its_own_bits(tmp_path):
    tiny = f"tiny-llama={ROOT / 'examples/models/tiny-llama'}"
    short = {"prompt": "The press", "max_tokens": 6, "temperature": 1.0, "stream": False}
    long = {"prompt": "The camera on line two", "max_tokens": 1000, "temperature": 2.0, "n": 4,
            "stream": False}
    port = free_port()
    http = ["--http", f"127.0.0.1:{port}"]
    with Broker(tmp_path, PIPE, extra=http) as b, penstock.Client(b.clients) as client:
        with Worker(b.workers, "--stages", "all", "--model", tiny, "--backend",
                    "ref"):  # slow enough
            alone = client.wait(client.submit("text.generate", short, seed=5), LONG_S)
            assert alone.done, alone
            longs = [client.submit("text.generate", long, seed=seed) for seed in range(2)]
            metrics(port, "texts_running", lambda n: n > 0)
            beside = client.wait(client.submit("text.generate", short, seed=5, priority=0), LONG_S)
            states = [client.result(job).state for job in longs]
            assert "leased" in states, "long ones are still being written"
            assert beside.done and beside.value == alone.value, "the same bits in its company"
            told = metrics(port, "texts_running", lambda n: n > 0)
            assert told["kv_pages"] > told["kv_pages_used"] > 0 and told["generated_tokens_total"] > 0
            assert told["generate_step_duration_seconds_count"] > 0
            for job in longs:
                client.cancel(job, "enough")
            metrics(port, "texts_running", lambda n: n == 0)
            again = client.wait(client.submit("text.generate", short, seed=5), LONG_S)
            assert again.value == alone.value
