"""The example of a stage in Python: the house's rules for contracts, behind an analysis."""
import json
import os
import pathlib
import runpy
import subprocess
import sys

import msgpack
import penstock
from real_broker import LONG_S, STAGE_DONE, Broker, Worker

EXAMPLE = pathlib.Path("examples/rules/contract_rules.py").resolve()
PIPELINE = EXAMPLE.with_name("contract.rules.yaml").read_text(encoding="utf-8")
BEFORE = ("encode.document", "encode.contract", "infer.embed", "post.contract")
ANALYSIS = {
    "clauses": [{"type": "Cap On Liability", "text": "No more than EUR 5", "charspan": [0, 18]},
                {"type": "Other", "text": "Pay each invoice within 90 days", "charspan": [20, 51]}],
    "entities": [{"type": "duration", "value": "90 days", "normalized": "P90D", "charspan": [44, 51]},
                 {"type": "governing_law", "value": "the\nMoon", "normalized": "the Moon",
                  "charspan": [60, 68]}],
    "risks": [{"level": "high", "rule": "daring", "why": "It dares.", "clause": 0},
              {"level": "low", "rule": "dull", "why": "It is dull.", "clause": 1}]}


def test_each_rule_finds_what_it_is_for():
    decide = runpy.run_path(str(EXAMPLE))["decide"]

    def decision(**changes):
        class Job:
            input = {**ANALYSIS, **changes}

            def notice(self, text):
                pass
        made = decide(Job())
        assert {key: made[key] for key in ANALYSIS} == Job.input
        return made["decision"]["verdict"], [f["rule"] for f in made["decision"]["findings"]]

    assert decision() == ("reject", ["no-termination", "late-payment", "foreign-law", "daring"])
    ends = {"type": "Other", "text": "Either party may terminate it", "charspan": [80, 109]}
    clauses = ANALYSIS["clauses"]
    assert decision(clauses=clauses + [ends])[0] == "review"
    assert decision(clauses=[clauses[0], ends], entities=[], risks=[]) == ("accept", [])
    assert decision(clauses=[ends], entities=[], risks=[])[1] == ["no-liability-cap"]


def test_it_runs_behind_another_workers_stage(tmp_path):
    with Broker(tmp_path, PIPELINE) as broker, penstock.Client(broker.clients) as client, \
            Worker(broker, *BEFORE, models=["all-MiniLM-L6-v2"]) as analyst:
        rules = subprocess.Popen([sys.executable, str(EXAMPLE)],
                                 env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")})
        os.makedirs(tmp_path / "run")
        os.symlink(tmp_path, tmp_path / "run/penstock")  # where it looks unless told otherwise
        try:
            job = client.submit(penstock.contract(text="It has words."), pipeline="contract.rules")
            lease = analyst.lease()[0]
            assert [stage["run"] for stage in lease["plan"]] == list(BEFORE)
            for stage in range(len(BEFORE)):
                analyst.send(STAGE_DONE, {"job": lease["job"], "stage": stage, "run_us": 1,
                                          "attempt": lease["attempt"], "more": stage + 1 < len(BEFORE)},
                             msgpack.packb(ANALYSIS))
            result = client.wait(job, 3 * LONG_S)
            assert result.unwrap()["decision"]["verdict"] == "reject"
            assert result.numerics_id == "python:rules.contract/1"
            rules.terminate()
            assert rules.wait(LONG_S) == 0
        finally:
            rules.kill()
            rules.wait()


def outside():
    """The environment of somebody who has only Python and its packages."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = f"{pathlib.Path(sys.executable).parent}:{environment['PATH']}"
    return environment


def test_up_starts_a_python_worker_and_starts_it_again(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/p.yaml").write_text(
        "name: py\nkind: text.embed\nstages: [{name: only, run: py.do}]\n")
    stages = pathlib.Path(__file__).with_name("python_stages.py")
    up = subprocess.Popen([os.path.join(os.environ["PENSTOCK_BIN"], "penstock"), "up", "--json",
                           "--dir", tmp_path, "--pipelines", f":{tmp_path}/p", "--python", stages,
                           "--lease-ms", "2000", "--heartbeat-ms", "200"],
                          stdout=subprocess.PIPE, env=outside(), text=True)
    try:
        ready = json.loads(up.stdout.readline())
        assert len(ready["workers"]) == 2
        with penstock.Client(ready["endpoint"]) as client:
            def do(**wish):
                return client.submit("text.embed", {"texts": [json.dumps(wish)]}, pipeline="py")
            assert client.wait(do(hello=1), 60).unwrap()["did"] == {"hello": 1}
            dying = do(signal=9, once=str(tmp_path / "once"))
            assert client.wait(dying, 60).done, "it was started again"
            assert client.show(dying)["deaths"] == 1
            names = {worker["name"] for worker in client.workers()}
            assert {"worker-1", "python-1"} <= names
        up.terminate()
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()
        up.stdout.close()


def readme_command(pipeline):
    """What README says of a pipeline, behind the program's name."""
    found = [line for line in pathlib.Path("README.md").read_text(encoding="utf-8").splitlines()
             if line.startswith("build/bin/penstock submit") and f"--pipeline {pipeline} " in line]
    assert len(found) == 1, found
    return found[0].split()[1:]


def test_the_commands_of_the_readme_for_parts_and_pages_give_what_it_says(tmp_path):
    penstock_cli = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")
    up = subprocess.Popen([penstock_cli, "up", "--json", "--dir", tmp_path,
                           "--pipelines", ":examples/parts:examples/pages", "--workers", "0",
                           "--python", "examples/parts/text_parts.py",
                           "--python", "examples/pages/contract_pages.py"],
                          stdout=subprocess.PIPE, env=outside(), text=True)
    try:
        endpoint = json.loads(up.stdout.readline())["endpoint"]

        def result(pipeline):
            done = subprocess.run([penstock_cli, *readme_command(pipeline), "--endpoint", endpoint],
                                  capture_output=True, text=True, timeout=LONG_S, check=True)
            return json.loads(done.stdout)["result"]
        words = pathlib.Path("README.md").read_text(encoding="utf-8").split()
        parts = result("text.parts")
        assert parts["words"] == len(words) and len(parts["parts"]) > 10 and not parts["failed"]
        pages = result("contract.pages")
        assert pages["pages_ok"] == pages["pages_in"] > 0
        up.terminate()
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()
        up.stdout.close()


def test_up_says_what_is_wrong_with_a_python_worker(tmp_path):
    penstock_up = os.path.join(os.environ["PENSTOCK_BIN"], "penstock")
    done = subprocess.run([penstock_up, "up", "--dir", tmp_path, "--python", "nowhere.py"],
                          env=outside(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "nowhere.py" in done.stderr
    (tmp_path / "empty.py").write_text("")
    done = subprocess.run([penstock_up, "up", "--dir", tmp_path, "--python", tmp_path / "empty.py"],
                          env=outside(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1 and "0 workers" in done.stderr, done
