"""`make install`: what it puts where is found by the programs, from there."""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build/bin")).parent


@pytest.fixture(scope="module", name="prefix")
def fixture_prefix(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("usr")
    subprocess.run([ROOT / "ops/install"], cwd=ROOT, check=True, capture_output=True, timeout=120,
                   env={**os.environ, "B": str(BUILD), "PREFIX": str(prefix), "LIBS": "", "DESTDIR": ""})
    return prefix


def test_programs_header_libraries_pipelines_recipes_and_samples_are_there(prefix):
    for path in ("bin/penstock", "bin/penstock-broker", "bin/penstock-worker", "include/penstock.h",
                 "lib/libpenstock.so", "lib/pkgconfig/penstock.pc",
                 "share/penstock/pipelines/text.embed.yaml", "share/penstock/recipes/board-a.yaml",
                 "share/penstock/recipes/board-a.png", "share/penstock/examples/qc/part-ng.log",
                 "share/penstock/examples/models/tiny-llama/config.json", "share/man/man1/penstock.1",
                 "share/man/man3/libpenstock.3", "share/man/man8/penstock-broker.8",
                 "lib/systemd/system/penstock-broker.service",
                 "lib/systemd/system/penstock-worker@.service", "lib/sysusers.d/penstock.conf",
                 "share/bash-completion/completions/penstock", "share/zsh/site-functions/_penstock",
                 "share/fish/vendor_completions.d/penstock.fish"):
        assert (prefix / path).is_file(), path


def test_the_installed_program_shows_its_samples(prefix, tmp_path):
    env = {**os.environ, "PENSTOCK_CACHE": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for name in ("PENSTOCK_ENDPOINT", "PENSTOCK_PIPELINES", "PENSTOCK_RECIPES"):
        env.pop(name, None)
    done = subprocess.run([prefix / "bin/penstock", "demo", "text"], env=env, capture_output=True,
                          stdin=subprocess.DEVNULL, text=True, timeout=120, check=False)
    assert "The press on line four" in done.stdout, done.stderr
    assert "no worker has the model all-MiniLM" in done.stderr, "the user's cache is empty here"
