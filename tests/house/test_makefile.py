"""The Makefile rebuilds what a change asks for and nothing else, without `make clean`."""
import json
import os
import pathlib
import platform
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Tree:
    """A small tree of sources under the real Makefile."""

    def __init__(self, path):
        self.path = path
        shutil.copy(ROOT / "Makefile", path)
        (path / "pipelines").mkdir()
        self.write("base/num.h", "int num(void);\n")
        self.write("base/num.c", '#include "base/num.h"\nint num(void) { return 3; }\n')
        self.write("base/other.c", "int other(void);\nint other(void) { return 4; }\n")
        self.write("client/cli/main.c", '#include "base/num.h"\nint main(void) { return num(); }\n')

    def write(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def make(self, *words, **env):
        """Run make; return its exit status and what it compiled, archived, linked or said."""
        kept = {name: value for name, value in os.environ.items()
                if name not in ("BUILD", "SAN", "CC", "CI", "V", "CFLAGS", "MAKEFLAGS")}
        result = subprocess.run(["make", *words], cwd=self.path, env={**kept, **env}, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=120, check=False)
        return result.returncode, result.stdout

    def compiled(self, *words, **env):
        status, said = self.make(*words, **env)
        assert status == 0, said
        return sorted(line.split()[1] for line in said.splitlines() if line.startswith("  CC "))


@pytest.fixture(name="tree")
def fixture_tree(tmp_path):
    tree = Tree(tmp_path)
    assert tree.compiled() == ["base/num.c", "base/other.c", "client/cli/main.c"]
    return tree


def test_a_second_make_has_nothing_to_do(tree):
    assert "Nothing to be done" in tree.make()[1]


def test_a_changed_header_recompiles_its_users_and_relinks(tree):
    tree.write("base/num.h", "int num(void);\n#define NUM 5\n")
    tree.write("base/num.c", '#include "base/num.h"\nint num(void) { return NUM; }\n')
    assert tree.compiled() == ["base/num.c", "client/cli/main.c"]
    assert subprocess.run([tree.path / "build/bin/penstock"], check=False).returncode == 5


def test_another_flag_recompiles_everything_and_the_same_flag_nothing(tree):
    assert len(tree.compiled("CFLAGS=-O1")) == 3
    assert tree.compiled("CFLAGS=-O1") == []


def test_a_source_that_went_away_leaves_its_library(tree):
    library = tree.path / "build/lib/libps-base.a"
    (tree.path / "base/other.c").unlink()
    assert tree.compiled() == []
    members = subprocess.run(["ar", "t", library], capture_output=True, text=True, check=True)
    assert members.stdout.split() == ["num.o"]


def test_a_header_that_went_away_with_its_users_does_not_stop_the_build(tree):
    (tree.path / "base/num.h").unlink()
    tree.write("base/num.c", "int num(void);\nint num(void) { return 3; }\n")
    tree.write("client/cli/main.c", "int num(void);\nint main(void) { return num(); }\n")
    assert tree.compiled() == ["base/num.c", "client/cli/main.c"]


def test_sanitizers_have_a_build_of_their_own(tree):
    assert len(tree.compiled("SAN=undefined")) == 3
    assert (tree.path / "build/san-undefined/bin/penstock").exists()
    assert "Nothing to be done" in tree.make()[1]


def test_warnings_are_errors_in_ci_only(tree):
    tree.write("base/other.c", "int other(void);\nint other(void) { int unused; return 4; }\n")
    assert tree.make()[0] == 0
    status, said = tree.make(CI="true")
    assert status != 0 and "unused" in said


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these files are left out elsewhere")
def test_only_files_named_for_an_instruction_set_may_use_it(tree):
    guard = "#if{0}def __AVX2__\n#error\n#endif\nint {1}(void);\nint {1}(void) {{ return 1; }}\n"
    tree.write("kernels/cpu/rows.c", guard.format("", "plain"))
    tree.write("kernels/cpu/rows_avx2.c", guard.format("n", "avx2"))
    tree.write("kernels/cpu/rows_avx512.c", guard.format("n", "avx512"))
    assert tree.compiled() == [f"kernels/cpu/rows{isa}.c" for isa in ("", "_avx2", "_avx512")]


def test_compile_commands_name_every_file_once(tree):
    commands = json.loads((tree.path / "build/compile_commands.json").read_text(encoding="utf-8"))
    assert sorted(entry["file"] for entry in commands) == ["base/num.c", "base/other.c",
                                                            "client/cli/main.c"]
    assert all("-std=c11" in entry["command"] for entry in commands)


def test_missing_libraries_end_in_one_clear_sentence(tmp_path):
    status, said = Tree(tmp_path).make(PKG_CONFIG_LIBDIR=str(tmp_path))
    assert status != 0
    assert "libraries are missing: run ops/setup" in said


def test_help_lists_every_public_target(tree):
    status, said = tree.make("help")
    listed = [line.split()[1] for line in said.splitlines() if line.startswith("  make ")]
    assert status == 0
    assert {"help", "all", "setup", "run", "test", "bench-%", "lint", "layers", "format", "fuzz",
            "install", "clean"} <= set(listed)
