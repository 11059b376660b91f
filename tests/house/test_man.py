"""The manual pages say what the programs and the header say, no more and no less."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build/bin"))
PAGES = sorted((ROOT / "client/man").glob("*.[1-8]"))
PROGRAMS = sorted(path.name for path in BIN.glob("penstock*"))


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
                          check=True).stdout


def options_of_help(*command):
    """The long options that start a line of --help, those said in one place left out."""
    found = re.findall(r"(?m)^ {2,6}(?:-\S, )?((?:--[a-z][a-z-]*\S*,? ?)+)", output(*command, "--help"))
    return {name for line in found for name in re.findall(r"--[a-z][a-z-]*", line)
            } - {"--help", "--usage", "--version"}


def options_of_page(text):
    return {"-" + name for line in re.findall(r"(?m)^\.It (Fl .*)", text)
            for name in re.findall(r"Fl (-[a-z][a-z-]*)", line)}


@pytest.fixture(name="ops_man")
def fixture_ops_man(tmp_path):
    """ops/man over a copy of the pages."""
    folders = ("base", "broker", "schemas", "store", "workers", "workers/infer")
    sources = (path.relative_to(ROOT) for name in folders for path in (ROOT / name).glob("*.c"))
    for path in ("ops/man", "client/penstock.h", *sources, *(page.relative_to(ROOT) for page in PAGES)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)

    def run(*words):
        return subprocess.run([sys.executable, tmp_path / "ops/man", *words, str(BIN)], text=True,
                              capture_output=True, timeout=120, check=False)
    return tmp_path / "client/man", run


def test_every_page_is_up_to_date(ops_man):
    done = ops_man[1]("--check")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page, was, becomes", [
    ("penstock-submit.1", ".It Fl -again\n", ""),
    ("penstock-broker.8", ".It Fl -dir Ar DIR", ".It Fl -folder Ar DIR"),
    ("libpenstock.3", ".Fo penstock_ping", ".Fo penstock_pang"),
    ("penstock.1", ".Ss penstock ping\n", ""),
    ("penstock-log.7", ".It job_finished", ".It job_ended"),
])
def test_a_page_that_drifted_is_named_and_repaired(ops_man, page, was, becomes):
    folder, run = ops_man
    text = (folder / page).read_text(encoding="utf-8")
    assert was in text
    (folder / page).write_text(text.replace(was, becomes), encoding="utf-8")
    done = run("--check")
    assert done.returncode == 1 and page in done.stdout
    assert run().returncode == 0 and (folder / page).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_a_page_with_each_of_its_options(program):
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.stem == program)
    assert text, f"client/man has no page of {program}"
    if program != "penstock":
        assert options_of_help(BIN / program) <= options_of_page(text)


def test_each_verb_has_its_options_on_its_page_and_no_other():
    text = (ROOT / "client/man/penstock.1").read_text(encoding="utf-8")
    common = options_of_page(text.split(".Sh VERBS")[0])
    assert common >= {"--endpoint", "--json", "--timeout"}
    sections = dict(re.findall(r"(?ms)^\.Ss penstock (\S+)[^\n]*\n(.*?)(?=^\.S[sh] |\Z)", text))
    verbs = [line.split()[0] for line in output(BIN / "penstock", "--help").splitlines()
             if re.match(r"  \S", line)]
    assert sorted(sections) == sorted(verbs)
    submit = (ROOT / "client/man/penstock-submit.1").read_text(encoding="utf-8")
    for verb in verbs:
        shown = options_of_page(submit if verb == "submit" else sections[verb])
        assert shown - common == options_of_help(BIN / "penstock", verb) - common, verb


def test_every_page_that_is_named_is_there():
    names = {(page.stem, page.suffix[1:]) for page in PAGES}
    for page in PAGES:
        for name, section in re.findall(r"(?m)^\.Xr (\S+) (\d)", page.read_text(encoding="utf-8")):
            assert (name, section) in names, f"{page.name} names {name}({section})"


def test_mandoc_finds_nothing_wrong():
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed: make lint needs it")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *PAGES], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout
