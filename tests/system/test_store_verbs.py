"""`penstock-broker store`: check, backup and compact of a store, and backup of one in use."""
import json
import os
import pathlib
import resource
import subprocess
import threading
import time

import pytest
from real_broker import Broker, Client, EchoWorker, body

BROKER = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock-broker"
PIPELINES = pathlib.Path(__file__).resolve().parents[2] / "pipelines"


def start_broker(folder):
    process = subprocess.Popen([BROKER, "--dir", folder, "--pipelines", PIPELINES],
                               stderr=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not (folder / "clients").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    return process


def store(*args):
    return subprocess.run([BROKER, "store", *args], text=True, timeout=60, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def folder(tmp_path):
    """A store that a broker made and left."""
    process = start_broker(tmp_path / "s")
    process.terminate()
    assert process.wait(20) == 0
    return tmp_path / "s"


def test_a_sound_store_has_no_problems(folder):
    done = store("check", "--dir", folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "0 problems in 0 jobs" in done.stderr


def test_with_json_each_verb_writes_one_document(folder, tmp_path):
    def said(*args):
        done = store(*args, "--json", "--dir", folder)
        return done.returncode, json.loads(done.stdout)

    assert said("check") == (0, {"store": str(folder), "problems": 0, "jobs": 0, "chunks": 0,
                                 "findings": []})
    assert said("repair") == (0, {"store": str(folder), "changes": 0, "lines": []})
    assert said("backup", tmp_path / "copy") == (0, {"store": str(folder),
                                                     "copy": str(tmp_path / "copy")})
    assert said("compact") == (0, {"store": str(folder)})
    broken = store("backup", "--json", "--dir", folder, tmp_path / "copy")
    assert broken.returncode == 1 and broken.stdout == "", "an error is no document"


def test_a_backup_can_be_used_in_its_place(folder, tmp_path):
    done = store("backup", "--dir", folder, tmp_path / "copy")
    assert done.returncode == 0 and f"copied to {tmp_path}/copy" in done.stderr and not done.stdout, done
    assert store("check", "--dir", tmp_path / "copy").returncode == 0
    process = start_broker(tmp_path / "copy")
    process.terminate()
    assert process.wait(20) == 0
    again = store("backup", "--dir", folder, tmp_path / "copy")
    assert again.returncode == 1 and "copy" in again.stderr, "it never overwrites"


def test_a_compacted_store_is_smaller_and_sound(folder):
    size = (folder / "meta" / "data.mdb").stat().st_size
    done = store("compact", "--dir", folder)
    assert done.returncode == 0 and "is compacted" in done.stderr and not done.stdout, done
    assert (folder / "meta" / "data.mdb").stat().st_size < size
    assert store("check", "--dir", folder).returncode == 0


def test_a_store_in_use_is_left_alone(tmp_path):
    process = start_broker(tmp_path / "s")
    try:
        for what in ("check", "compact"):
            done = store(what, "--dir", tmp_path / "s")
            assert done.returncode == 1
            assert f"process {process.pid}" in done.stderr
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_damaged_store_is_told(folder, tmp_path):
    with open(folder / "meta" / "data.mdb", "r+b") as file:
        file.truncate(9000)
    done = store("check", "--dir", folder)
    assert done.returncode == 1 and "cut off" in done.stderr
    done = store("check", "--dir", tmp_path / "nowhere")
    assert done.returncode == 1 and "no store" in done.stderr


def test_wrong_usage_is_told():
    for args in ([], ["scrub"], ["backup"], ["check", "twice"]):
        assert store(*args).returncode == 2


# ---- backups of a store in use ----

@pytest.fixture
def busy(tmp_path):
    """A broker whose jobs come, end and are deleted all the time; big ones are among them."""
    with Broker(tmp_path, lease_ms=30000, extra=["--retain-ms", "300"]) as broker, \
            EchoWorker(broker), Client(broker) as client:
        halt = threading.Event()

        def load():
            with Client(broker) as mine:
                while not halt.is_set():
                    mine.submit(body("x" * 200000))
                    mine.submit(body("y"), delay_ms=3600000)

        kept = [client.submit(body("z" * 500000), delay_ms=3600000) for _ in range(60)]
        loader = threading.Thread(target=load)
        loader.start()
        yield broker, kept
        halt.set()
        loader.join()


def test_a_backup_under_load_is_whole_and_sound(busy, tmp_path):
    broker, kept = busy
    for i in range(4):
        done = store("backup", "--dir", broker.dir, tmp_path / f"copy{i}")
        assert done.returncode == 0, done.stderr
    for i in range(4):
        done = store("check", "--dir", tmp_path / f"copy{i}")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (tmp_path / "copy0" / "pipelines").mkdir()
    with Broker(tmp_path / "copy0") as copy, Client(copy) as client:
        assert client.stats()["jobs"]["delayed"] >= len(kept)
        assert client.state(kept[0]) == "delayed"
        assert client.stats()["set_aside"] == 0


def test_a_backup_that_is_killed_leaves_nothing_that_looks_whole(busy, tmp_path):
    broker, _ = busy
    to = tmp_path / "copy"
    partial = tmp_path / "copy.partial" / "blob" / "data.mdb"
    process = subprocess.Popen([BROKER, "store", "backup", "--dir", broker.dir, to])
    until = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 0):
        assert process.poll() is None and time.monotonic() < until
    process.kill()
    process.wait()
    assert not to.exists()
    with Client(broker) as client:
        while client.stats()["stale_readers"] == 0:
            assert time.monotonic() < until, "its reader keeps pages for ever"
            time.sleep(0.1)
    assert store("backup", "--dir", broker.dir, to).returncode == 0
    assert not (tmp_path / "copy.partial").exists()
    assert store("check", "--dir", to).returncode == 0


def test_a_backup_to_a_full_disk_or_over_something_says_so(busy, tmp_path):
    broker, _ = busy

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))

    done = subprocess.run([BROKER, "store", "backup", "--dir", broker.dir, tmp_path / "copy"],
                          text=True, timeout=60, check=False, capture_output=True,
                          preexec_fn=small_files, restore_signals=False)
    assert done.returncode == 1 and "No space left" in done.stderr and "copy" in done.stderr
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("copy")]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    done = store("backup", "--dir", broker.dir, tmp_path / "mine")
    assert done.returncode == 1 and "left alone" in done.stderr
    assert (tmp_path / "mine" / "file").read_text() == "kept"
