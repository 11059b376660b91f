"""Stages for tests of the worker in Python; the first text of a job says what they do, as JSON."""
import json
import os
import signal
import time

import penstock

worker = penstock.Worker("tested")


def wish(job):
    return json.loads(job.body["texts"][0])


def snooze(job, seconds):
    """Ends early when the job is cancelled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job.check()
        time.sleep(0.01)


@worker.stage("py.do", version="7")
def do(job):
    w = wish(job)
    if w.get("log"):  # a ledger of attempts, by process
        with open(w["log"], "a", encoding="ascii") as out:
            out.write(f"{job.id} {job.attempt} {os.getpid()}\n")
    for i in range(w.get("steps", 0)):
        job.progress(i + 1, f"step {i + 1}", total=w["steps"])
    snooze(job, w.get("sleep", 0))
    time.sleep(w.get("block", 0))
    again = not (w.get("once") and os.path.exists(w["once"]))
    if w.get("once"):
        open(w["once"], "w", encoding="ascii").close()
    if again and "transient" in w:
        raise penstock.StageError(w["transient"], transient=True)
    if "permanent" in w:
        raise penstock.StageError(w["permanent"])
    if "divide" in w:
        w["divide"] / 0
    if again and "refused" in w:
        raise ConnectionRefusedError(w["refused"])
    if again and "signal" in w:
        os.kill(os.getpid(), w["signal"])
    if "exit" in w:
        os._exit(w["exit"])
    if "return" in w:
        return {"odd": object()} if w["return"] == "object" else w["return"]
    return {"did": w, "input": job.input, "pid": os.getpid(), "stage": job.stage, "seed": job.seed,
            "big": "x" * w.get("big", 0)}


@worker.stage("py.next")
def follow(job):
    return {"after": job.input["did"], "bytes": len(job.input["big"]), "stage": job.stage}


@worker.stage("py.batch", batch=8)
def batch(jobs):
    time.sleep(0.2)
    return [ValueError("a bad one") if "bad" in wish(job) else {"batch": len(jobs)} for job in jobs]


@worker.stage("py.deaf")
def deaf(job):
    signal.pthread_sigmask(signal.SIG_BLOCK, ())
    time.sleep(wish(job)["block"])
    return {"deaf": True}
