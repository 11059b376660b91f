"""Faults by countdown in short; `make countdown` makes more of them."""
import errno
import os
import pathlib
import re
import subprocess
import time

import pytest

COUNTDOWN = pathlib.Path(__file__).parent / "countdown.py"

pytestmark = pytest.mark.skipif(bool(os.environ.get("SAN")), reason="a sanitizer has to be preloaded first")


@pytest.mark.parametrize("kind, cases", [("write", 8), ("flush", 6), ("malloc", 10), ("message", 4), ("send", 4)])
def test_one_failure_of_the_system_loses_nothing_that_was_accepted(kind, cases):
    done = subprocess.run(["/usr/bin/python3", str(COUNTDOWN), "--kinds", kind, "--cases", str(cases),
                           "--seed", "5"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=115, check=False)
    assert done.returncode == 0, done.stdout
    total = done.stdout.splitlines()[-1]
    assert total.endswith("0 broken promises")
    assert sum(int(n) for n in re.findall(r"(\d+) (?:held|ended)", total)) > cases / 2, "faults were made: " + total


def test_a_start_without_memory_says_so_and_opens_no_other_store(tmp_path):
    build = pathlib.Path(os.environ["PENSTOCK_BIN"])
    said, log = [], tmp_path / "log"
    for n in range(1, 25):
        env = dict(os.environ, LD_PRELOAD=str(build.parent / "faults" / "countdown.so"),
                   PENSTOCK_FAULT=f"malloc:{n}:{errno.ENOMEM}", XDG_STATE_HOME=str(tmp_path / "default"))
        with log.open("w") as to:
            broker = subprocess.Popen([build / "penstock-broker", "--dir", tmp_path / "named"], stderr=to, env=env)
        for _ in range(600):
            if broker.poll() is not None or "event=ready" in log.read_text():
                break
            time.sleep(0.05)
        broker.terminate()
        if broker.wait(60) != 0:
            said.append(log.read_text())
        assert not (tmp_path / "default").exists(), f"allocation {n}: it took a folder that nobody named"
    assert len(said) > 2 and all(said), said
