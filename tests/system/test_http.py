"""The broker from outside: metrics, health checks and the page for people."""
import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import msgpack
import prometheus
import pytest
from real_broker import (LONG_S, SUBMIT_MANY, Broker, Client, EchoWorker, Worker, body, echo)


def get(address, path, method="GET"):
    """(status, text), or None while nobody listens."""
    connection = http.client.HTTPConnection(address, timeout=LONG_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionError:
        return None
    finally:
        connection.close()


def address_of(broker):
    found = re.findall(r"event=http address=(\S+)", broker.log.read_text())
    return found[-1]


def metrics(address):
    status, text = get(address, "/metrics")
    assert status == 200
    return prometheus.parse(text)


def value(families, name, **labels):
    family = name if name in families else re.sub(r"_(bucket|sum|count)\Z", "", name)
    found = [v for n, has, v in families[family][1]
             if n == name and all(has.get(k) == want for k, want in labels.items())]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def until(address, name, want, **labels):
    """The numbers are copied about every second."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        families = metrics(address)
        if "penstock_jobs_live" in families and (want is None or any(
                n == name and v == want and all(has.get(k) == w for k, w in labels.items())
                for _, samples in families.values() for n, has, v in samples)):
            return families
        time.sleep(0.1)
    raise AssertionError((name, labels, want, families))


@pytest.fixture(name="broker")
def broker_fixture(tmp_path):
    with Broker(tmp_path, echo(), extra=["--http", "127.0.0.1:0"]) as broker:
        yield broker


def test_metrics_follow_jobs_through_their_stage(broker):
    address = address_of(broker)
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(key="a-secret-key")
        lease, _ = worker.lease()
        for _ in range(3):
            client.submit(delay_ms=3600000)
        here = {"pipeline": "echo", "stage": "only"}
        families = until(address, "penstock_queue_delayed", 3, **here)
        assert value(families, "penstock_queue_leased", **here) == 1
        assert value(families, "penstock_queue_size_bytes", **here) == 4 * len(body())
        assert value(families, "penstock_worker_leases") == 1
        assert worker.done(lease, run_us=30000) == "recorded"
        client.wait(job)
        families = until(address, "penstock_jobs_finished_total", 1, state="done")
        assert value(families, "penstock_jobs_accepted_total") == 4
        assert value(families, "penstock_accept_duration_seconds_count") == 4
        assert value(families, "penstock_commit_duration_seconds_count") >= 2
        assert value(families, "penstock_stage_duration_seconds_sum", stage="test.echo") == 0.03
        assert value(families, "penstock_stage_duration_seconds_bucket", stage="test.echo", le="0.025") == 0
        assert value(families, "penstock_stage_duration_seconds_bucket", stage="test.echo", le="0.05") == 1
        assert value(families, "penstock_queue_wait_seconds_count", stage="test.echo") == 1
        text = get(address, "/metrics")[1]
        assert job not in text and "a-secret-key" not in text and "default" not in text
        labels = {name for _, samples in families.values() for _, has, _ in samples for name in has}
        assert labels <= {"pipeline", "stage", "state", "half", "le", "version"}


def test_an_address_beyond_the_loopback_is_refused_unless_anybody_may_ask(tmp_path):
    command = [f"{os.environ['PENSTOCK_BIN']}/penstock-broker", "--dir", tmp_path / "d", "--http", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode != 0 and "--http-anywhere" in done.stderr, done
    with Broker(tmp_path, extra=["--http", "0.0.0.0:0", "--http-anywhere"]) as broker:
        port = address_of(broker).rsplit(":", 1)[1]
        assert get(f"127.0.0.1:{port}", "/livez")[0] == 200


def test_promtool_has_nothing_to_say(broker):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not there (Debian's package prometheus; ops/setup metrics)")
    with Client(broker) as client, EchoWorker(broker):
        client.wait(client.submit())
        until(address_of(broker), "penstock_jobs_finished_total", 1, state="done")
        done = subprocess.run(["promtool", "check", "metrics"], capture_output=True, check=False, text=True,
                              input=(text := get(address_of(broker), "/metrics")[1]), timeout=LONG_S)
        assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
        for name in ("read_bytes_total", "rounds_total", "stale_readers_total", "damaged"):
            assert f"\npenstock_scrub_{name} " in text


def test_the_checks_tell_a_start_a_drain_and_what_there_is(tmp_path):
    with Broker(tmp_path, extra=["--http", "127.0.0.1:0"]) as broker, Client(broker) as client:
        for _ in range(20):
            code, answer, _ = client.ask(SUBMIT_MANY, {"kind": "text.embed", "pipeline": "echo"},
                                         msgpack.packb([{"texts": ["hello"]}] * 1024))
            assert answer["accepted"] == 1024, (code, answer)
        broker.kill()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address, seen, over = f"127.0.0.1:{port}", [], threading.Event()

        def look():
            while not over.is_set():
                seen.append([get(address, p) for p in ("/livez", "/readyz", "/startupz")])

        broker.extra = ["--http", address]
        watcher = threading.Thread(target=look)
        watcher.start()
        broker.start()
        deadline = time.monotonic() + LONG_S
        while get(address, "/readyz") != (200, "ready\n") and time.monotonic() < deadline:
            time.sleep(0.05)
        over.set()
        watcher.join()
        alive = [s for s in seen if s[0]]
        assert all(s[0][0] == 200 for s in alive), alive
        started = [s[2] for s in alive if s[2]]
        for status, text in started:
            assert (status == 200) == (text == "started\n"), (status, text)
        assert [s for s, _ in started] == sorted((s for s, _ in started), reverse=True), "503, then 200"
        assert get(address, "/startupz") == (200, "started\n")
        assert get(address, "/readyz") == (200, "ready\n")
        assert get(address, "/nothing")[0] == 404
        assert get(address, "/metrics", "POST")[0] == 405
        assert client_sees(address, "echo")


def client_sees(address, name):
    """The page for people shows the queue, once the first copy is there."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        status, page = get(address, "/status")
        assert status == 200
        if f"<td>{name}<td>only<td>20480" in page:
            return True
        time.sleep(0.1)
    return False


def test_an_address_that_is_taken_or_beyond_the_loopback_stops_the_start(broker, tmp_path):
    for address, words in ((address_of(broker), "Address already in use"), ("0.0.0.0:0", "--http-anywhere")):
        done = subprocess.run([broker.command[0], "--dir", str(tmp_path / "other"), "--http", address],
                              capture_output=True, check=False, text=True, timeout=LONG_S)
        assert done.returncode == 1 and words in done.stderr, done
