"""`make run`'s demo: it ends with its jobs done, cleans up, and says what it could not run."""
import os
import pathlib
import subprocess
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(name="demo")
def fixture_demo():
    """Run ops/run in a TMPDIR of its own; return its end and what it left there."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:

        def run(**env):
            done = subprocess.run([ROOT / "ops/run"], cwd=ROOT,
                                  env={**os.environ, "TMPDIR": folder, **env},
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=300, check=False)
            return done, os.listdir(folder)

        yield run


def test_six_jobs_end_done_with_id_stages_and_result(demo):
    if subprocess.run([ROOT / "ops/models"], capture_output=True, check=False).returncode != 0:
        pytest.skip("all-MiniLM-L6-v2 is not in the user's cache and cannot be fetched")
    done, left = demo()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "6 of 6 jobs done"
    for words in ("text.generate", "text.embed", "contract.analyze, a PDF in English",
                  "contract.analyze, a PDF in Chinese", "encode.document", "384 in all", "2026-03-02",
                  "3 pages: 3 ok, 0 partial, 0 failed", "renewal-notice-over-60-days", "青禾精密制造有限公司",
                  "qc.inspect, a board that is OK", "qc.inspect, a board that is NG", "encode.part"):
        assert words in done.stdout
    assert left == []


def test_without_the_model_it_runs_what_needs_none_and_says_so(demo, tmp_path):
    done, left = demo(PENSTOCK_CACHE=str(tmp_path), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 of 6 jobs done; the others need")
    assert "left out: text.embed, contract.analyze (two PDFs), qc.inspect (two parts)" in done.stdout
    assert "is missing from" in done.stderr
    assert left == []


def test_an_engine_that_cannot_start_ends_it_with_its_words(demo, tmp_path):
    (tmp_path / "penstock").write_text('#!/bin/sh\n[ "$1" = up ] && echo no store here >&2\nexit 1\n')
    (tmp_path / "penstock").chmod(0o755)
    done, left = demo(PENSTOCK_BIN=str(tmp_path))
    assert done.returncode == 1
    assert "no store here" in done.stderr
    assert left == []
