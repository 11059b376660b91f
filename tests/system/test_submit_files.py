"""`penstock submit KIND FILES`: one job a file, resumed by content, through full queues and deaths."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import msgpack
import pytest
from real_broker import Broker, EchoWorker, Worker, echo

PROGRAM = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")


@pytest.fixture(name="folder")
def fixture_folder(tmp_path):
    """A folder of n text files, each with a text of its own."""
    def make(n):
        folder = tmp_path / "in"
        folder.mkdir()
        for i in range(n):
            (folder / f"t{i:04}.txt").write_text(f"text number {i}\n", encoding="utf-8")
        return folder
    return make


def environment(broker):
    return dict(os.environ, PENSTOCK_ENDPOINT=broker.clients if broker else "ipc:///nowhere/clients")


def submit(broker, *args, kind="text.embed", timeout=60):
    return subprocess.run([PROGRAM, "submit", kind, *map(str, args)], env=environment(broker),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, check=False)


def jobs_of(broker):
    done = subprocess.run([PROGRAM, "ls", "--json", "--limit", "500"], env=environment(broker),
                          capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)["jobs"]


def results(out):
    return {path.name: json.loads(path.read_text(encoding="utf-8"))
            for path in pathlib.Path(out).rglob("*.json")}


def test_each_file_is_a_job_and_its_result_a_file(tmp_path, folder):
    files, out = folder(70), tmp_path / "out"
    (files / "deep").mkdir()
    (files / "deep/more.txt").write_text("deeper\n")
    (files / "notes.md").write_text("not of this kind\n")
    (files / ".hidden.txt").write_text("hidden\n")
    with Broker(tmp_path, echo(name="text.embed")) as b, EchoWorker(b):
        done = submit(b, files, "--out", out)
        assert done.returncode == 0, done
        assert done.stdout == "" and "70 files: 70 done" in done.stderr
        assert len(results(out)) == 70 == len(jobs_of(b))
        one = json.loads((out / "t0003.txt.json").read_text())
        assert (one["file"], one["state"], one["kind"]) == ("t0003.txt", "done", "text.embed")
        assert one["result"]["path"] == ["test.echo"] and len(one["job"]) == 13
        done = submit(b, files, "--out", out, "--recursive")
        assert "71 files: 1 done, 70 skipped" in done.stderr, done
        assert (out / "deep/more.txt.json").exists() and len(jobs_of(b)) == 71


def test_a_repeated_run_finds_its_jobs_by_content_whatever_the_files_are_called(tmp_path, folder):
    files = folder(20)
    with Broker(tmp_path, echo(name="text.embed")) as b, EchoWorker(b):
        first = submit(b, files, "--wait", "--json")
        assert first.returncode == 0, first
        (files / "t0000.txt").rename(files / "renamed.txt")
        (files / "t0001.txt").write_text("changed\n")
        again = submit(b, files, "--wait", "--json")
        assert "20 done (19 submitted before)" in again.stderr, again
        jobs = {row["file"]: row["job"] for row in map(json.loads, first.stdout.splitlines())}
        new = {row["file"]: row["job"] for row in map(json.loads, again.stdout.splitlines())}
        assert new["renamed.txt"] == jobs["t0000.txt"] and new["t0001.txt"] != jobs["t0001.txt"]
        assert len(jobs_of(b)) == 21
        assert submit(b, files, "--key", "june").returncode == 0
        assert len(jobs_of(b)) == 41, "--key names another run of the same files"


def test_without_wait_it_prints_the_jobs_and_fields_of_set_count_for_all(tmp_path, folder):
    files = folder(5)
    with Broker(tmp_path, echo(name="text.embed")) as b:
        done = submit(b, files / "t0004.txt", files, "--glob", "t000[01]*")
        assert done.returncode == 0, done
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [row[1] for row in rows[1:]] == ["t0000.txt", "t0001.txt", "t0004.txt"]
        assert sorted(row[0] for row in rows[1:]) == sorted(job["job"] for job in jobs_of(b))
        other = submit(b, files, "--set", "texts=the same for all")
        assert other.returncode == 0 and len(jobs_of(b)) == 4, "five files, one content"


def test_what_is_wrong_with_one_file_harms_no_other(tmp_path, folder):
    files, out = folder(6), tmp_path / "out"
    (files / "t0002.txt").write_bytes(b"\xff\xfe")
    (files / "t0003.txt").write_bytes(b"")
    with Broker(tmp_path, echo(name="text.embed")) as b, EchoWorker(b):
        done = submit(b, files, "--out", out)
        assert done.returncode == 1, done
        assert "6 files: 4 done, 2 failed" in done.stderr
        assert "t0002.txt: byte 0 is not UTF-8" in done.stderr and "'texts'" in done.stderr
        assert "t0002.txt.json" not in results(out)
        assert results(out)["t0003.txt.json"]["state"] == "failed"


def test_again_submits_what_failed_before_and_nothing_else(tmp_path, folder):
    files = folder(2)
    with Broker(tmp_path, echo(name="text.embed", tries=1)) as b:
        with Worker(b) as w, subprocess.Popen([PROGRAM, "submit", "text.embed", str(files), "--wait"],
                                              env=environment(b), stderr=subprocess.PIPE) as first:
            w.fail(w.lease()[0], "permanent", "no cheese")
            w.done(w.lease()[0])
            assert first.wait(60) == 1
            assert b"no cheese" in first.stderr.read()
        with EchoWorker(b):
            still = submit(b, files, "--wait")
            assert still.returncode == 1 and "2 files: 1 done (1 submitted before), 1 failed" in still.stderr
            for _ in range(2):
                again = submit(b, files, "--wait", "--again")
                assert again.returncode == 0 and "2 files: 2 done" in again.stderr, again
                assert len(jobs_of(b)) == 3


def test_a_full_broker_is_waited_for(tmp_path, folder):
    files = folder(60)
    with Broker(tmp_path, echo(name="text.embed", queue_max=4)) as b, EchoWorker(b):
        done = submit(b, files, "--wait")
        assert done.returncode == 0 and "60 files: 60 done" in done.stderr, done
        assert len(jobs_of(b)) == 60


def test_500_files_are_done_once_each_though_the_broker_is_killed_in_between(tmp_path, folder):
    files, out = folder(500), tmp_path / "out"
    with Broker(tmp_path, echo(name="text.embed")) as b, EchoWorker(b):
        run = subprocess.Popen([PROGRAM, "submit", "text.embed", str(files), "--out", str(out)],
                               env=environment(b), stderr=subprocess.PIPE, text=True)
        for part in (60, 160, 260):
            deadline = time.monotonic() + 60
            while len(list(out.glob("*.json"))) < part and time.monotonic() < deadline:
                assert run.poll() is None, run.stderr.read()
                time.sleep(0.002)
            b.kill()
            b.start()
        words = run.communicate(timeout=120)[1]
        assert run.returncode == 0 and "500 files: 500 done" in words, words
        found = results(out)
        assert len(found) == 500 and all(r["state"] == "done" for r in found.values())
        jobs = jobs_of(b)
        assert len(jobs) == 500 and {j["job"] for j in jobs} == {r["job"] for r in found.values()}
        assert {j["state"] for j in jobs} == {"done"}


def test_ctrl_c_leaves_the_jobs_running_and_the_same_command_takes_up(tmp_path, folder):
    files, out = folder(30), tmp_path / "out"
    with Broker(tmp_path, echo(name="text.embed")) as b:
        run = subprocess.Popen([PROGRAM, "submit", "text.embed", str(files), "--out", str(out)],
                               env=environment(b), stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while len(jobs_of(b)) < 30 and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        words = run.communicate(timeout=30)[1]
        assert run.returncode == 1, words
        assert "30 not finished" in words and "goes on" in words and "same command" in words
        with EchoWorker(b):
            done = submit(b, files, "--out", out)
        assert "30 done (30 submitted before)" in done.stderr, done
        assert len(jobs_of(b)) == 30


def test_a_terminal_sees_a_bar_and_a_pipe_none(tmp_path, folder):
    files = folder(40)
    with Broker(tmp_path, echo(name="text.embed")) as b:
        ours, theirs = pty.openpty()
        with subprocess.Popen([PROGRAM, "submit", "text.embed", str(files), "--wait"],
                              env=dict(environment(b), TERM="xterm", NO_COLOR="1", LANG="C.UTF-8",
                                       LC_ALL="C.UTF-8"),
                              stdout=subprocess.DEVNULL, stderr=theirs) as run:
            os.close(theirs)
            seen = b""
            time.sleep(0.3)
            with EchoWorker(b):
                while select.select([ours], [], [], 20)[0]:
                    try:
                        seen += os.read(ours, 65536)
                    except OSError:  # the other end is closed
                        break
            assert run.wait(30) == 0
        os.close(ours)
        seen = seen.decode()
        assert re.search(r"\d+/40 .*ETA", seen) and "─" in seen
        assert not re.search(r"\x1b\[\d*m", seen), "NO_COLOR"
        for line in seen.replace("\x1b[K", "").replace("\r", "\n").splitlines():
            assert len(line) <= 80, line
        assert "ETA" not in submit(b, files).stderr


def test_parts_go_with_the_log_beside_them(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("a.png", "b.png"):
        (parts / name).write_bytes(b"\x89PNG " + name.encode())
    (parts / "a.log").write_text("head 1: vacuum lost\n")
    pipeline = echo(name="qc.inspect").replace("kind: text.embed", "kind: qc.inspect")
    with Broker(tmp_path, pipeline) as b, Worker(b) as w:
        missing = submit(b, parts, kind="qc.inspect")
        assert missing.returncode == 2 and "--set recipe=" in missing.stderr, missing
        assert submit(b, parts, "--set", "recipe=board-a", kind="qc.inspect").returncode == 0
        bodies = {}
        for _ in range(2):
            lease, payload = w.lease()
            body = msgpack.unpackb(payload[0])
            bodies[body["part_id"]] = body
            w.done(lease)
        assert bodies["a"] == {"recipe": "board-a", "image": b"\x89PNG a.png", "part_id": "a",
                               "log": b"head 1: vacuum lost\n"}
        assert "log" not in bodies["b"] and bodies["b"]["part_id"] == "b"


@pytest.mark.parametrize("args, words", [
    (["/nowhere"], "No such file"),
    (["--out", "o"], "name files or folders"),
    (["EMPTY"], "--glob"),
    (["A", "B", "--out", "OUT"], "two of the files"),
    (["A", "--stream"], "--stream is for one job"),
    (["A", "--window", "100000"], "--window"),
])
def test_wrong_usage_exits_2_before_anything_is_submitted(tmp_path, args, words):
    for name in ("A", "B", "EMPTY"):
        (tmp_path / name).mkdir()
    for name in ("A", "B"):
        (tmp_path / name / "x.txt").write_text(name)
    done = submit(None, *[tmp_path / a if a.isupper() else a for a in args])
    assert done.returncode == 2, done
    assert words in done.stderr and done.stdout == ""


def test_without_a_broker_it_exits_3(folder):
    done = submit(None, folder(2))
    assert done.returncode == 3 and "penstock up" in done.stderr


def test_documents_of_more_than_a_frame_go_with_the_others(tmp_path):
    files = tmp_path / "in"
    files.mkdir()
    for i in range(12):
        (files / f"d{i}.pdf").write_bytes(b"%PDF-1.7 " + str(i).encode() * (6 << 20))
    (files / "small.txt").write_text("a contract\n")
    pipeline = echo(name="contract.analyze").replace("kind: text.embed", "kind: contract.analyze")
    with Broker(tmp_path, pipeline) as b, EchoWorker(b):
        done = submit(b, files, "--wait", kind="contract.analyze", timeout=120)
        assert done.returncode == 0 and "13 files: 13 done" in done.stderr, done
        again = submit(b, files, "--wait", kind="contract.analyze", timeout=120)
        assert "13 done (13 submitted before)" in again.stderr, again
