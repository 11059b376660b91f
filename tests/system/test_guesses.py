"""Guessed tokens through a whole engine: the same texts whoever guesses, and a log that tells of it."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client/python"))
import penstock  # noqa: E402

PROGRAM = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock"
LONG_S = 60
PROMPT = "The press on line two stopped. The press on line four stopped. The press on line"


@contextlib.contextmanager
def engine(root, *options):
    """An engine with one model under two names; what it logs is in root/log."""
    model = ROOT / "examples/models/tiny-llama"
    with open(root / "log", "wb") as log, subprocess.Popen(
            [PROGRAM, "up", "--json", "--dir", root / "engine", "--model", f"tiny-llama={model}",
             "--model", f"small={model}", *options],
            stdout=subprocess.PIPE, stderr=log, text=True,
            env=dict(os.environ, PENSTOCK_CACHE=str(root / "cache"))) as up:
        try:
            line = up.stdout.readline()
            assert line, (root / "log").read_text(errors="replace")
            with penstock.Client(json.loads(line)["endpoint"]) as client:
                yield client
            up.terminate()
            assert up.wait(LONG_S) == 0
        finally:
            up.kill()


def write(client):
    """Greedy and sampled texts, with penalties and log probabilities, all at once."""
    jobs = [client.submit(penstock.generate(PROMPT, max_tokens=60, temperature=0.5 * (i % 3), seed=i,
                                            n=1 + i % 2, logprobs=True, frequency_penalty=0.2 * (i % 2)))
            for i in range(6)]
    results = [client.wait(job, LONG_S) for job in jobs]
    return [(result.unwrap(), result.numerics_id) for result in results]


@pytest.fixture(name="plain", scope="module")
def make_plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    with engine(root, "--speculate", "off") as client:
        texts = write(client)
    assert "guesses=0 " in (root / "log").read_text(errors="replace")
    return texts


@pytest.mark.parametrize("options", [(), ("--speculate", "lookup"), ("--draft", "tiny-llama=small")])
def test_results_are_the_same_whoever_guesses(tmp_path, plain, options):
    with engine(tmp_path, *options) as client:
        assert write(client) == plain
    told = re.findall(r"event=texts_written.* guesses=(\d+) guesses_right=(\d+)",
                      (tmp_path / "log").read_text(errors="replace"))
    assert told and all(int(right) <= int(guesses) for guesses, right in told)


def test_a_draft_model_that_is_not_there_ends_the_start_with_its_name(tmp_path):
    with open(tmp_path / "log", "wb") as log:
        model = ROOT / "examples/models/tiny-llama"
        up = subprocess.run([PROGRAM, "up", "--dir", tmp_path / "engine", "--model", f"tiny-llama={model}",
                             "--draft", "tiny-llama=tiny"], stdout=log, stderr=log, check=False,
                            timeout=LONG_S, env=dict(os.environ, PENSTOCK_CACHE=str(tmp_path / "cache")))
    said = (tmp_path / "log").read_text(errors="replace")
    assert up.returncode != 0 and "--draft tiny-llama=tiny: model tiny is not here" in said, said
