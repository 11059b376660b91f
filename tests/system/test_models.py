"""penstock model: import, verify, ls, show, rm; what a crash leaves; models by name."""
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build/bin"))
TINY = ROOT / "examples/models/tiny-llama"
BERT = ROOT / "tests/golden/models/bert"
GOLDENS = ROOT / "tests/golden/model-golden"


@pytest.fixture(name="cache")
def make_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def model(*words, code=0):
    done = subprocess.run([BIN / "penstock", "model", *map(str, words)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def refused(*words):
    return model(*words, code=1).stderr


def rows():
    return {row["model"]: row for row in json.loads(model("ls", "--json").stdout)}


def writable_copy(tmp_path, source=TINY):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    return copy


def header(path):
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + size]), 8 + size


def patch(path, at, content):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


def nothing_is_left(cache):
    """No model, no blob, no staging directory."""
    assert [p.name for p in cache.iterdir() if p.name not in (".lock", ".blobs")] == []
    assert list((cache / ".blobs").iterdir()) == []


def test_an_import_is_a_directory_of_read_only_links_and_says_what_it_is(cache):
    said = model("import", TINY, "--verify", GOLDENS / "tiny-llama.jsonl")
    name, digest = said.stdout.split()
    assert name == "tiny-llama" and "160 tokens equal" in said.stderr
    manifest = json.loads((cache / name / "penstock-manifest.json").read_text())
    lines = "".join(f"{row['sha256']}  {path}\n" for path, row in sorted(manifest["files"].items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == digest == manifest["digest"]
    for path, row in manifest["files"].items():
        file = cache / name / path
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
        assert file.samefile(cache / ".blobs" / row["sha256"])
        assert file.stat().st_mode & 0o222 == 0
    shown = json.loads(model("show", name, "--json").stdout)
    assert shown["architecture"] == "LlamaForCausalLM" and shown["kind"] == "decoder"
    assert shown["memory_bytes"] == {"f32": 4 * shown["parameters"], "bf16": 2 * shown["parameters"]}
    assert shown["context"] == 1024 and shown["tokenizer"].startswith("BPE") and shown["stored"] == "BF16"
    assert shown["classes"] is None
    assert rows()[name]["digest"] == digest
    assert digest in model("verify", name).stdout


def test_the_same_content_is_kept_once_and_goes_with_its_last_model(cache):
    model("import", TINY, "--name", "one")
    model("import", TINY, "--name", "two")
    weights = cache / "one/model.safetensors"
    assert weights.samefile(cache / "two/model.safetensors") and weights.stat().st_nlink == 3
    model("rm", "one")
    model("verify", "two")
    assert set(rows()) == {"two"}
    model("rm", "two")
    nothing_is_left(cache)
    assert "is not here" in refused("rm", "two")


def test_the_same_model_again_is_done_and_another_of_its_name_is_refused_until_replaced(cache, tmp_path):
    first = model("import", TINY).stdout
    assert model("import", TINY).stdout == first
    other = writable_copy(tmp_path)
    (other / "README.md").write_text("---\nlicense: mit\n---\n")
    said = refused("import", other, "--name", "tiny-llama")
    assert "another model of that name" in said and "--replace" in said
    assert model("verify", "tiny-llama").stdout.split()[1].rstrip(":") == first.split()[1]
    model("import", other, "--name", "tiny-llama", "--replace")
    assert json.loads(model("show", "tiny-llama", "--json").stdout)["licence"] == "mit"
    assert [p for p in cache.iterdir() if p.name.startswith(".staging")] == []
    told = json.loads(model("import", other, "--name", "tiny-llama", "--json").stdout)
    assert told["dir"] == str(cache / "tiny-llama") and told["digest"] == rows()["tiny-llama"]["digest"]


def test_the_same_files_keep_their_golden_outputs_until_they_are_replaced(cache, tmp_path):
    golden = GOLDENS / "tiny-llama.jsonl"
    plain = model("import", TINY).stdout
    first = model("import", TINY, "--verify", golden)
    assert first.stdout != plain and "is here already" in first.stderr
    again = model("import", TINY)
    assert again.stdout == first.stdout and "160 tokens equal" in again.stderr
    assert "tiny-llama is here already, with these golden outputs" in again.stderr
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("".join(golden.read_text().splitlines(keepends=True)[:-1]))
    assert model("import", TINY, "--verify", shorter).stdout not in (plain, first.stdout)
    kept = cache / "tiny-llama/penstock-golden.jsonl"
    assert kept.read_text() == shorter.read_text()
    kept.chmod(0o644)
    kept.write_text("{}")
    assert "is damaged; give it again with --verify" in refused("import", TINY)
    replaced = model("import", TINY, "--replace")
    assert replaced.stdout == plain and "golden outputs that tiny-llama had are gone" in replaced.stderr
    model("verify", "tiny-llama")


def test_a_weight_that_differs_is_named_before_the_tokens_that_it_spoils(cache, tmp_path):
    copy = writable_copy(tmp_path)
    tensors, data = header(copy / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    patch(copy / "model.safetensors", data + tensors[name]["data_offsets"][0], b"\x80\x3f")
    said = refused("import", copy, "--verify", GOLDENS / "tiny-llama.jsonl")
    assert f"{copy}/model.safetensors: tensor {name} differs" in said
    nothing_is_left(cache)


def test_the_first_token_and_the_first_logit_that_differ_are_named(cache, tmp_path):
    lines = [json.loads(line) for line in (GOLDENS / "tiny-llama.jsonl").read_text().splitlines()]
    texts = [line for line in lines if "ids" in line]
    golden = tmp_path / "golden.jsonl"

    def write():
        golden.write_text("".join(json.dumps(line) + "\n" for line in lines))

    right, texts[2]["new_ids"][5] = texts[2]["new_ids"][5], 3
    write()
    assert f"token 5 that the model writes is {right}, expected 3" in refused(
        "import", TINY, "--verify", golden)
    texts[2]["new_ids"][5] = right
    texts[1]["logits"]["value"][7] += 0.5
    write()
    assert f"the logit of token {texts[1]['logits']['at'][7]} is" in refused(
        "import", TINY, "--verify", golden)
    texts[0]["ids"][1] += 1
    write()
    assert "the tokenizer differs at token 1" in refused("import", TINY, "--verify", golden)
    golden.write_text('{"golden": 2}\n')
    assert "golden.jsonl:1" in refused("import", TINY, "--verify", golden)
    assert "is of a BertModel" in refused("import", TINY, "--verify", GOLDENS / "bert.jsonl")
    nothing_is_left(cache)


def test_an_encoder_is_compared_by_its_vectors(cache, tmp_path):
    assert "cosine 1.00000" in model("import", BERT, "--verify", GOLDENS / "bert.jsonl").stderr
    lines = [json.loads(line) for line in (GOLDENS / "bert.jsonl").read_text().splitlines()]
    lines[-1]["embedding"][0] += 0.5
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "cosine" in refused("verify", "bert", "--verify", golden)
    assert set(rows()) == {"bert"} and cache.exists()


def test_the_classes_of_a_head_are_shown_by_their_names():
    folder = ROOT / "tests/golden/models/bert-classes"
    assert json.loads(model("show", folder, "--json").stdout)["classes"] == ["no", "yes", "open"]
    said = [line.split() for line in model("show", folder).stdout.splitlines()]
    assert ["classes", "no"] in said and ["yes"] in said and ["open"] in said


def damage_nan(copy):
    tensors, data = header(copy / "model.safetensors")
    at = tensors["model.norm.weight"]["data_offsets"][0]
    patch(copy / "model.safetensors", data + at + 6, b"\xc0\x7f")


def damage_cut(copy):
    os.truncate(copy / "model.safetensors", 900000)


def damage_architecture(copy):
    text = (copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace("LlamaForCausalLM", "MambaForCausalLM"))


def damage_dtype(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data.replace(b'"BF16"', b'"XF16"', 1))


def damage_tokenizer(copy):
    text = json.loads((copy / "tokenizer.json").read_text())
    text["pre_tokenizer"] = {"type": "Ghost"}
    (copy / "tokenizer.json").write_text(json.dumps(text))


def damage_no_tokenizer(copy):
    (copy / "tokenizer.json").unlink()


def damage_nesting(copy):
    (copy / "tokenizer.json").write_text('{"pre_tokenizer":' * 100000 + "1" + "}" * 100000)


@pytest.mark.parametrize("damage, words", [
    (damage_nan, ("model.safetensors", "model.norm.weight", "element 3 is a NaN or an infinity")),
    (damage_cut, ("model.safetensors", "truncated")),
    (damage_architecture, ("config.json", "MambaForCausalLM")),
    (damage_dtype, ("model.safetensors", "dtype XF16")),
    (damage_tokenizer, ("tokenizer.json", "Ghost")),
    (damage_no_tokenizer, ("has no tokenizer", "tokenizer.json", "vocab.json", "LlamaForCausalLM")),
    (damage_nesting, ("tokenizer.json",)),
])
def test_a_bad_model_is_refused_with_its_file_and_reason_and_leaves_nothing(cache, tmp_path, damage, words):
    copy = writable_copy(tmp_path)
    damage(copy)
    said = refused("import", copy)
    assert str(copy) in said and all(word in said for word in words), said
    assert not cache.exists() or not rows()
    if cache.exists():
        nothing_is_left(cache)


def test_what_was_changed_behind_the_manifest_is_found(cache):
    model("import", TINY)
    blob = (cache / "tiny-llama/model.safetensors").resolve()
    blob.chmod(0o644)
    patch(blob, 1000000, b"\x01\x02")
    said = refused("verify", "tiny-llama")
    assert "model.safetensors: SHA-256 is" in said and "import it again" in said
    model("verify", "tiny-llama", "--quick")
    model("import", TINY)
    model("verify", "tiny-llama")
    blob = (cache / "tiny-llama/model.safetensors").resolve()
    os.truncate(blob, 1700000)
    assert "has 1700000 bytes" in refused("verify", "tiny-llama", "--quick")
    done = subprocess.run([BIN / "penstock", "run", "tiny-llama", "-p", "The"], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 1 and "was imported with" in done.stderr
    model("import", TINY)
    model("verify", "tiny-llama")


def test_a_disk_without_room_is_told_before_anything_is_copied(cache, tmp_path):
    copy = writable_copy(tmp_path)
    with open(copy / "huge.safetensors", "wb") as file:
        file.truncate(1 << 43)      # a hole: it takes no room here
    said = refused("import", copy)
    assert said.startswith(f"penstock model: {cache}: needs 87") and "MB free" in said, said
    nothing_is_left(cache)


def test_an_import_killed_anywhere_leaves_all_or_nothing_and_can_be_repeated(cache):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    began = time.monotonic()
    whole = model("import", TINY).stdout
    took = time.monotonic() - began
    model("rm", "tiny-llama")
    for _ in range(20):
        child = subprocess.Popen([BIN / "penstock", "model", "import", TINY], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(dice.random() * took * 1.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (cache / "tiny-llama").exists():
            model("verify", "tiny-llama")
            model("rm", "tiny-llama")
    assert model("import", TINY).stdout == whole
    model("rm", "tiny-llama")
    nothing_is_left(cache)


def test_a_model_is_run_and_tokenized_by_its_name(cache):
    model("import", TINY, "--name", "little")
    said = [subprocess.run([BIN / "penstock", "run", name, "-p", "The", "-n", "8"], capture_output=True,
                           text=True, timeout=60, check=True).stdout for name in ("little", TINY)]
    assert said[0] == said[1] != "" and (cache / "little").is_dir()
    done = subprocess.run([BIN / "penstock", "tokenize", "little"], input="The press\n",
                          capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[1022,267,958]\n"


def test_a_pipeline_that_names_an_imported_model_runs_it(cache, tmp_path):
    model("import", TINY, "--name", "little")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text[text.index("name: chat\nkind:"):]
    text = text[:text.index("```")]
    assert text.count("Qwen2.5-0.5B-Instruct") == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/chat.yaml").write_text(text.replace("Qwen2.5-0.5B-Instruct", "little"), encoding="utf-8")
    env = dict(os.environ, PENSTOCK_ENDPOINT=f"ipc://{tmp_path}/up/clients")
    env.pop("PENSTOCK_PIPELINES", None)
    with subprocess.Popen([BIN / "penstock", "up", "--dir", tmp_path / "up", "--json", "--pipelines",
                           f":{tmp_path}/mine"], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as up:
        try:
            assert up.stdout.readline()
            done = subprocess.run([BIN / "penstock", "submit", "text.generate", "--pipeline", "chat", "--text",
                                   "The press", "--set", "max_tokens=4", "--wait", "--json", "--timeout", "60"],
                                  env=env, capture_output=True, text=True, timeout=90, check=False)
        finally:
            up.terminate()
    assert done.returncode == 0 and json.loads(done.stdout)["result"]["model"] == "little", done


def test_what_a_link_leads_to_is_imported_only_where_it_lies_in_the_folder(cache, tmp_path):
    copy, secret = writable_copy(tmp_path), tmp_path / "secret"
    (copy / "README.md").unlink()
    secret.write_text("what others may not read")
    for link in (secret, "../secret", pathlib.Path("/proc/self/cwd") / secret):
        (copy / "README.md").symlink_to(link)
        said = refused("import", copy)
        assert f"{copy}/README.md: is a link that leads out of the folder, to {secret};" in said, said
        nothing_is_left(cache)
        (copy / "README.md").unlink()
    (copy / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/config.json").write_text("{}")
    assert "1_Pooling/config.json: is a link that leads out of the folder" in refused("import", copy)
    (copy / "1_Pooling").unlink()
    (copy / "weights").mkdir()
    (copy / "model.safetensors").rename(copy / "weights/first")
    (copy / "model.safetensors").symlink_to("weights/first")
    (tmp_path / "name").symlink_to(copy)
    model("import", tmp_path / "name", "--name", "little")
    assert not (cache / "little/model.safetensors").is_symlink()
    model("verify", "little")


def test_a_snapshot_of_the_hubs_cache_is_imported_and_no_other_repositorys_blobs(cache, tmp_path):
    hub = tmp_path / "hub"
    ours, other = hub / "models--acme--tiny", hub / "models--acme--other"
    snapshot = ours / "snapshots/0123abcd"
    for folder in (snapshot, ours / "blobs", other / "blobs"):
        folder.mkdir(parents=True)
    for i, file in enumerate(sorted(TINY.iterdir())):
        shutil.copyfile(file, ours / f"blobs/{i}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    model("import", snapshot, "--name", "tiny")
    assert rows()["tiny"]["digest"] == model("import", TINY, "--name", "same").stdout.split()[1]
    (other / "blobs/0").write_text("theirs")
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("../../../models--acme--other/blobs/0")
    assert "leads out of the folder" in refused("import", snapshot, "--name", "more")


def test_a_copy_is_read_by_those_who_could_read_its_source_and_written_by_nobody(cache, tmp_path):
    copy = writable_copy(tmp_path)
    for file in copy.iterdir():
        file.chmod(0o600)
    (copy / "README.md").chmod(0o666)

    def modes():
        return {f.name: f.stat().st_mode & 0o777 for f in (cache / "copy").iterdir()}
    model("import", copy)
    assert modes()["README.md"] == 0o444 and modes()["model.safetensors"] == 0o400
    (copy / "model.safetensors").chmod(0o644)
    model("import", copy)
    assert modes()["model.safetensors"] == 0o444 and modes()["config.json"] == 0o400


def test_what_an_import_takes_its_manifest_takes_too(cache, tmp_path):
    copy = writable_copy(tmp_path)
    (copy / "1_..").mkdir()
    (copy / "1_../config.json").write_text("{}")
    (copy / "bell\a.safetensors").write_text("no part of it")
    (copy / "two..dots.safetensors").symlink_to("model.safetensors")
    os.unlink(copy / "two..dots.safetensors")
    model("import", copy)
    assert (cache / "copy/1_../config.json").exists() and len(list((cache / "copy").glob("bell*"))) == 0
    model("verify", "copy")


def test_names_that_are_paths_and_models_that_are_not_there_are_refused(cache):
    assert "cannot be a model's name" in model("import", TINY, "--name", "../x", code=2).stderr
    assert "is not here" in refused("verify", "..")
    assert "config.json" in refused("import", ROOT / "tests/golden")
    assert f"{ROOT}/none: No such" in refused("import", ROOT / "none")
    assert "model none is not here; `penstock model ls`" in refused("show", "none")
    assert "/none: there is no such folder" in refused("show", ROOT / "none")
    assert "hf:ORG/NAME" in model("rm", "hf:BADNAME", code=2).stderr
    model("frobnicate", "x", code=2)
    model(code=2)
    assert not cache.exists()


def test_show_says_whether_the_chat_template_can_be_rendered(tmp_path):
    def chat(template):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        writable_copy(tmp_path)
        (folder / "chat_template.jinja").unlink()
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return json.loads(model("show", folder, "--json").stdout)["chat_template"]
    assert chat(None) is None
    assert chat("{{ bos_token }}") == "supported"
    assert "chat_template.jinja: line 2: the tag {% include %} is not supported" in chat("\n{% include 'x' %}")


def test_an_import_warns_of_a_chat_template_that_cannot_be_rendered(cache, tmp_path):
    copy = writable_copy(tmp_path)
    (copy / "chat_template.jinja").write_text("\n{% include 'x' %}")
    said = model("import", copy)
    assert f"warning: {copy}/chat_template.jinja: line 2: the tag {{% include %}}" in said.stderr
    assert "conversations will be refused" in said.stderr and set(rows()) == {"copy"}
    (copy / "chat_template.jinja").write_text("{{ bos_token }}")
    assert "warning" not in model("import", copy, "--replace").stderr


def test_the_help_says_each_thing_once():
    said = " ".join(model("--help").stdout.split())
    for words in ("What is imported can be named", "show says what", "rm hf:ORG/NAME removes"):
        assert said.count(words) == 1, said


def run(*words, code, stdin=""):
    done = subprocess.run([BIN / "penstock", *map(str, words)], capture_output=True, text=True,
                          timeout=60, check=False, input=stdin)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("option, bad, good", [
    ("max-tokens", ("0", "8193", "x"), "2"), ("top-k", ("1001", "-1"), "1000"),
    ("temperature", ("2.1", "nan"), "2"), ("top-p", ("1.1",), "1"), ("min-p", ("-0.1",), "0.5"),
    ("repetition-penalty", ("0", "10.5"), "2"), ("presence-penalty", ("2.5",), "-2"),
    ("frequency-penalty", ("-2.5",), "2"), ("n", ("0", "17"), "2"), ("stop", ("x" * 257,), "x" * 256),
])
def test_run_has_the_bounds_of_a_job(option, bad, good):
    for value in bad:
        assert f"--{option}" in run("run", TINY, "-p", "The", f"--{option}={value}", code=2)
    run("run", TINY, "-p", "The", "-n", "2", f"--{option}={good}", code=0)


def test_a_command_line_that_asks_for_nothing_or_too_much_is_told_what(tmp_path):
    chat = tmp_path / "chat.json"
    chat.write_text("[]")
    for words, said in (((), "--prompt TEXT or --messages FILE"),
                        (("-p", "x", "--messages", chat), "one of them, not both"),
                        (("-p", "x", "--logprobs", "1"), "only with --json"),
                        (("-p", "x", "--logprobs", "21", "--json"), "from 0 to 20")):
        told = run("run", TINY, *words, code=2)
        assert said in told and "--help" in told, told
    assert "which model?" in run("run", "-p", "x", code=2)


def test_what_goes_wrong_in_a_run_is_told_with_its_option_and_what_to_do(tmp_path):
    schema, chat = tmp_path / "schema.json", tmp_path / "chat.json"
    schema.write_text('{"type": "array"}')
    chat.write_text("[1")
    for words, said in ((("none", "-p", "x"), "model none is not here; `penstock model ls`"),
                        (("./none", "-p", "x"), "./none: there is no such folder"),
                        ((TINY, "-p", "x", "--adapter", "none"), "--adapter none: there is no such folder"),
                        ((TINY, "-p", "x " * 2000), "model's limit is 1024: shorten it"),
                        ((TINY, "-p", "x", "--schema", schema), f"--schema {schema}: #: items is missing"),
                        ((TINY, "-p", "x", "--schema", "none"), "--schema: cannot open none"),
                        ((TINY, "--messages", "none"), "--messages: cannot open none"),
                        ((BERT, "-p", "x"), "does not write text; run needs a decoder")):
        told = run("run", *words, code=1)
        assert said in told and "--help" not in told, told
    assert "model none is not here" in run("tokenize", "none", code=1)


def test_a_text_ends_with_its_line_before_the_statistics():
    done = subprocess.run([BIN / "penstock", "run", TINY, "-p", "The", "-n", "4"], timeout=60, check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert re.match(r"\d+ prompt tokens, 4 tokens in ", done.stdout.splitlines()[-1]), done.stdout


def test_show_keeps_its_columns(tmp_path):
    copy = writable_copy(tmp_path)
    (copy / "chat_template.jinja").write_text("{{ bos_token }}")
    lines = model("show", copy).stdout.splitlines()
    assert {line[14] for line in lines} == {" "} and " " not in {line[15] for line in lines}
