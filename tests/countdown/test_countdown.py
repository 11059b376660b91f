"""Faults by countdown in short; `make countdown` makes more of them."""
import os
import pathlib
import re
import subprocess

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
