"""LoRA adapters: jobs with two of them and with none, at once, through a whole engine."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "client/python"))
import penstock  # noqa: E402

PROGRAM = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock"
GOLDENS = ROOT / "tests/golden/lora"
LONG_S = 60


PIPELINE = """name: generate.loud
kind: text.generate
stages:
  - {name: encode, run: encode.prompt, model: tiny-llama}
  - {name: infer, run: infer.generate, model: tiny-llama, adapter: tiny-loud}
  - {name: post, run: post.generate, model: tiny-llama}
"""


def golden(name):
    return json.loads((GOLDENS / name / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(name="client", scope="module")
def make_client(tmp_path_factory):
    """An engine with a folder that has a model and an adapter of it, and one with another adapter."""
    root = tmp_path_factory.mktemp("adapters")
    models, more = root / "models", root / "more"
    models.mkdir()
    more.mkdir()
    (models / "tiny-llama").symlink_to(ROOT / "examples/models/tiny-llama")
    (models / "tiny-loud").symlink_to(GOLDENS / "tiny-loud")
    (more / "tiny-quiet").symlink_to(GOLDENS / "tiny-quiet")
    shutil.copytree(GOLDENS / "tiny-quiet", more / "tiny-broken")
    config = json.loads((more / "tiny-broken/adapter_config.json").read_text())
    (more / "tiny-broken/adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    shutil.copytree(GOLDENS / "llama-all", more / "llama-all")
    (root / "pipelines").mkdir()
    (root / "pipelines/loud.yaml").write_text(PIPELINE)
    with open(root / "log", "wb") as log:
        up = subprocess.Popen([PROGRAM, "up", "--json", "--dir", root / "engine", "--models", models,
                               "--models", more, "--pipelines", f":{root}/pipelines"],
                              stdout=subprocess.PIPE, stderr=log, text=True,
                              env=dict(os.environ, PENSTOCK_CACHE=str(root / "cache")))
    try:
        line = up.stdout.readline()
        assert line, (root / "log").read_text(errors="replace")
        with penstock.Client(json.loads(line)["endpoint"]) as client:
            yield client
        up.terminate()
        assert up.wait(LONG_S) == 0
    finally:
        up.kill()
        up.wait()
        up.stdout.close()


def ask(client, adapter=None, **more):
    return client.submit(penstock.generate(golden("tiny-loud")["text"], adapter=adapter,
                                           max_tokens=40, **more))


def test_three_jobs_at_once_write_what_their_adapters_make_of_the_model(client):
    loud, quiet = golden("tiny-loud"), golden("tiny-quiet")
    wanted = {"tiny-loud": loud["new_ids"], "tiny-quiet": quiet["new_ids"], None: loud["plain_ids"]}
    for _ in range(3):
        jobs = {name: ask(client, name) for name in wanted}
        for name, job in jobs.items():
            outcome = client.wait(job, LONG_S)
            result = outcome.unwrap()
            assert "+w-" in outcome.numerics_id, "what computed it, and with which weights"
            assert result["tokens"] == wanted[name], name
            assert result.get("adapter") == name and result["model"] == "tiny-llama"


def test_a_pipeline_names_the_adapter_of_jobs_that_name_none(client):
    for adapter, name in ((None, "tiny-loud"), ("tiny-quiet", "tiny-quiet")):
        job = client.submit(penstock.generate(golden("tiny-loud")["text"], adapter=adapter, max_tokens=40),
                            pipeline="generate.loud")
        result = client.wait(job, LONG_S).unwrap()
        assert (result["adapter"], result["tokens"]) == (name, golden(name)["new_ids"])


def test_sampling_with_an_adapter_is_the_same_alone_and_in_company(client):
    alone = client.wait(ask(client, "tiny-loud", temperature=1.5, seed=7), LONG_S).unwrap()
    jobs = [ask(client, name, temperature=1.5, seed=seed)
            for seed in range(4, 10) for name in ("tiny-loud", None, "tiny-quiet")]
    texts = [client.wait(job, LONG_S).unwrap()["tokens"] for job in jobs]
    assert texts[9] == alone["tokens"], "seed 7, tiny-loud"
    assert len({tuple(text) for text in texts}) > 9


def test_an_adapter_that_no_worker_has_is_refused_by_name(client):
    result = client.wait(ask(client, "tiny-silent"), LONG_S)
    assert not result.done
    assert "adapter tiny-silent is not here; there are: llama-all, tiny-broken, tiny-loud, tiny-quiet; " \
        "name its folder when the workers start: `penstock up --model tiny-silent=DIR`" in result.reason


@pytest.mark.parametrize("name, words", [
    ("tiny-broken", "adapter tiny-broken/adapter_config.json: use_dora"),
    ("llama-all", "adapter llama-all: is an adapter of"),
])
def test_an_adapter_that_cannot_be_used_is_told_by_its_name_and_not_its_folder(client, name, words):
    result = client.wait(ask(client, name), LONG_S)
    assert not result.done and words in result.reason, result.reason
    assert str(ROOT) not in result.reason and "/more/" not in result.reason, result.reason


def test_an_adapter_is_no_model(client):
    models = {name for worker in client.workers() for name in worker["models"]}
    assert models == {"tiny-llama"}


def model(*words):
    return subprocess.run([PROGRAM, "model", *map(str, words)], capture_output=True, text=True,
                          timeout=LONG_S, check=False)


def test_model_show_tells_what_an_adapter_is_and_import_where_it_goes():
    shown = json.loads(model("show", GOLDENS / "tiny-quiet", "--json").stdout)
    assert shown["kind"] == "adapter" and shown["base"] == "tiny-llama"
    assert (shown["rank"], shown["alpha"], shown["matrices"]) == (2, 3, 4)
    assert shown["targets"] == "o_proj, up_proj" and shown["stored"] == "BF16"
    assert shown["parameters"] == 2 * 2 * (128 + 128 + 128 + 352)
    said = model("show", GOLDENS / "llama-some").stdout
    assert "rsLoRA" in said and "mlp" in said
    done = model("import", GOLDENS / "tiny-quiet")
    assert done.returncode == 1 and "--model NAME=DIR" in done.stderr
