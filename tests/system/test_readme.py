"""The texts of README's tour, on README's own engine; and several texts of one job."""
import json
import os
import pathlib
import shlex
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock"
LONG_S = 60


def commands(begin):
    """README's commands of that beginning, without the program."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.split("   #")[0])[1:] for line in lines
            if line.startswith(f"build/bin/penstock {begin}")]


@pytest.fixture(name="endpoint", scope="module")
def make_engine(tmp_path_factory):
    root = tmp_path_factory.mktemp("readme")
    words = commands("up --models")
    assert len(words) == 1, words
    with open(root / "log", "wb") as log:
        up = subprocess.Popen([PROGRAM, *words[0], "--json", "--dir", root / "engine"], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE, stderr=log)
    try:
        line = up.stdout.readline()
        assert line, (root / "log").read_text(errors="replace")
        yield json.loads(line)["endpoint"]
        up.terminate()
        assert up.wait(LONG_S) == 0
    finally:
        up.kill()
        up.wait()
        up.stdout.close()


def submit(endpoint, *words):
    return subprocess.run([PROGRAM, *words, "--endpoint", endpoint, "--timeout", str(LONG_S)], cwd=ROOT,
                          capture_output=True, text=True, timeout=2 * LONG_S, check=False)


def test_each_text_that_readme_asks_for_is_written(endpoint):
    asked = [words for words in commands("submit text.generate") if "--pipeline" not in words]
    assert len(asked) >= 4 and any("messages=@examples/chat.json" in words for words in asked)
    for words in asked:
        done = submit(endpoint, *words)
        assert done.returncode == 0 and len(done.stdout) > 10, (words, done)
        assert "schema=" not in str(words) or json.loads(done.stdout.splitlines()[0]), done


def test_a_conversation_is_continued_behind_its_last_text(endpoint):
    said = [submit(endpoint, "submit", "text.generate", *words, "--set", "max_tokens=12", "--wait").stdout
            for words in (("--text", "The press on line two"), ("--set", "messages=@examples/chat.json"))]
    assert said[0].splitlines()[0] == said[1].splitlines()[0] != "", said


def test_of_several_texts_the_first_is_streamed_and_the_others_follow_whole(endpoint):
    words = ["submit", "text.generate", "--text", "The press", "--set", "n=3", "--set", "max_tokens=16",
             "--set", "temperature=0.7", "--seed", "5"]
    told = json.loads(submit(endpoint, *words, "--wait", "--json").stdout)["result"]
    texts = [row["text"] for row in told["choices"]]
    assert len(set(texts)) == 3
    plain = submit(endpoint, *words, "--wait")
    streamed = submit(endpoint, *words, "--stream")
    for done in (plain, streamed):
        assert done.returncode == 0, done
        places = [done.stdout.find(text) for text in texts]
        assert 0 <= places[0] < places[1] < places[2], (texts, done.stdout)
        assert all(done.stdout.count(text) == 1 for text in texts if len(text) > 8)
    assert plain.stdout.startswith(f"[0] {texts[0]}\n[1] ")
    assert streamed.stdout.removeprefix("[0] ").startswith(texts[0] + "\n[1] "), "or it was written before we came"
