"""penstock model pull: from a hub that misbehaves, on this machine."""
import hashlib
import json
import os
import pathlib
import pty
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

import hub as hubs

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", ROOT / "build/bin"))
TINY = ROOT / "examples/models/tiny-llama"
GOLDEN = ROOT / "tests/golden/model-golden/tiny-llama.jsonl"
SPEC = f"hf:{hubs.ORG}/{hubs.NAME}"
UNWANTED = {"pytorch_model.bin": b"x" * 9, "model.gguf": b"x" * 9, "onnx/model.onnx": b"x" * 9,
            ".gitattributes": b"x", "consolidated.safetensors": b"x" * 9, "run.py": b"x"}


@pytest.fixture(name="cache")
def make_cache(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(name="hub")
def make_hub(monkeypatch):
    hub = hubs.Hub({**hubs.files_of(TINY), **UNWANTED})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    hub.close()


def model(*words, code=0):
    done = subprocess.run([BIN / "penstock", "model", *map(str, words)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def pull(*words):
    return model("pull", SPEC, *words)


def refused(*words):
    return model("pull", *(words or (SPEC,)), code=1).stderr


@pytest.fixture(name="digest", scope="module")
def find_digest(tmp_path_factory):
    """The digest of the model when it is imported from its folder."""
    cache = tmp_path_factory.mktemp("plain")
    done = subprocess.run([BIN / "penstock", "model", "import", TINY], text=True, check=True,
                          capture_output=True, env={**os.environ, "PENSTOCK_CACHE": str(cache)})
    return done.stdout.split()[1]


def nothing_is_left(cache):
    names = {p.name for p in cache.iterdir()} if cache.exists() else set()
    assert names <= {".lock", ".blobs", ".pull"}
    assert not (cache / ".blobs").exists() or not list((cache / ".blobs").iterdir())


def test_a_pulled_model_is_the_imported_one_and_only_its_files_were_asked_for(cache, hub, digest):
    said = pull("--json", "--verify", GOLDEN)
    told = json.loads(said.stdout)
    assert told["model"] == "tiny" and told["dir"] == str(cache / "tiny")
    assert f"{hubs.ORG}/{hubs.NAME} at {hub.commit[:12]}" in said.stderr and "MB" in said.stderr
    assert "160 tokens equal" in said.stderr
    asked = {r.path.rsplit("/", 1)[-1] for r in hub.contents() if r.server == "hub"}
    assert asked == {p.name for p in TINY.iterdir()} and not asked & set(UNWANTED)
    assert not list((cache / ".pull").iterdir())
    assert model("rm", "tiny") and pull().stdout == f"tiny {digest}\n"
    shown = json.loads(model("show", "tiny", "--json").stdout)
    assert shown["origin"] == f"{SPEC}@{hub.commit}"
    model("verify", "tiny")


def test_what_is_here_already_is_not_fetched_again(cache, hub, digest):
    pull()
    hub.requests.clear()
    assert pull().stdout == f"tiny {digest}\n" and not hub.contents()
    hub.files["README.md"] = b"another card\n"
    assert "another model of that name" in refused()
    assert not hub.contents()
    other = model("pull", SPEC, "--replace").stdout.split()[1]
    assert other != digest and other in model("verify", "tiny").stdout
    assert "hf:" in model("ls").stdout and cache.exists()
    assert model("pull", f"{SPEC}@refs/pr/1", "--name", "second").stdout == f"second {other}\n"


def test_a_pull_killed_at_random_twenty_times_ends_with_the_same_hash(cache, hub, digest):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    hub.bytes_per_s = 1.5e6
    size = sum(len(c) for p, c in hub.files.items() if p not in UNWANTED)
    for _ in range(20):
        child = subprocess.Popen([BIN / "penstock", "model", "pull", SPEC], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(dice.random() * 0.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
    hub.bytes_per_s = None
    left = cache / ".pull" / f"{hubs.ORG}--{hubs.NAME}" / "model.safetensors.part"
    begun = left.stat().st_size if left.exists() else 0
    hub.requests.clear()
    assert pull().stdout == f"tiny {digest}\n"
    asked = [r.range for r in hub.contents() if r.server == "cdn" and r.range]
    if 0 < begun < len(hub.files["model.safetensors"]):
        assert f"bytes={begun}-" in asked
    assert size > 1 << 20 and not list((cache / ".pull").iterdir())
    model("verify", "tiny")


def test_a_pull_goes_on_with_the_byte_that_it_lacks(cache, hub, digest):
    weights = hub.files["model.safetensors"]
    hub.faults = [None, 404]
    assert "is not in it" in refused()
    folder = cache / ".pull" / f"{hubs.ORG}--{hubs.NAME}"
    (folder / "model.safetensors.part").write_bytes(weights[:777777])
    assert SPEC in model("ls").stderr
    hub.requests.clear()
    said = pull()
    assert said.stdout == f"tiny {digest}\n" and "MB of them here" in said.stderr
    assert [r.range for r in hub.requests if r.server == "cdn" and r.range] == ["bytes=777777-"]


@pytest.mark.parametrize("fault", ["cut", "short", "long", "corrupt", "whole", "elsewhere", "stall", 429,
                                   503, 500, 408])
def test_a_hub_that_fails_once_in_a_while_is_asked_again(cache, hub, digest, fault):
    hub.retry_after = "1" if fault == 429 else None
    hub.faults = ["cut", None, fault, "cut"] + [fault] * (fault != "stall")
    said = pull("--stall", "2")
    assert said.stdout == f"tiny {digest}\n" and "again" in said.stderr
    assert not hub.faults and (cache / "tiny").is_dir()


def test_content_that_is_never_what_its_hash_says_is_refused_with_both(cache, hub):
    weights = bytearray(hub.files["model.safetensors"])
    listing = hub.list()
    weights[1000000] ^= 4
    hub.files["model.safetensors"] = bytes(weights)
    hub.listing = {**listing, "sha": hub.commit}
    said = refused()
    digest = hashlib.sha256(weights).hexdigest()
    assert "again" not in said and f"model.safetensors: its SHA-256 is {digest[:16]}" in said
    assert len([r for r in hub.requests if r.server == "cdn" and r.path.startswith(f"/{digest}")]) == 3
    row, = [r for r in listing["siblings"] if r["rfilename"] == "model.safetensors"]
    hub.listing["siblings"] = [r for r in listing["siblings"] if r is not row] + [
        {"rfilename": "model.safetensors", "size": len(weights), "blobId": row["blobId"]}]
    said = refused()
    assert f"the hub lists {row['blobId'][:16]}" in said and "model.safetensors: its git hash is" in said
    nothing_is_left(cache)
    assert not list(cache.glob(".pull/*/model.safetensors*"))


@pytest.mark.parametrize("status, words", [
    (401, ("no such model or revision that we may see", "needs HF_TOKEN", "401")),
    (403, ("ask for it at", f"/{hubs.ORG}/{hubs.NAME}", "403")),
    (404, ("no such model or revision", "404")),
    (429, ("too many requests", "429")),
    (503, ("pull again later", "503")),
])
def test_a_refusal_is_explained(cache, hub, status, words):
    hub.status, hub.message = status, "Access to it is \x1b[31mrestricted"
    said = refused()
    assert all(word in said for word in words), said
    assert "restricted" in said and "\x1b" not in said
    assert not hub.contents()
    nothing_is_left(cache)


def test_the_token_goes_to_the_hub_and_to_nobody_else(cache, hub, digest, monkeypatch, tmp_path):
    hub.token = "hf_secret"
    assert "needs HF_TOKEN" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "may not read it" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull().stdout == f"tiny {digest}\n"
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "home/.cache/huggingface").mkdir(parents=True)
    (tmp_path / "home/.cache/huggingface/token").write_text("hf_secret\n")
    hub.requests.clear()
    assert pull("--replace").stdout == f"tiny {digest}\n"
    sent = {server: {r.token for r in hub.requests if r.server == server} for server in ("hub", "cdn")}
    assert sent == {"hub": {"Bearer hf_secret"}, "cdn": {""}}
    monkeypatch.setenv("HF_TOKEN", "hf secret")
    assert "not one word" in refused()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = hubs.Hub(hub.files, host="127.0.0.2")
    other.token = "hf_secret"
    monkeypatch.setenv("HF_ENDPOINT", other.url)
    assert "was not sent, as HF_ENDPOINT is not https" in refused()
    assert [r.token for r in other.requests] == [""]
    other.close()


def test_a_hub_that_is_not_there_or_wants_to_be_left_alone_is_told(cache, hub, monkeypatch):
    hub.status, hub.retry_after = 429, "3600"
    assert "too many requests" in refused() and len(hub.requests) == 1
    hub.close()
    said = refused()
    assert hub.url in said and "tried 5 times" in said and "again in" in said
    assert all(words in said for words in ("HF_ENDPOINT", "https_proxy", "model import DIR"))
    nothing_is_left(cache)


def test_a_model_that_cannot_be_run_is_refused_before_its_weights_are_fetched(cache, hub):
    hub.files["config.json"] = hub.files["config.json"].replace(b"LlamaForCausalLM", b"MambaForCausalLM")
    said = refused()
    assert f"{SPEC}/config.json: architectures: MambaForCausalLM is not supported" in said
    assert {r.path.rsplit("/", 1)[-1] for r in hub.contents()} == {"config.json"}
    del hub.files["model.safetensors"]
    assert "no model.safetensors, only weights in formats that are not read here" in refused()
    del hub.files["config.json"]
    assert "has no config.json" in refused()
    nothing_is_left(cache)
    model("rm", SPEC)
    assert "no pull of it" in model("rm", SPEC, code=1).stderr


def test_a_disk_without_room_is_told_before_the_weights(cache, hub):
    hub.listing = hub.list()
    for row in hub.listing["siblings"]:
        if row["rfilename"] == "model.safetensors":
            row["lfs"]["size"] = 1 << 43
    said = refused()
    assert "MB free" in said and str(cache) in said
    assert {r.path.rsplit("/", 1)[-1] for r in hub.contents()} == {"config.json"}


def test_files_of_another_commit_are_not_mixed(cache, hub):
    hub.faults = [None, 404]
    refused()
    folder = cache / ".pull" / f"{hubs.ORG}--{hubs.NAME}"
    weights = hub.files["model.safetensors"]
    (folder / "model.safetensors.part").write_bytes(weights[:900000])
    (folder / "tokenizer.json").write_bytes(hub.files["tokenizer.json"])
    (folder / "README.md").write_bytes(b"a file that was damaged since")
    at = len(weights) - 2
    hub.files["model.safetensors"] = weights[:at] + b"\x80\x3f"
    hub.requests.clear()
    pull()
    assert (cache / "tiny/model.safetensors").read_bytes() == hub.files["model.safetensors"]
    ranges = {r.path.rsplit("/", 1)[-1]: r.range for r in hub.contents() if r.server == "hub"}
    assert ranges["model.safetensors"] == "" and "tokenizer.json" not in ranges
    model("verify", "tiny")


def shards_of(path):
    """model.safetensors as two files and their index."""
    data = path.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    names, files, index = sorted(header), {}, {}
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        part, body = {}, b""
        for tensor in names[number - 1::2]:
            begin, end = header[tensor]["data_offsets"]
            row = dict(header[tensor], data_offsets=[len(body), len(body) + end - begin])
            body += data[8 + size + begin:8 + size + end]
            part[tensor], index[tensor] = row, name
        text = json.dumps(part).encode()
        text += b" " * (-len(text) % 8)
        files[name] = struct.pack("<Q", len(text)) + text + body
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index}).encode()
    return files


def test_of_shards_those_that_the_index_names_are_fetched(cache, hub):
    shards = shards_of(TINY / "model.safetensors")
    del hub.files["model.safetensors"]
    hub.files.update(shards)
    hub.files["variant.safetensors"] = b"y" * 30000
    pull()
    assert {p.name for p in (cache / "tiny").glob("*.safetensors*")} == set(shards)
    said = [subprocess.run([BIN / "penstock", "run", name, "-p", "The", "-n", "8"], capture_output=True,
                           text=True, timeout=60, check=True).stdout for name in ("tiny", TINY)]
    assert said[0] == said[1]
    model("rm", "tiny")
    del hub.files["model-00002-of-00002.safetensors"]
    assert "the repository has no file model-00002-of-00002.safetensors" in refused()


@pytest.mark.parametrize("listing, words", [
    (b"<html>", "not JSON"),
    ({"siblings": []}, "no commit"),
    ({"sha": "../../x", "siblings": []}, "no commit"),
    ({"sha": "a" * 40, "siblings": []}, "no config.json"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": "../config.json", "size": 1, "blobId": "a" * 40}]},
     "no config.json"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": "config.json"}]}, "does not say size and hash"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../" * 13 + "a"}]},
     "does not say size and hash"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 1, "blobId": "a" * 40}] * 2}, "twice"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": f"{i}.safetensors", "size": 1, "blobId": "a" * 40}
                                    for i in range(1025)]}, "more than 1024 files"),
    ({"sha": "a" * 40, "siblings": [{"rfilename": name, "size": (1 << 63) - 1, "blobId": "a" * 40}
                                    for name in ("config.json", "a.safetensors", "b.safetensors")]},
     f"config.json has {(1 << 63) - 1} bytes; a file has at most"),
])
def test_a_listing_that_lies_is_refused(cache, hub, listing, words):
    hub.listing = listing
    assert words in refused()
    nothing_is_left(cache)


