"""Shell completion: the scripts parse, and bash completes verbs, options, kinds and jobs for real."""
import os
import shutil
import subprocess

import pytest
from real_broker import Broker, body, Client, echo

PROGRAM = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")


def run(*args, **env):
    return subprocess.run(args, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60, check=False)


def script(shell):
    done = run(PROGRAM, "completion", shell)
    assert done.returncode == 0, done
    return done.stdout


def bash(*words, endpoint="ipc:///nowhere/clients"):
    """What bash has in COMPREPLY after Tab behind the last of these words."""
    quoted = " ".join(f"'{word}'" for word in (PROGRAM, *words))
    done = run("bash", "-c", f"{script('bash')}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words)}\n"
               '_penstock; printf "%s\\n" "${COMPREPLY[@]}"', PENSTOCK_ENDPOINT=endpoint)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.split()


def test_every_verb_of_the_help_is_offered_and_nothing_else():
    listed = [line.split()[0] for line in run(PROGRAM, "--help").stdout.splitlines()
              if line.startswith("  ")]
    assert bash("") == listed and len(listed) > 10
    assert bash("sub") == ["submit"] and bash("x") == []


def test_every_option_of_a_verbs_help_is_offered():
    assert {"--glob", "--out", "--wait", "--endpoint", "--json"} <= set(bash("submit", "text.embed", "-"))
    assert bash("submit", "--rec") == ["--recursive"]
    assert "--max-tokens" in bash("run", "--"), "also of what another program runs"


def test_arguments_and_values_are_what_the_table_calls_them():
    assert bash("submit", "text.") == ["text.embed", "text.generate"]
    assert bash("schema", "qc") == ["qc.inspect"]
    assert bash("job", "") == ["show", "cancel", "events"]
    assert bash("ls", "--state", "d") == bash("ls", "--state", "=", "d") == ["delayed", "done"]
    assert bash("ls", "-s", "exp") == ["expired"]
    assert bash("up", "--log-level", "") == ["debug", "info", "warn", "error"]
    assert bash("submit", "--wait", "text.g") == ["text.generate"]
    assert bash("submit", "--key", "k", "text.g") == ["text.generate"]
    assert bash("submit", "text.embed", "") == [], "files are the shell's"
    assert bash("completion", "f") == ["fish"] and bash("dance", "") == []


def test_jobs_come_from_the_engine_when_there_is_one(tmp_path):
    with Broker(tmp_path, echo()) as b:
        with Client(b) as c:
            jobs = sorted(c.submit(body(str(i))) for i in range(3))
        assert sorted(bash("wait", "", endpoint=b.clients)) == jobs
        assert bash("job", "show", jobs[0], endpoint=b.clients) == [jobs[0]]
        assert sorted(bash("result", jobs[1], "", endpoint=b.clients)) == jobs
    assert bash("wait", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_of_their_shell(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script(shell))
    done = run(shell, "-n", str(tmp_path / "script"))
    assert done.returncode == 0 and not done.stderr, done


def test_fish_asks_the_program():
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")
    done = run("fish", "-c", script("fish") + "complete -C 'penstock submit text.e'",
               PATH=os.environ["PENSTOCK_BIN"] + ":" + os.environ["PATH"])
    assert done.stdout.split() == ["text.embed"], done


def test_an_unknown_shell_is_a_usage_error():
    assert run(PROGRAM, "completion", "tcsh").returncode == 2
    assert run(PROGRAM, "completion").returncode == 2
