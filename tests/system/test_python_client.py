"""The Python client against a real broker: results, errors, streams, and a broker that dies."""
import inspect
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import msgpack
import penstock
import pytest
from real_broker import PROGRESS, STAGE_DONE, Broker, EchoWorker, Worker, echo

GENERATE = echo(name="text.generate").replace("kind: text.embed", "kind: text.generate")
CONTRACT = echo(name="contract.analyze").replace("kind: text.embed", "kind: contract.analyze")
TEXTS = {"texts": ["hello"]}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("py"), echo(name="text.embed"), GENERATE, CONTRACT) as b:
        yield b


@pytest.fixture
def client(broker):
    with penstock.Client(broker.clients) as c:
        yield c


def fields_of(kind):
    """The fields of a kind and their types, from the table that kinds.def makes."""
    readme = pathlib.Path("schemas/README.md").read_text(encoding="utf-8")
    section = readme.split(f"#### `{kind}`\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.M))


def test_generate_takes_every_field_of_its_kind_and_sends_it_under_its_name(broker, client):
    fields = fields_of("text.generate")
    assert len(fields) > 15
    assert set(inspect.signature(penstock.generate).parameters) == set(fields) | {"seed"}
    sample = {"str": "x", "uint": 1, "float": 0.5, "bool": True, "[str]": ["x"]}
    values = {name: sample[kind] for name, kind in fields.items() if kind != "any"}
    values.update(tools=[{"name": "f"}], template_vars={"a": 1}, schema={"type": "null"})
    assert set(values) | {"messages"} == set(fields)
    body = penstock.generate(**values).body
    assert set(body) == set(values) and all(body[name] == value for name, value in values.items()
                                            if fields[name] != "any")
    text = {name: values[name] for name in values if name not in ("tools", "template_vars", "schema")}
    client.submit(penstock.generate(**text))
    chat = {name: values[name] for name in values if name not in ("prompt", "stop")}
    client.submit(penstock.generate(**chat, messages=[{"role": "user", "content": "x"}]))
    with pytest.raises(penstock.Refused, match="'tools' go with 'messages'"):
        client.submit(penstock.generate(**text, tools=values["tools"]))
    assert set(penstock.generate("x").body) == {"prompt"}


def test_ten_lines_to_a_result(broker, client):
    with EchoWorker(broker):
        job = client.submit("text.embed", TEXTS, seed=7)
        assert (job.seed, job.existing, len(job.job)) == (7, False, 13)
        result = client.wait(job, timeout=20)
        assert result.done and result.value["path"] == ["test.echo"]
        assert client.result(job).value == result.value
        assert client.run("text.embed", TEXTS, timeout=20)["path"] == ["test.echo"]


def test_a_refusal_says_code_field_limit_and_fix(client):
    with pytest.raises(penstock.Refused) as refused:
        client.submit("text.embed", {})
    assert (refused.value.code, refused.value.field) == ("missing", "texts")
    assert refused.value.limit and refused.value.fix
    with pytest.raises(penstock.Refused) as refused:
        client.submit("text.sing", {})
    assert refused.value.code == "unknown_kind"
    with pytest.raises(penstock.Refused) as refused:
        client.show("0000000000001")
    assert refused.value.code == "unknown_job"


def test_what_no_broker_would_take_is_refused_at_once(client):
    with pytest.raises(penstock.Invalid):
        client.submit("text.embed", {"texts": ["x" * (17 << 20)]})
    with pytest.raises(penstock.Invalid):
        client.submit("text.embed", {"texts": object()})


def test_a_key_returns_the_earlier_job(client):
    first = client.submit("text.embed", TEXTS, key="py-1", delay=3600)
    again = client.submit("text.embed", TEXTS, key="py-1")
    assert again.job == first.job and again.existing and not first.existing
    assert client.cancel(first, reason="a test") == "cancelled"
    result = client.wait(first, timeout=5)
    assert (result.state, result.reason, result.value) == ("cancelled", "a test", None)


def test_a_job_that_is_not_done_raises_with_its_reason(broker):
    with Worker(broker) as w, penstock.Client(broker.clients) as c:
        thread = threading.Thread(target=lambda: w.fail(w.lease()[0], "permanent", "made of cheese"))
        thread.start()
        with pytest.raises(penstock.JobFailed, match="made of cheese") as failed:
            c.run("text.embed", TEXTS, timeout=20)
        thread.join()
        assert failed.value.result.error_class == "permanent"


def test_a_wait_ends_at_its_timeout(client):
    job = client.submit("text.embed", TEXTS, delay=3600)
    with pytest.raises(penstock.Timeout, match="delayed"):
        client.wait(job, timeout=0.2)
    assert not client.result(job).terminal
    client.cancel(job)


def test_events_stream_tokens_until_the_end(broker, client):
    with Worker(broker, name="writer") as w:
        job = client.submit("text.generate", {"prompt": "Once"})
        events = client.events(job, timeout=20)
        assert next(events).type == "state"
        lease = w.lease()[0]
        token = {"job": lease["job"], "stage": 0, "attempt": lease["attempt"], "type": "token"}
        for i, text in enumerate(["upon", " a"]):
            w.send(PROGRESS, dict(token, data={"text": text, "tokens": i + 1}))
        w.send(STAGE_DONE, {"job": lease["job"], "stage": 0, "attempt": lease["attempt"]},
               msgpack.packb({"text": "upon a"}))
        rest = list(events)
        assert [e.data["text"] for e in rest if e.type == "token"] == ["upon", " a"]
        assert rest[-1].last and rest[-1].data["state"] == "done"
        assert client.wait(job, timeout=5).value == {"text": "upon a"}


def test_lists_go_over_several_pages(client):
    jobs = [client.submit("text.embed", TEXTS, delay=3600).job for _ in range(5)]
    rows = list(client.list(state="delayed", limit=5))
    assert [row.job for row in rows] == jobs[::-1]
    assert all(row.kind == "text.embed" and row.accepted_ms > 0 for row in rows)
    for job in jobs:
        client.cancel(job)


def test_ping_status_and_workers(broker, client):
    with EchoWorker(broker, name="seen"):
        assert client.ping().accepting
        assert "jobs" in client.status()
        end = time.monotonic() + 10
        while "seen" not in [w["name"] for w in client.workers()]:
            assert time.monotonic() < end


def test_no_broker_is_unreachable_in_time():
    with penstock.Client("ipc:///tmp/penstock-nobody-here", timeout=0.2) as c:
        with pytest.raises(penstock.Unreachable, match="penstock up"):
            c.ping()
    with pytest.raises(penstock.Unreachable):
        penstock.Client("not an endpoint")


def test_waits_and_streams_outlive_the_brokers_death(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b, penstock.Client(b.clients) as c:
        job = c.submit("text.embed", TEXTS)
        seen = []

        def follow():
            with penstock.Client(b.clients) as other:
                seen.extend(event.data["state"] for event in other.events(job, timeout=60))
        thread = threading.Thread(target=follow)
        thread.start()
        time.sleep(0.5)
        b.kill()
        b.start()
        with EchoWorker(b):
            assert c.wait(job, timeout=60).done
            thread.join(60)
        assert seen[0] == "ready" and seen[-1] == "done"


def test_a_submit_that_may_not_be_repeated_says_at_once_that_the_broker_went_away(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b, penstock.Client(b.clients) as c:
        c.ping()  # it is connected
        b.process.send_signal(signal.SIGSTOP)
        threading.Timer(0.5, b.kill).start()
        began = time.monotonic()
        with pytest.raises(penstock.Timeout, match="went away .* submit with a key"):
            c.submit("text.embed", TEXTS, timeout=60)
        assert time.monotonic() - began < 20
        b.process.wait()
        restart = threading.Timer(0.5, b.start)
        restart.start()
        assert c.submit("text.embed", TEXTS, key="again", timeout=60).state
        restart.join()


def test_the_example_of_the_specification_submits_each_kind(broker):
    example = pathlib.Path("examples/submit_each_kind.py")
    with EchoWorker(broker):
        done = subprocess.run([sys.executable, str(example)], env={"PENSTOCK_ENDPOINT": broker.clients},
                              capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["text.embed", "text.generate", "contract.analyze"]
    assert all(line.split()[2] == "done" for line in lines)
    assert "import penstock" not in example.read_text()