def test_names_that_are_not_models_are_refused(cache, hub, monkeypatch):
    for spec in ("acme/tiny", "hf:tiny", "hf:acme/", "hf:/tiny", "hf:acme/tiny/x", "hf:../x", "hf:a/..",
                 "hf:acme/tiny@", "hf:acme/tiny@a b", "hf:acme/tiny@a?b"):
        assert "hf:ORG/NAME" in model("pull", spec, code=2).stderr, spec
    assert "no such model or revision" in refused(f"{SPEC}@none")
    assert "cannot be a model's name" in model("pull", SPEC, "--name", "a/b", code=2).stderr
    model("pull", SPEC, "--stall", "0", code=2)
    for endpoint in ("ftp://x", "nonsense", "http://localhost@elsewhere"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert "HF_ENDPOINT" in refused()
    assert not hub.contents()
    nothing_is_left(cache)


def test_one_pull_of_a_model_runs_at_a_time(cache, hub, digest):
    hub.bytes_per_s = 5e5
    first = subprocess.Popen([BIN / "penstock", "model", "pull", SPEC], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any(r.server == "cdn" for r in hub.requests) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "another pull of it is under way" in refused()
    assert "another pull of it is under way" in model("rm", SPEC, code=1).stderr
    hub.bytes_per_s = None
    assert first.communicate(timeout=60)[0] == f"tiny {digest}\n" and first.returncode == 0
    assert (cache / "tiny").is_dir()


def test_a_terminal_shows_a_bar_with_the_time_that_is_left(cache, hub, digest):
    hub.bytes_per_s = 2e6
    ours, theirs = pty.openpty()
    child = subprocess.Popen([BIN / "penstock", "model", "pull", SPEC], stdout=subprocess.PIPE, stderr=theirs,
                             text=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:         # the other end is closed
            break
        shown += piece
    os.close(ours)
    assert child.communicate(timeout=60)[0] == f"tiny {digest}\n"
    assert b"%" in shown and b"MB/s" in shown and b"ETA 0:0" in shown and cache.exists()


@pytest.fixture(name="certificate")
def make_certificate(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    both = tmp_path / "both.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"], check=True,
                   capture_output=True)
    both.write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    return both


def test_a_certificate_is_checked_and_https_is_not_left(cache, digest, certificate, monkeypatch):
    plain = hubs.Hub(hubs.files_of(TINY))
    hub = hubs.Hub(plain.files, tls=certificate)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    said = refused()
    assert "certificate" in said and "tried" not in said and not hub.requests
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("cert.pem")))
    hub.redirect = plain.cdn_url
    assert "rotocol" in refused() and not [r for r in plain.requests if r.server == "cdn"]
    hub.redirect = None
    assert pull().stdout == f"tiny {digest}\n" and cache.exists()
    hub.close()
    plain.close()
