"""Texts under a JSON Schema through a whole engine: from Python, from the command line, refused."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client/python"))
import penstock  # noqa: E402

PROGRAM = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock"
LONG_S = 60
PART = {
    "type": "object",
    "properties": {"part": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
                   "verdict": {"enum": ["pass", "fail"]},
                   "score": {"type": "number", "minimum": 0, "maximum": 1}},
    "required": ["part", "verdict", "score"],
}


@pytest.fixture(name="endpoint", scope="module")
def make_endpoint(tmp_path_factory):
    """Where an engine with the small decoder listens."""
    root = tmp_path_factory.mktemp("schema")
    with open(root / "log", "wb") as log:
        up = subprocess.Popen([PROGRAM, "up", "--json", "--dir", root / "engine", "--models",
                               ROOT / "examples/models", "--pipelines", ROOT / "pipelines"],
                              stdout=subprocess.PIPE, stderr=log, text=True,
                              env=dict(os.environ, PENSTOCK_CACHE=str(root / "cache")))
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


def is_part(text):
    value = json.loads(text)
    assert list(value) == ["part", "verdict", "score"]
    assert len(value["part"]) == 5 and value["verdict"] in ("pass", "fail")
    assert 0 <= value["score"] <= 1


def test_jobs_from_python_give_values_of_their_schema_and_the_others_what_they_give_alone(endpoint):
    with penstock.Client(endpoint) as client:
        def ask(**more):
            return client.submit(penstock.generate("The press", max_tokens=60, temperature=1.4, **more))
        alone = client.wait(ask(seed=1), LONG_S).unwrap()
        free = [ask(seed=1) for _ in range(2)]
        jobs = [ask(seed=seed, schema=schema)
                for seed in range(6) for schema in (PART, json.dumps(PART))]
        results = [client.wait(job, LONG_S).unwrap() for job in jobs]
        for result in results:
            is_part(result["text"])
            assert result["finish_reason"] == "stop"
        assert len({result["text"] for result in results}) > 3
        for first, second in zip(results[::2], results[1::2]):
            assert first["tokens"] == second["tokens"]
        for job in free:
            assert client.wait(job, LONG_S).unwrap()["tokens"] == alone["tokens"]


def test_submit_reads_a_schema_from_a_file(endpoint, tmp_path):
    (tmp_path / "part.json").write_text(json.dumps(PART))
    done = subprocess.run([PROGRAM, "submit", "text.generate", "--text", "The press", "--wait", "--json",
                           "--set", f"schema=@{tmp_path}/part.json", "--endpoint", endpoint],
                          capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode == 0, done.stderr
    is_part(json.loads(done.stdout)["result"]["text"])


def test_a_schema_that_is_not_supported_fails_the_job_with_the_place(endpoint):
    with penstock.Client(endpoint) as client:
        def refused(schema, **more):
            return client.wait(client.submit(penstock.generate("x", schema=schema, **more)),
                               LONG_S).reason
        assert "#/properties/a: not is not supported" in refused(
            {"type": "object", "properties": {"a": {"not": {"type": "null"}}}})
        assert "needs 17 tokens; max_tokens and the context leave 5" in refused(
            {"type": "string", "minLength": 15}, max_tokens=5)


def test_what_can_be_seen_without_a_model_is_refused_at_the_submit(endpoint):
    with penstock.Client(endpoint) as client:
        for body, code, field, words in (
                ({"prompt": "x", "schema": {"type": "string"}, "stop": ["x"]}, "conflict", "stop",
                 "'stop' is not taken together with 'schema'"),
                ({"prompt": "x", "tools": []}, "missing", "tools", "'tools' go with 'messages', not with a prompt"),
                ({"messages": "[1, "}, "malformed", "messages", "'messages': not valid JSON: line 1, column 5"),
                ({"prompt": "x", "schema": '{"type": string}'}, "malformed", "schema", "line 1, column 10")):
            with pytest.raises(penstock.Refused) as why:
                client.submit("text.generate", body)
            assert (why.value.code, why.value.field) == (code, field) and words in str(why.value), why.value
        assert client.wait(client.submit("text.generate", {"prompt": "The", "schema": None, "stop": ["x"],
                                                           "max_tokens": 2}), LONG_S).done
