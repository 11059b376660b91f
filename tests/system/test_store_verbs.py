"""`penstock-broker store`: check, backup and compact of a store that no broker has open."""
import os
import pathlib
import subprocess
import time

import pytest

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


def test_a_backup_can_be_used_in_its_place(folder, tmp_path):
    assert store("backup", "--dir", folder, tmp_path / "copy").returncode == 0
    assert store("check", "--dir", tmp_path / "copy").returncode == 0
    process = start_broker(tmp_path / "copy")
    process.terminate()
    assert process.wait(20) == 0
    again = store("backup", "--dir", folder, tmp_path / "copy")
    assert again.returncode == 1 and "copy" in again.stderr, "it never overwrites"


def test_a_compacted_store_is_smaller_and_sound(folder):
    size = (folder / "meta" / "data.mdb").stat().st_size
    assert store("compact", "--dir", folder).returncode == 0
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
