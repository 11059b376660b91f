"""The command line from outside: data on stdout, words on stderr, exit codes, JSON that agrees."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import time

import msgpack
import pytest
from real_broker import LONG_S, PROGRESS, Broker, EchoWorker, Worker, echo

os.environ.setdefault("PENSTOCK_PIPELINES", os.path.abspath("pipelines"))
PROGRAM = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    pipeline = echo(name="text.embed")
    with Broker(tmp_path_factory.mktemp("cli"), pipeline) as b:
        yield b


@pytest.fixture(scope="module")
def echoing(broker):
    with EchoWorker(broker, name="echo-1", host="here") as w:
        yield w


def run(broker, *args, stdin=None, timeout=60):
    env = dict(os.environ, PENSTOCK_ENDPOINT=broker.clients if broker else "ipc:///nowhere/clients")
    return subprocess.run([PROGRAM, *args], env=env, input=stdin, capture_output=True, timeout=timeout,
                          check=False)


def ok(broker, *args, **more):
    done = run(broker, *args, **more)
    assert done.returncode == 0, done
    return done.stdout.decode()


def submit(broker, *args):
    return ok(broker, "submit", "text.embed", "--text", "hello", *args).strip()


def test_help_version_and_schema_need_no_broker():
    for args in (["--help"], ["help"], ["submit", "--help"], ["version"], ["schema"]):
        assert ok(None, *args)
    assert json.loads(ok(None, "version", "--json"))["protocol"] == 1
    for kind in json.loads(ok(None, "schema", "--json")):
        schema = json.loads(ok(None, "schema", kind))
        assert schema["title"] == kind and (schema["required"] or schema["oneOf"])


@pytest.mark.parametrize("args", [
    [], ["dance"], ["ls", "--dance"], ["ls", "extra"], ["submit"], ["submit", "text.embed", "a"],
    ["wait"], ["result"], ["wait", "not-a-job"], ["job"], ["job", "show"], ["job", "dance", "x"],
    ["worker"], ["worker", "dance"], ["schema", "text.sing"], ["ls", "--limit", "501"],
    ["ls", "--limit", "-1"], ["ls", "--timeout", "soon"], ["submit", "text.embed", "--set", "x"],
    ["submit", "text.embed", "--set", "nope=1"], ["submit", "text.embed", "--priority", "10"],
    ["submit", "text.generate", "--set", "top_k=many"], ["submit", "text.sing", "--text", "la"],
    ["submit", "text.embed", "--body-json", "/nowhere"], ["ping", "--endpoint", "tcp://8.8.8.8:1"],
    ["ls", "--limit", "0"], ["dead"], ["dead", "dance"],
])
def test_wrong_usage_exits_2_and_says_what_is_right(args):
    done = run(None, *args)
    assert done.returncode == 2, done
    assert done.stderr and not done.stdout


@pytest.mark.parametrize("args, choices", [
    (["ls", "--state", "bogus"], [b"ready", b"leased", b"expired", b"waiting"]),
    (["ls", "--kind", "bogus"], [b"text.embed", b"qc.inspect"]),
    (["dead", "ls", "--kind", "bogus"], [b"text.embed", b"qc.inspect"]),
    (["dead", "drop", "--all", "--class", "bogus"], [b"permanent", b"worker_died"]),
])
def test_a_filter_that_nothing_passes_is_a_usage_error_with_the_choices(args, choices):
    done = run(None, *args)
    assert done.returncode == 2 and not done.stdout, done
    assert all(choice in done.stderr for choice in choices), done


def test_no_verb_has_one_option_twice():
    verbs = re.findall(r"^  ([a-z]+) ", run(None, "--help").stdout.decode(), re.M)
    assert {"submit", "dead", "up", "results", "model", "store"} <= set(verbs)
    for verb in verbs:
        said = run(None, verb, "--help").stdout.decode()
        short, long = re.findall(r"^  -(\w|\?),", said, re.M), re.findall(r"^  (?:-., |    )--([a-z-]+)", said, re.M)
        assert len(set(short)) == len(short) and len(set(long)) == len(long), said
        assert "-worker" not in said.splitlines()[0] and "-broker" not in said.splitlines()[0], said


def test_a_list_is_given_as_json_from_a_file_or_one_by_one(tmp_path):
    (tmp_path / "list.json").write_text('["c", "[d"]')
    with Broker(tmp_path) as b, Worker(b) as w:
        ok(b, "submit", "text.embed", "--pipeline", "echo", "--set", "texts=a", "--set", 'texts=["b", "[INST]"]',
           "--set", f"texts=@{tmp_path}/list.json", "--set", "texts=[INST]")
        lease, payload = w.lease()
        assert msgpack.unpackb(payload[0])["texts"] == ["a", "b", "[INST]", "c", "[d", "[INST]"]
        assert w.done(lease) == "recorded"
    for bad in ('texts=["a", 2]', 'texts=["a"', "texts=@/nowhere"):
        done = run(None, "submit", "text.embed", "--set", bad)
        assert done.returncode == 2 and done.stderr, done


def test_a_member_of_a_body_that_its_kind_does_not_have_is_named():
    done = run(None, "submit", "text.embed", "--body-json", "-", stdin=b'{"texts": ["a"], "foo": 1}')
    assert done.returncode == 2 and b"text.embed has no field 'foo'" in done.stderr, done
    for args, body in ((["--set", "model=chatty"], None), (["--body-json", "-"], b'{"prompt": "a", "model": "b"}')):
        done = run(None, "submit", "text.generate", *args, stdin=body)
        assert done.returncode == 2 and b"the pipeline names the model" in done.stderr, done


def test_a_tcp_broker_that_is_not_there_may_want_a_key():
    done = run(None, "ping", "--endpoint", "tcp://127.0.0.1:1", "--timeout", "0.2")
    assert done.returncode == 3 and b"--key-file and --server-key" in done.stderr, done
    assert b"--key-file" not in run(None, "ping", "--timeout", "0.2").stderr


def test_a_rate_says_how_much_and_when_and_with_json_in_one_document(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("tenants:\n  - {name: default, rate_per_s: 0.01, burst: 1}\n")
    with Broker(tmp_path, echo(name="text.embed"), extra=["--settings", str(settings)]) as b:
        submit(b)
        done = run(b, "submit", "text.embed", "--text", "x")
        assert done.returncode == 1 and not done.stdout, done
        assert b"faster than 0.01 a second with a burst of 1" in done.stderr and b"again in " in done.stderr, done
        done = run(b, "submit", "text.embed", "--text", "x", "--json")
        why = json.loads(done.stdout)
        assert done.returncode == 1 and why["code"] == "full" and why["limit"] and why["fix"], done
        assert why["message"] and 0 < why["retry_after_ms"] <= 100000, done

def test_no_broker_exits_3_and_names_the_next_command():
    for args in (["ping"], ["ls"], ["submit", "text.embed", "--text", "x"], ["status"]):
        done = run(None, *args, "--timeout", "0.2")
        assert done.returncode == 3, done
        assert b"penstock up" in done.stderr


def test_a_job_goes_from_submit_to_result(broker, echoing):
    job = submit(broker)
    assert len(job) == 13
    assert json.loads(ok(broker, "wait", job, "--json"))["state"] == "done"
    shown = json.loads(ok(broker, "result", job, "--json"))
    assert shown["job"] == job and shown["result"]["path"] == ["test.echo"]
    assert json.loads(ok(broker, "job", "show", job, "--json"))["state"] == "done"
    assert job in ok(broker, "job", "show", job)
    assert job in ok(broker, "ls")
    rows = json.loads(ok(broker, "ls", "--json", "--state", "done"))["jobs"]
    assert job in [row["job"] for row in rows]


def test_submit_with_wait_prints_only_data_on_stdout(broker, echoing):
    done = run(broker, "submit", "text.embed", "--text", "a", "--text", "b", "--wait", "--json",
               "--seed", "5")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["result"]
    assert b"accepted, seed 5" in done.stderr


def test_bodies_come_from_files_stdin_and_json(broker, echoing, tmp_path):
    (tmp_path / "lines").write_text("one\n\nzwei\r\n三\n", encoding="utf-8")
    (tmp_path / "body").write_text('{"texts": ["x", "y"]}')
    for args in (["--file", str(tmp_path / "lines")], ["--body-json", str(tmp_path / "body")],
                 ["--set", "texts=a", "--set", "texts=b"]):
        job = ok(broker, "submit", "text.embed", *args).strip()
        assert json.loads(ok(broker, "wait", job, "--json"))["state"] == "done"
    job = ok(broker, "submit", "text.embed", "--body-json", "-", stdin=b'{"texts": ["z"]}').strip()
    size = json.loads(ok(broker, "job", "show", job, "--json"))["body_bytes"]
    assert size == len(b"\x81\xa5texts\x91\xa1z")
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    done = run(broker, "submit", "text.embed", "--file", str(tmp_path / "bad"))
    assert done.returncode == 2 and b"not UTF-8" in done.stderr


def test_what_the_broker_refuses_exits_1_with_the_fix(broker):
    done = run(broker, "submit", "text.embed", "--body-json", "-", stdin=b"{}")
    assert done.returncode == 1, done
    assert b"'texts' is missing" in done.stderr and b"give 'texts'" in done.stderr
    done = run(broker, "result", "0000000000001")
    assert done.returncode == 1 and b"unknown_job" in done.stderr
    done = run(broker, "dead", "drop", "0000000000001", "--json")
    assert json.loads(done.stdout)["code"] == "unknown_job" and b"penstock dead ls" in done.stderr, done


def test_the_same_key_gives_the_same_job(broker):
    first = json.loads(ok(broker, "submit", "text.embed", "--text", "k", "--key", "k1", "--json"))
    again = json.loads(ok(broker, "submit", "text.embed", "--text", "k", "--key", "k1", "--json"))
    assert again["job"] == first["job"]
    assert (first["existing"], again["existing"]) == (False, True)
    assert again["seed"] == first["seed"]


def test_a_text_whose_beginning_was_streamed_before_is_printed_whole(tmp_path):
    pipeline = echo(name="text.generate").replace("kind: text.embed", "kind: text.generate")
    for first, out in ((1, "head tail\n"), (2, "The head tail\n")):
        with Broker(tmp_path, pipeline) as b, Worker(b) as w:
            env = dict(os.environ, PENSTOCK_ENDPOINT=b.clients)
            with subprocess.Popen([PROGRAM, "submit", "text.generate", "--text", "x", "--stream"], env=env, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cli:
                assert "accepted" in cli.stderr.readline()
                lease = w.lease()[0]
                time.sleep(1)  # it follows by now; if it does not, the text is whole too
                for tokens, piece in ((first, "head"), (first + 1, " tail")):
                    w.send(PROGRESS, {"job": lease["job"], "stage": 0, "attempt": lease["attempt"], "type": "token",
                                      "data": {"text": piece, "tokens": tokens}})
                text = "head tail" if first == 1 else "The head tail"
                w.done(lease, msgpack.packb({"text": text, "finish_reason": "length", "model": "m"}))
                assert cli.wait(LONG_S) == 0 and cli.stdout.read() == out


def test_cancel_and_what_is_cancelled_already(broker):
    job = submit(broker, "--delay", "3600")
    state = json.loads(ok(broker, "job", "cancel", job, "--reason", "a test", "--json"))
    assert state == {"job": job, "state": "cancelled"}
    done = run(broker, "wait", job, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["reason"] == "a test"
    done = run(broker, "wait", job)
    assert done.returncode == 1 and not done.stdout and b"a test" in done.stderr


def test_wait_gives_up_at_its_timeout(broker):
    job = submit(broker, "--delay", "3600")
    began = time.monotonic()
    done = run(broker, "wait", job, "--timeout", "0.3")
    assert done.returncode == 1 and b"still delayed" in done.stderr
    assert time.monotonic() - began < 20
    ok(broker, "job", "cancel", job)


def test_events_end_with_the_job(broker, echoing):
    job = submit(broker)
    lines = [json.loads(line) for line in ok(broker, "job", "events", job, "--follow", "--json").splitlines()]
    assert lines[-1]["last"] and lines[-1]["data"]["state"] == "done"
    assert all(line["type"] == "state" for line in lines)
    now = ok(broker, "job", "events", job).splitlines()
    assert [line.split()[2] for line in now] == ["accepted", "leased", "stage_done", "ended"]


def test_lists_are_pages_and_workers_are_shown(broker, echoing):
    jobs = [submit(broker) for _ in range(3)]
    ok(broker, "wait", *jobs)
    page = json.loads(ok(broker, "ls", "--json", "--limit", "2"))
    assert [row["job"] for row in page["jobs"]] == jobs[:0:-1]
    page = json.loads(ok(broker, "ls", "--json", "--limit", "1", "--before", page["next"]))
    assert page["jobs"][0]["job"] == jobs[0]
    done = run(broker, "ls", "--limit", "1")
    assert b"--before" in done.stderr and len(done.stdout.splitlines()) == 2
    workers = json.loads(ok(broker, "worker", "ls", "--json"))
    assert [w["name"] for w in workers] == ["echo-1"]
    assert "echo-1" in ok(broker, "worker", "ls")


def test_ping_and_status(broker):
    assert json.loads(ok(broker, "ping", "--json"))["accepting"] is True
    assert "accepting" in ok(broker, "ping")
    assert "commits" in json.loads(ok(broker, "status", "--json"))
    assert "store" in ok(broker, "status")


def test_a_full_disk_under_stdout_is_a_failure(broker):
    with open("/dev/full", "wb") as full:
        env = dict(os.environ, PENSTOCK_ENDPOINT=broker.clients)
        done = subprocess.run([PROGRAM, "status"], env=env, stdout=full, stderr=subprocess.PIPE,
                              check=False, timeout=60)
    assert done.returncode == 1


def test_a_failed_job_exits_1_and_says_why(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b, Worker(b) as w:
        job = submit(b)
        w.fail(w.lease()[0], "permanent", "the model is made of cheese")
        done = run(b, "wait", job)
        assert done.returncode == 1 and not done.stdout
        assert b"made of cheese" in done.stderr and b"job show" in done.stderr


def test_a_wait_outlives_the_brokers_death(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b:
        job = submit(b)
        env = dict(os.environ, PENSTOCK_ENDPOINT=b.clients)
        with subprocess.Popen([PROGRAM, "wait", job, "--json"], env=env, stdout=subprocess.PIPE) as waiting:
            time.sleep(0.3)
            b.kill()
            b.start()
            with EchoWorker(b):
                out, _ = waiting.communicate(timeout=60)
        assert waiting.returncode == 0
        assert json.loads(out)["state"] == "done"


# ---- up ----

class Up:
    """A `penstock up` on a folder, ready."""

    def __init__(self, root, *args):
        self.dir = pathlib.Path(root)
        self.clients = f"ipc://{self.dir}/clients"
        self.log = self.dir / "up.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([PROGRAM, "up", "--dir", str(self.dir), "--json", *args],
                                            stdout=subprocess.PIPE, stderr=log)
        self.ready = json.loads(self.process.stdout.readline() or "{}")

    def words(self):
        return self.log.read_text(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.process.stdout.close()


def alive(pid):
    try:
        os.kill(pid, 0)
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def until(check, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.05)
    return False


def test_up_without_workers_starts_stops_and_leaves_nothing(tmp_path):
    with Up(tmp_path, "--workers", "0") as up:
        assert up.ready["endpoint"] == up.clients, up.words()
        assert json.loads(ok(up, "ping", "--json"))["epoch"] == 1
        assert "ready at" in up.words()
        assert up.stop() == 0
        assert not alive(up.ready["broker"])


def test_up_starts_a_broker_that_was_killed_again_and_jobs_are_there(tmp_path):
    with Up(tmp_path, "--workers", "0") as up:
        job = submit(up)
        os.kill(up.ready["broker"], signal.SIGKILL)
        assert until(lambda: run(up, "ping", "--timeout", "1").returncode == 0)
        assert "died of signal 9" in up.words()
        assert json.loads(ok(up, "job", "show", job, "--json"))["state"] == "ready"
        assert up.stop() == 0


def test_the_broker_goes_when_up_is_killed(tmp_path):
    with Up(tmp_path, "--workers", "0") as up:
        up.process.kill()
        up.process.wait()
        assert until(lambda: not alive(up.ready["broker"]))


def test_up_gives_up_on_what_cannot_start(tmp_path):
    done = run(None, "up", "--dir", str(tmp_path), "--workers", "0", "--pipelines", "/nowhere")
    assert done.returncode == 1, done
    assert b"cannot start" in done.stderr
    for option, value in (("--models", "/nowhere"), ("--model", "/nowhere"), ("--model", "a=/nowhere"),
                          ("--recipes", "/nowhere")):
        done = run(None, "up", "--dir", str(tmp_path / "none"), option, value)
        assert done.returncode == 2 and f"{option} {value}: ".encode() in done.stderr, done
        assert not (tmp_path / "none").exists()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    done = run(None, "up", "--dir", str(tmp_path / "shared"), "--workers", "0")
    assert done.returncode == 2 and b"chmod" in done.stderr


def test_a_broker_that_answers_nonsense_does_not_confuse_the_client(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "clients"))
        s.listen()
        done = run(None, "ping", "--endpoint", f"ipc://{tmp_path}/clients", "--timeout", "0.5")
    assert done.returncode == 3


def test_store_check_reads_a_stopped_store_and_refuses_an_open_one(tmp_path):
    done = run(None, "store", "check", "--dir", str(tmp_path / "none"))
    assert done.returncode == 1 and b"no store" in done.stderr and not (tmp_path / "none").exists()
    with Broker(tmp_path, echo(name="text.embed")) as b:
        submit(b)
        done = run(None, "store", "check", "--dir", str(tmp_path))
        assert done.returncode == 1 and str(b.process.pid).encode() in done.stderr
    done = run(None, "store", "check", "--dir", str(tmp_path))
    assert done.returncode == 0 and b"0 problems in 1 jobs" in done.stderr
    assert run(None, "store").returncode == 2
    assert run(None, "store", "dance").returncode == 2


def test_without_dir_jobs_are_kept_in_the_state_folder_and_sockets_in_the_runtime_one(tmp_path):
    env = dict(os.environ, XDG_STATE_HOME=str(tmp_path / "state"), XDG_RUNTIME_DIR=str(tmp_path / "run"))
    env.pop("PENSTOCK_ENDPOINT", None)
    broker = os.path.join(os.environ["PENSTOCK_BIN"], "penstock-broker")
    with subprocess.Popen([broker], env=env, stderr=subprocess.DEVNULL) as process:
        try:
            assert until(lambda: subprocess.run([PROGRAM, "ping"], env=env, check=False,
                                                capture_output=True).returncode == 0)
            assert (tmp_path / "state/penstock/STORE").exists()
            assert (tmp_path / "run/penstock/clients").exists()
        finally:
            process.terminate()


# ---- what a job waits for ----

def test_a_wait_says_what_no_worker_can_run(tmp_path):
    pipeline = echo(name="text.embed").replace("run: test.echo", "run: test.echo, model: tiny")
    with Broker(tmp_path, pipeline, lease_ms=60000) as b:
        job = submit(b)
        done = run(b, "wait", job, "--timeout", "2.5")
        assert done.returncode == 1 and b"no worker is registered" in done.stderr, done
        with Worker(b, "test.other"):
            done = run(b, "submit", "text.embed", "--text", "x", "--wait", "--timeout", "2.5")
            assert b"no worker runs test.echo" in done.stderr, done
        with Worker(b, models=["other"]):
            done = run(b, "submit", "text.embed", "--text", "x", "--stream", "--timeout", "0.5")
            assert b"test.echo with model tiny" in done.stderr, done
            assert b"penstock up --model tiny=DIR" in done.stderr
            (tmp_path / "x.txt").write_text("x")
            done = run(b, "submit", "text.embed", str(tmp_path / "x.txt"), "--wait", "--timeout", "4")
            assert done.stderr.count(b"has that model") == 1 and b"1 not finished" in done.stderr


def test_a_wait_is_silent_when_a_worker_is_only_busy(tmp_path):
    with Broker(tmp_path, echo(name="text.embed"), lease_ms=60000) as b, Worker(b, credit=1) as w:
        first = submit(b)
        w.lease()
        job = submit(b)
        done = run(b, "wait", job, "--timeout", "2.5")
        assert done.stderr.count(b"\n") == 1 and b"still ready" in done.stderr, done
        ok(b, "job", "cancel", first)
        ok(b, "job", "cancel", job)


def test_a_terminal_does_not_obey_what_a_reason_says(tmp_path):
    with Broker(tmp_path, echo(name="text.embed")) as b:
        job = submit(b)
        with Worker(b) as w:
            w.fail(w.lease()[0], "permanent", "line 1: \x1b]0;owned\x07\x1b[2J \u009b31m 温度")
        ours, theirs = pty.openpty()
        with subprocess.Popen([PROGRAM, "wait", job], stdout=theirs, stderr=theirs,
                              env=dict(os.environ, PENSTOCK_ENDPOINT=b.clients, NO_COLOR="1")) as wait:
            os.close(theirs)
            seen = b""
            while select.select([ours], [], [], 20)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            assert wait.wait(30) == 1
        os.close(ours)
        shown = seen.decode()
        assert "owned" in shown and "温度" in shown
        assert not any(sign in shown for sign in "\x1b\x07\u009b"), seen
        assert "\x1b]0;owned\x07" in json.loads(ok(b, "job", "show", job, "--json"))["reason"]
