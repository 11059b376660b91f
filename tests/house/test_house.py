"""The house keeps its own promises: set-up, layers, models, and the closing line of the tests."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(command, cwd=ROOT, **env):
    return subprocess.run([str(word) for word in command], cwd=cwd, env={**os.environ, **env},
                          text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                          check=False)


def program(directory, name, text):
    path = directory / name
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture(name="debian")
def fixture_debian(tmp_path):
    """A PATH with stand-ins for Debian's tools; INSTALLED and KNOWN say what they answer."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env", "tr", "sed", "tail", "mktemp", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    program(tools, "dpkg-query", 'shift 2; for n; do case " $INSTALLED " in\n'
                                 '*" $n "*) printf "installed $n ";; esac; done\n')
    program(tools, "apt-cache", 'case " $KNOWN " in *" $2 "*) echo "$2 | 1.0 | archive";; esac\n')
    program(tools, "apt-get", f'echo "$*" >>{tmp_path}/apt.log; [ -z "$APT_FAILS" ] && exit\n'
                              'echo "E: no network"; exit 100\n')
    program(tools, "id", 'echo "${USER_ID:-0}"\n')

    def setup(*groups, **env):
        result = run([ROOT / "ops/setup", *groups],
                     **{"PATH": str(tools), "INSTALLED": "", "KNOWN": "", **env})
        log = tmp_path / "apt.log"
        return result, log.read_text(encoding="utf-8") if log.exists() else ""

    return setup


# What ops/setup needs to build, without msgpack, whose package has two names.
BUILD_NEEDS = re.search(r'build="([^"]*)"', (ROOT / "ops/setup").read_text(encoding="utf-8"))[1]
COMMON = " ".join(need for need in BUILD_NEEDS.split() if "msgpack" not in need)


def test_setup_is_silent_when_nothing_is_missing(debian):
    for msgpack in ("libmsgpack-dev", "libmsgpack-c-dev"):
        result, log = debian(INSTALLED=f"{COMMON} {msgpack}")
        assert (result.returncode, result.stdout, result.stderr, log) == (0, "", "", "")


def test_setup_installs_the_name_that_this_release_knows(debian):
    names = ("libmsgpack-dev", "libmsgpack-c-dev")
    for known, other in (names, names[::-1]):
        result, log = debian(INSTALLED=COMMON, KNOWN=known)
        last = log.splitlines()[-1].split()
        assert result.returncode == 0
        assert "install" in last and known in last and other not in last


def test_setup_updates_the_lists_when_they_do_not_know_a_package(debian):
    result, log = debian(INSTALLED=COMMON, KNOWN="")
    assert "update" in log.split()
    assert result.returncode == 1
    assert "libmsgpack-c-dev" in result.stderr


def test_setup_names_packages_and_command_when_apt_fails(debian):
    result, _ = debian(INSTALLED=COMMON.replace("liblmdb-dev", ""),
                       KNOWN="liblmdb-dev libmsgpack-dev", APT_FAILS="1")
    assert result.returncode == 1
    assert "E: no network" in result.stderr
    assert "sudo apt-get update && sudo apt-get install" in result.stderr
    assert "libmsgpack-dev liblmdb-dev" in result.stderr


def test_setup_without_root_and_sudo_says_what_to_install(debian):
    result, log = debian(INSTALLED=COMMON, KNOWN="libmsgpack-dev", USER_ID="1000")
    assert result.returncode == 1
    assert log == ""
    assert "there is no sudo" in result.stderr and "libmsgpack-dev" in result.stderr


def test_setup_refuses_an_unknown_group(debian):
    result, _ = debian("everything")
    assert result.returncode == 2
    assert "usage" in result.stderr


@pytest.mark.parametrize("path, line, said", [
    ("base/a.c", '#include "broker/main.h"', "base/a.c:1: base includes"),
    ("store/a.c", "#include <lmdb.h>", "store/a.c:1: includes lmdb.h"),
    ("workers/infer/a.c", '#include "store/env.h"', "workers/infer/a.c:1: workers includes"),
    ("client/a.c", '#include "pipelines/pipeline.h"', "client/a.c:1: client includes"),
    ("broker/a.h", '#include "loop.h"', "is not a path from the root"),
])
def test_layers_reports_file_line_and_rule(tmp_path, path, line, said):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n", encoding="utf-8")
    result = run([ROOT / "ops/layers"], cwd=tmp_path)
    assert result.returncode == 1
    assert said in result.stdout


def test_layers_wants_a_module_to_include_its_own_header_first(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/a.h").touch()
    (tmp_path / "base/a.c").write_text('#include <stdio.h>\n#include "base/a.h"\n')
    result = run([ROOT / "ops/layers"], cwd=tmp_path)
    assert result.returncode == 1
    assert "base/a.c:1: includes stdio.h before its own header" in result.stdout


def test_models_without_an_index_exits_4_and_leaves_nothing(tmp_path):
    result = run([ROOT / "ops/models"], PENSTOCK_CACHE=str(tmp_path), PIP_NO_INDEX="1",
                 PIP_FIND_LINKS=str(tmp_path))
    assert result.returncode == 4
    assert "is missing from" in result.stderr and "run ops/models" in result.stderr
    assert not (tmp_path / "models/all-MiniLM-L6-v2").exists()
    assert list((tmp_path / "models").glob(".fetch-*")) == []


def test_models_refuses_a_directory_with_other_weights(tmp_path):
    model = tmp_path / "models/all-MiniLM-L6-v2"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"not the weights")
    result = run([ROOT / "ops/models"], PENSTOCK_CACHE=str(tmp_path))
    assert result.returncode == 1
    assert "model.safetensors" in result.stderr


def small_tree(tmp_path, c_program, python_tests):
    """Run tests/run over one program that reports like Criterion and one directory for pytest."""
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "tests/unit/a.c").touch()
    (tmp_path / "tests/py").mkdir()
    (tmp_path / "tests/py/test_a.py").write_text(python_tests, encoding="utf-8")
    (tmp_path / "build/test").mkdir(parents=True)
    program(tmp_path / "build/test", "unit", c_program)
    return run([sys.executable, ROOT / "tests/run", "build"], cwd=tmp_path, SAN="")


TAP = 'for a; do case $a in --tap=*) exec >"${a#--tap=}";; esac; done; '


def test_the_closing_line_adds_all_groups_up(tmp_path):
    result = small_tree(tmp_path, TAP + 'printf "ok - a::x\\nok - a::y # SKIP why\\nok - a::z\\n"\n',
                        "import pytest\ndef test_a(): pass\n"
                        "@pytest.mark.skip\ndef test_b(): pass\n")
    assert result.stdout.splitlines()[-1] == "3 passed, 0 failed, 2 skipped"
    assert result.returncode == 0


def test_a_test_program_that_dies_counts_as_failed(tmp_path):
    result = small_tree(tmp_path, TAP + 'echo "ok - a::x"; kill -SEGV $$\n',
                        "def test_a(): assert 0\n")
    assert result.stdout.splitlines()[-1] == "1 passed, 2 failed, 0 skipped"
    assert result.returncode == 1


def test_no_tests_at_all_is_a_failure(tmp_path):
    (tmp_path / "tests").mkdir()
    result = run([sys.executable, ROOT / "tests/run", "build"], cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "0 passed, 0 failed, 0 skipped"
    assert result.returncode == 1
