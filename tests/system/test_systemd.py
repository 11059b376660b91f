"""The units, and what broker and worker tell the service manager: the test plays $NOTIFY_SOCKET."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import msgpack
import pytest
from real_broker import LONG_S, PING, SUBMIT_MANY, Broker, Client, echo

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["PENSTOCK_BIN"])


class Manager:
    """Hears what is said, with the time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "4000000"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def hear(self, timeout_s):
        self.socket.settimeout(timeout_s)
        try:
            return self.socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return None

    def until(self, word, but=()):
        deadline = time.monotonic() + LONG_S
        while (left := deadline - time.monotonic()) > 0:
            words = self.hear(left)
            assert words is None or not set(words) & set(but), words
            if words and word in words:
                return words
        raise AssertionError(f"nobody said {word}")

    def drop(self):
        while self.hear(0.01):
            pass


def test_the_broker_is_ready_after_recovery_feeds_the_watchdog_and_says_that_it_stops(tmp_path, monkeypatch):
    with Manager(tmp_path / "notify") as manager:
        with Broker(tmp_path, echo()) as broker, Client(broker) as client:
            for _ in range(4):
                client.ask(SUBMIT_MANY, {"kind": "text.embed", "pipeline": "echo"},
                           msgpack.packb([{"texts": ["x"]}] * 1024))
            assert manager.hear(0.1) is None, "it was told of no manager"
            broker.kill()
            for name, value in manager.env.items():
                monkeypatch.setenv(name, value)
            broker.start()
            manager.until("READY=1", but=["WATCHDOG=1"])
            log = broker.log.read_text()
            assert log.count("event=recovered jobs=4096") == 1 and client.ask(PING, {})
            for _ in range(2):
                manager.until("WATCHDOG=1")
            broker.process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            manager.drop()
            assert manager.hear(5) is None, "a loop that stands still feeds nothing"
            broker.process.send_signal(signal.SIGCONT)
            manager.until("WATCHDOG=1")
            broker.process.send_signal(signal.SIGTERM)
            manager.until("STOPPING=1")
            assert broker.process.wait(LONG_S) == 0


def test_the_worker_is_ready_once_a_broker_knows_it(tmp_path):
    with Manager(tmp_path / "notify") as manager, Broker(tmp_path, echo()) as broker:
        broker.stop()
        env = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_KEY")} | manager.env
        with subprocess.Popen([BIN / "penstock-worker", "--broker", broker.workers, "--stages", "test.echo"],
                              env=env, stderr=subprocess.DEVNULL) as worker:
            manager.until("WATCHDOG=1", but=["READY=1"])
            broker.start()
            manager.until("READY=1")
            manager.until("WATCHDOG=1")
            worker.terminate()
            manager.until("STOPPING=1")
            assert worker.wait(LONG_S) == 0


def test_an_abstract_socket_and_no_socket_at_all_do_as_well(tmp_path):
    name = f"penstock-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name)
        heard.settimeout(LONG_S)
        env = dict(os.environ, NOTIFY_SOCKET="@" + name)
        with subprocess.Popen([BIN / "penstock-broker", "--dir", tmp_path / "a"], env=env,
                              stderr=subprocess.DEVNULL) as broker:
            assert heard.recv(4096).startswith(b"READY=1")
            broker.terminate()
            assert broker.wait(LONG_S) == 0


def test_systemd_has_nothing_to_say_about_the_units(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there")
    units = []
    for unit in sorted((ROOT / "ops/systemd").glob("*.service")):
        text = unit.read_text(encoding="utf-8").replace("/usr/local/bin", str(BIN))
        units.append(tmp_path / unit.name.replace("@", "@1"))
        units[-1].write_text(text.replace("User=penstock", "User=root").replace("Group=penstock", "Group=root"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True,
                          check=False, timeout=LONG_S)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "penstock" in line]
    assert done.returncode == 0 and not said, done
