"""The package that `make python` builds: installed where nothing of the sources is, it works."""
import os
import pathlib
import re
import subprocess
import sys

import pytest
from real_broker import Broker, EchoWorker, echo

ROOT = pathlib.Path(__file__).resolve().parents[2]
USE = """
import sys, penstock
assert not penstock.__file__.startswith(sys.argv[2]), penstock.__file__
with penstock.Client(sys.argv[1]) as client:
    print(penstock.__version__, client.run(penstock.embed("hello"), timeout=20)["path"])
"""


def call(*command, **options):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(word) for word in command], env=environment, text=True, timeout=100,
                          capture_output=True, check=False, **options)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(name="built", scope="module")
def fixture_built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    call(ROOT / "ops/wheel", folder, cwd=ROOT)
    return folder


def version():
    return re.search(r'PENSTOCK_VERSION "(.*)"', (ROOT / "base/version.h").read_text())[1]


def test_the_wheel_works_in_a_fresh_environment_without_a_network(built, tmp_path):
    python = tmp_path / "env/bin/python"
    call(sys.executable, "-m", "venv", "--system-site-packages", tmp_path / "env")
    wheel, = built.glob("*.whl")
    call(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    with Broker(tmp_path, echo(name="text.embed")) as broker, EchoWorker(broker):
        told = call(python, "-c", USE, broker.clients, ROOT, cwd=tmp_path)
    assert told.split() == [version(), "['test.echo']"]
    assert list((tmp_path / "env").glob("lib/*/site-packages/penstock/py.typed"))


def test_wheel_source_package_and_engine_have_one_version(built):
    assert sorted(path.name for path in built.glob("penstock-*")) == [
        f"penstock-{version()}-py3-none-any.whl", f"penstock-{version()}.tar.gz"]
