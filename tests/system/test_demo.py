"""`penstock demo`: the samples through an engine of its own or the one that runs, and nothing left."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import pytest
from real_broker import Broker, echo

PROGRAM = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")
CACHE = pathlib.Path(os.environ.get("PENSTOCK_CACHE") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "penstock")
needs_model = pytest.mark.skipif(not (CACHE / "models/all-MiniLM-L6-v2/config.json").exists(),
                                 reason="all-MiniLM-L6-v2 is not in the user's cache")


@pytest.fixture(name="place")
def fixture_place():
    """An environment with no engine, whose temporary folder is the test's own."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        for name in ("tmp", "run"):
            (pathlib.Path(folder) / name).mkdir()
        env = dict(os.environ, TMPDIR=f"{folder}/tmp", XDG_RUNTIME_DIR=f"{folder}/run")
        env.pop("PENSTOCK_ENDPOINT", None)
        yield env


def demo(env, *args):
    done = subprocess.run([PROGRAM, "demo", *args], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300, check=False)
    return done, os.listdir(env["TMPDIR"])


@needs_model
def test_all_samples_are_shown_and_nothing_is_left(place):
    done, left = demo(place)
    assert done.returncode == 0, done.stderr
    for words in ("The press on line four", "Larkfield Sensors Inc.", "high", "Governing Law", "OK  part",
                  "NG  part", "nozzle vacuum loss", "line 17", "likely causes"):
        assert words in done.stdout, words
    assert "\x1b" not in done.stdout and left == []


@needs_model
def test_one_kind_alone(place):
    done, left = demo(place, "qc")
    assert done.returncode == 0, done.stderr
    assert "NG  part" in done.stdout and "contract" not in done.stdout and left == []


def test_without_the_model_it_shows_what_needs_none_and_says_what_is_missing(place, tmp_path):
    done, left = demo(dict(place, PENSTOCK_CACHE=str(tmp_path)))
    assert done.returncode == 1
    assert "The press on line four" in done.stdout and "no worker has the model" in done.stderr
    assert left == []


def test_the_engine_that_runs_is_taken(place, tmp_path):
    with Broker(tmp_path, echo()) as b:
        done, left = demo(dict(place, PENSTOCK_ENDPOINT=b.clients), "text")
    assert b.clients in done.stderr and "starting" not in done.stderr and left == []
    assert done.returncode == 1 and "no worker has the model" in done.stderr


def test_ctrl_c_leaves_nothing_behind(place):
    run = subprocess.Popen([PROGRAM, "demo"], env=place, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    run.stdout.readline()  # the engine is there, or was stopped before
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(60) == 1
    run.stdout.close()
    deadline = time.monotonic() + 20
    while os.listdir(place["TMPDIR"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(place["TMPDIR"]) == []


def test_wrong_usage_exits_2_and_an_engine_that_is_not_there_3(place):
    assert demo(place, "dance")[0].returncode == 2
    done, _ = demo(place, "text", "--endpoint", "ipc:///nowhere/clients")
    assert done.returncode == 3 and "penstock ping" in done.stderr
