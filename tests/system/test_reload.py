"""Pipeline files change while the broker runs: jobs keep the version that they started with."""
import json
import os
import pathlib
import signal
import subprocess
import time

from real_broker import LONG_S, REFUSED, SUBMIT, Broker, Client, Worker, body, echo

BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])
OLD = """name: flow
kind: text.embed
stages: [{name: a, run: test.a, checkpoint: true}, {name: b, run: test.b}]
timeout_ms: 20000
"""
NEW = OLD.replace("test.b", "test.new").replace("20000", "19000")


def pipelines(client):
    """{(name, retired): row}"""
    stats = client.stats()
    return {(row["name"], row["retired"]): row for row in stats["pipelines"]}, stats


def until(client, condition):
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        rows, stats = pipelines(client)
        if condition(rows, stats):
            return rows
        time.sleep(0.02)
    raise AssertionError((rows, stats["pipelines_refused"]))


def write(broker, text, name="p0.yaml"):
    """As editors do: another file in the place of the old one."""
    path = broker.dir / "pipelines" / name
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)


def end_span(worker, lease):
    """Both stages of the pipeline."""
    worker.done(dict(lease, plan=lease["plan"][:1]), more=True)
    assert worker.done(lease) == "recorded"


def changed(old):
    return lambda rows, _: rows[("flow", False)]["version"] != old


def test_a_job_keeps_the_version_it_started_with_over_a_restart(tmp_path):
    with Broker(tmp_path, OLD) as b:
        with Client(b) as c, Worker(b, "test.a", "test.b", "test.new") as w:
            first = c.submit(pipeline="flow")
            lease, _ = w.lease()
            assert [s["run"] for s in lease["plan"]] == ["test.a", "test.b"]
            w.send(0x86, {"job": first, "stage": 0, "attempt": lease["attempt"]})  # RETURN
            old = pipelines(c)[0][("flow", False)]["version"]
            assert c.show(first)["pipeline_version"] == old
            write(b, NEW)
            rows = until(c, changed(old))
            assert rows[("flow", True)]["version"] == old and rows[("flow", True)]["jobs"] == 1
            again, _ = w.lease()
            assert (again["job"], [s["run"] for s in again["plan"]]) == (first, ["test.a", "test.b"])
            second = c.submit(pipeline="flow")
            lease, _ = w.lease()
            assert lease["job"] == second
            assert [s["run"] for s in lease["plan"]] == ["test.a", "test.new"]
            end_span(w, lease)
        b.kill()
        b.start()
        with Client(b) as c, Worker(b, "test.a", "test.b") as w:  # a worker of the old version
            rows, _ = pipelines(c)
            assert rows[("flow", True)]["version"] == old, "its text is in the store"
            lease, _ = w.lease()
            assert lease["job"] == first
            end_span(w, lease)
            assert c.wait(first)[0]["state"] == "done"
            assert ("flow", True) not in pipelines(c)[0], "nobody runs it any more"
            assert c.show(first)["pipeline_version"] == old


def test_a_bad_file_leaves_the_old_ones_and_says_so(tmp_path):
    with Broker(tmp_path, OLD) as b, Client(b) as c:
        write(b, OLD.replace("timeout_ms", "time_out"))
        until(c, lambda rows, stats: stats["pipelines_refused"])
        rows, stats = pipelines(c)
        assert "p0.yaml" in stats["pipelines_refused"] and "time_out" in stats["pipelines_refused"]
        assert ("flow", False) in rows
        assert c.submit(pipeline="flow")
        assert "pipelines_refused" in b.log.read_text()
        done = subprocess.run([BIN / "penstock", "pipeline", "ls", "--endpoint", b.clients],
                              capture_output=True, text=True, timeout=60, check=True)
        assert "flow" in done.stdout and "loaded" in done.stdout and "p0.yaml" in done.stderr
        write(b, NEW)
        until(c, lambda rows, stats: not stats["pipelines_refused"] and ("flow", True) in rows)
        done = subprocess.run([BIN / "penstock", "pipeline", "ls", "--json", "--endpoint", b.clients],
                              capture_output=True, text=True, timeout=60, check=True)
        assert {p["retired"] for p in json.loads(done.stdout)["pipelines"]} == {True, False}


def test_files_come_and_go_and_sighup_reads_them_too(tmp_path):
    with Broker(tmp_path, echo()) as b, Client(b) as c, Worker(b, "test.echo") as w:
        write(b, echo(name="more"), "more.yaml")
        until(c, lambda rows, _: ("more", False) in rows)
        job = c.submit(pipeline="more")
        (b.dir / "pipelines" / "more.yaml").unlink()
        rows = until(c, lambda rows, _: ("more", False) not in rows)
        assert rows[("more", True)]["jobs"] == 1
        code, header, _ = c.ask(SUBMIT, {"kind": "text.embed", "pipeline": "more"}, body())
        assert (code, header["code"]) == (REFUSED, "unknown_pipeline")
        lease, _ = w.lease()
        w.done(lease)
        assert c.wait(job)[0]["state"] == "done"
        write(b, echo(name="more"), "more.yaml")
        b.process.send_signal(signal.SIGHUP)
        rows = until(c, lambda rows, _: ("more", False) in rows)
        assert ("more", True) not in rows, "the same text is the same version"


def test_jobs_of_all_versions_count_against_the_limit_of_their_pipeline(tmp_path):
    with Broker(tmp_path, echo(queue_max=3)) as b, Client(b) as c:
        for _ in range(3):
            c.submit()
        write(b, echo(queue_max=4))
        until(c, lambda rows, _: ("echo", True) in rows)
        c.submit()
        code, header, _ = c.ask(SUBMIT, {"kind": "text.embed", "pipeline": "echo"}, body())
        assert (code, header["code"]) == (REFUSED, "full")
