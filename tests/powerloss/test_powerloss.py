"""Power loss in short, what `make powerloss` does at length, and that it finds a bug that is there."""
import os
import pathlib
import re
import subprocess

import pytest

POWERLOSS = pathlib.Path(__file__).parent / "powerloss.py"
FAULTS = pathlib.Path(os.environ["PENSTOCK_BIN"]).parent / "faults"

pytestmark = pytest.mark.skipif(bool(os.environ.get("SAN")), reason="a sanitizer has to be preloaded first")


def powerloss(*options):
    """(status, total, all that was printed)"""
    done = subprocess.run(["/usr/bin/python3", str(POWERLOSS), *options], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=110, check=False)
    return done.returncode, done.stdout.splitlines()[-1], done.stdout


def test_what_was_accepted_or_ended_before_the_power_went_is_there_afterwards():
    status, total, said = powerloss("--cuts", "150", "--jobs", "250", "--seed", "3")
    assert status == 0, said
    assert total.endswith("0 cuts with a broken promise")
    assert "150 cuts" in total
    assert int(re.search(r"(\d+) kills", total)[1]) > 0, "a broker that died is part of it"
    assert int(re.search(r"(\d+) jobs accepted", total)[1]) > 100
    assert int(re.search(r"(\d+) ended", total)[1]) > 100


def test_a_broker_that_acknowledges_before_it_commits_is_found_out():
    status, total, said = powerloss("--cuts", "60", "--jobs", "150", "--seed", "3", "--submit-only",
                                    "--broker", str(FAULTS / "early-ack"))
    assert status == 1, said
    assert int(re.search(r"(\d+) cuts with a broken promise", total)[1]) > 0, said
    assert " is lost" in said


def test_a_sound_broker_under_the_same_load_loses_nothing():
    status, total, said = powerloss("--cuts", "60", "--jobs", "150", "--seed", "3", "--submit-only")
    assert status == 0, said
    assert total.endswith("0 cuts with a broken promise")


def test_power_lost_while_a_store_is_made_leaves_one_that_opens():
    status, total, said = powerloss("--cuts", "200", "--jobs", "2", "--seed", "1")
    assert status == 0, said
    assert total.endswith("0 cuts with a broken promise")
