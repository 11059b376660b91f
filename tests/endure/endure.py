#!/usr/bin/python3
"""Load an engine for minutes, or for so many jobs, while its processes are killed, and account for
every job.

usage: endure.py crash [--minutes N] [--seed N]      kill -9 of anything, at random
       endure.py soak  [--minutes N]                 no kills, 70 % of what the engine can do:
                                                     memory and files stay flat
       endure.py mixed --jobs contract=2000,qc=2000  a given number of jobs of each kind
                       [--kill broker,worker,extract]

The ledger is the client's own: a key for each job, the id that ACCEPTED named, the result that came.
At the end each accepted job must be terminal, no key may have two jobs, and equal inputs must have
equal results. The last line is the total; the exit code is 1 when a promise was broken.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "client" / "python"), str(pathlib.Path(__file__).parent)]

import penstock  # noqa: E402
from engine import Engine, ROLES  # noqa: E402

SETTLE_S = 180     # for the last jobs to end after the load has stopped
FLAT = 0.05        # of memory and files between the third quarter of a run and the last
FLAT_MIN_S = 240   # a shorter run is still warming up
SHARE = 0.7        # of the greatest load, a soak's
MEASURE_S = 20     # for what that is
STEP = 4 << 20     # bytes that the store's files grow by; within one step is no trend
RETAIN_S = 30      # a soak's ended jobs stay in the store: what comes and what goes are in balance


def samples():
    """{name: [(kind, body)...]}: what users send, from the examples."""
    examples = ROOT / "examples"
    documents = sorted(examples.glob("contract-*.pdf"))
    bodies = {
        "contract": [("contract.analyze", {"document": path.read_bytes()}) for path in documents] or
                    [("contract.analyze", {"text": path.read_text(encoding="utf-8")})
                     for path in sorted(examples.glob("contract-*.txt"))],
        "qc": [("qc.inspect", {"image": (examples / "qc" / f"part-{state}.png").read_bytes(),
                               "log": (examples / "qc" / f"part-{state}.log").read_bytes(),
                               "recipe": "board-a", "part_id": f"P-{state}", "meas_id": f"M-{state}"})
               for state in ("ok", "ng")],
        "embed": [("text.embed", {"texts": [line]}) for line in
                  (examples / "sentences.txt").read_text(encoding="utf-8").splitlines() if line],
        "generate": [("text.generate", {"prompt": prompt, "max_tokens": 24, "temperature": 0.8})
                     for prompt in ("The press on line two", "The pump is loud and")],
    }
    model = penstock_models() / "all-MiniLM-L6-v2"
    return bodies if model.is_dir() else {"generate": bodies["generate"]}


def penstock_models():
    cache = os.environ.get("PENSTOCK_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "penstock")
    return pathlib.Path(cache) / "models"


class Ledger:
    """What the client knows: key -> job, and how it ended."""

    def __init__(self):
        self.lock = threading.Lock()
        self.jobs, self.states, self.broken = {}, {}, []
        self.digests = {}  # of results, by input

    def accepted(self, key, job):
        with self.lock:
            if self.jobs.setdefault(key, job) != job:
                self.broken.append(f"key {key} has two jobs, {self.jobs[key]} and {job}")

    def ended(self, job, what, result):
        digest = None
        if result.done:
            value = {name: v for name, v in result.value.items() if name not in ("ResultId",)}
            digest = hashlib.blake2b(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
        with self.lock:
            if result.state == "failed" and job not in self.states:
                print(f"  job {job} ({what}) failed, {result.error_class}: {result.reason}", flush=True)
            if self.states.setdefault(job, result.state) != result.state:
                self.broken.append(f"job {job} was {self.states[job]} and is {result.state}")
            if digest and self.digests.setdefault(what, digest) != digest:
                self.broken.append(f"job {job}: the input {what} had another result before")

    def line(self):
        with self.lock:
            ends = list(self.states.values())
        counts = ", ".join(f"{ends.count(s)} {s}" for s in sorted(set(ends)))
        return f"{len(self.jobs)} jobs accepted, {len(ends)} ended ({counts})"


class Load:
    """Threads that submit a job, wait for its end and take the next, until told to stop. A rate, once
    it is set, is jobs a second of all of them; else each takes the next job at once."""

    def __init__(self, engine, ledger, inputs, quota, threads):
        self.engine, self.ledger, self.inputs = engine, ledger, inputs
        self.rate, self.due = 0.0, 0.0
        self.left = dict(quota)  # of each kind; empty: no end
        self.ends, self.lock, self.n = threading.Event(), threading.Lock(), 0
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]
        for t in self.threads:
            t.start()

    def _next(self, rng):
        with self.lock:
            names = [n for n in self.inputs if not self.left or self.left.get(n, 0) > 0]
            if not names:
                return None
            name = rng.choice(names)
            if self.left:
                self.left[name] -= 1
            self.n += 1
            i = rng.randrange(len(self.inputs[name]))
            return f"{self.n}", f"{name}-{i}", self.inputs[name][i]

    def _run(self, number):
        rng = random.Random(number)
        with penstock.Client(self.engine.endpoint) as client:
            while not self.ends.wait(self._pause_s()) and (job := self._next(rng)):
                self._one(client, *job)

    def _pause_s(self):
        """Until this thread may send the next job. Who is late by more than a second forgets it."""
        if not self.rate:
            return 0.0
        with self.lock:
            now = time.monotonic()
            self.due = max(self.due + 1 / self.rate, now - 1)
            return max(0.0, self.due - now)

    def _one(self, client, key, what, job):
        kind, body = job
        accepted = self._insist(lambda: client.submit(kind, body, key=key, seed=7, timeout=5))
        self.ledger.accepted(key, str(accepted.job))
        result = self._insist(lambda: client.wait(accepted.job, 30))
        self.ledger.ended(str(accepted.job), what, result)

    def _insist(self, ask):
        """Until there is an answer: an engine that was killed comes back, a full one has room again."""
        end = time.monotonic() + SETTLE_S
        while True:
            try:
                return ask()
            except (penstock.Unreachable, penstock.Timeout):
                pass
            except penstock.Refused as error:
                if not error.retry_after_ms:
                    raise
                time.sleep(error.retry_after_ms / 1000)
            if time.monotonic() > end:
                raise TimeoutError(f"no answer in {SETTLE_S} s")

    def measure(self, seconds):
        """The greatest rate, for so long; from then on SHARE of it."""
        before = len(self.ledger.states)
        time.sleep(seconds)
        self.due = time.monotonic()
        self.rate = SHARE * max(1, len(self.ledger.states) - before) / seconds

    def running(self):
        return any(t.is_alive() for t in self.threads)

    def stop(self):
        self.ends.set()
        end = time.monotonic() + 2 * SETTLE_S
        for t in self.threads:
            t.join(max(0.0, end - time.monotonic()))
        if self.running():
            self.ledger.broken.append("some jobs have not ended")


def audit(engine, ledger, retained):
    """The broker's own account against the ledger; unless all ended jobs are retained, those whose end
    the client has seen may be gone."""
    with penstock.Client(engine.endpoint) as client:
        known = {str(row.job): row.state for row in client.list()}
    for key, job in ledger.jobs.items():
        state = known.get(job)
        if state is None and not retained and job in ledger.states:
            continue
        if state is None:
            ledger.broken.append(f"job {job} (key {key}) is lost")
        elif state not in ("done", "failed", "cancelled", "expired"):
            ledger.broken.append(f"job {job} is {state}, not terminal")
        elif ledger.states.get(job, state) != state:
            ledger.broken.append(f"job {job} ended {ledger.states[job]}, the broker says {state}")
    extra = len(known) - len(ledger.jobs)
    if extra > 0:
        ledger.broken.append(f"{extra} jobs that no key asked for")


def drift(series, step=0):
    """How much the last quarter differs from the third, as a share. The first half is warming up:
    a broker that works with 7 MiB needs half a MiB more until its heaps have their final form."""
    n = len(series)
    if n < 8:
        return 0.0
    half, quarter = n // 2, 3 * n // 4
    early, late = statistics.median(series[half:quarter]), statistics.median(series[quarter:])
    return late / early - 1 if early and (not step or abs(late - early) > step) else 0.0


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    p.add_argument("mode", choices=("crash", "soak", "mixed"))
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--jobs", default="", help="mixed: contract=N,qc=N,embed=N,generate=N")
    p.add_argument("--kill", default="", help="mixed: roles to kill, of " + ",".join(ROLES))
    p.add_argument("--every", type=float, default=3, help="seconds between kills, on average")
    p.add_argument("--threads", type=int, default=16, help="jobs in flight")
    p.add_argument("--workers", type=int, default=2)
    a = p.parse_args()
    a.quota = {n: int(v) for n, v in (pair.split("=") for pair in a.jobs.split(",") if pair)}
    a.roles = ROLES if a.mode == "crash" else tuple(r for r in a.kill.split(",") if r)
    if not set(a.roles) <= set(ROLES) or (a.mode == "mixed") != bool(a.quota):
        p.error("mixed needs --jobs; --kill takes " + ",".join(ROLES))
    return a


def endure(a, folder):
    rng, ledger, inputs = random.Random(a.seed), Ledger(), samples()
    if a.quota and not set(a.quota) <= set(inputs):
        print(f"{a.mode}: all-MiniLM-L6-v2 is not there; `make run` fetches it")
        return 1
    soak = a.mode == "soak"
    retain = ("--retain-ms", str(RETAIN_S * 1000), "--retain-failed-ms", str(RETAIN_S * 1000))
    engine = Engine(folder / "engine", a.workers, retain if soak else ())
    load = Load(engine, ledger, inputs, a.quota, a.threads)
    if soak:
        time.sleep(MEASURE_S / 2)  # models are being loaded
        load.measure(MEASURE_S)
    began, kills = time.monotonic(), dict.fromkeys(a.roles, 0)
    end = began + a.minutes * 60 if not a.quota else float("inf")
    sizes = {"broker": [], "worker": [], "store": []}
    next_kill, next_line = began + 2, began + 30
    while load.running() and time.monotonic() < end:
        time.sleep(0.2)
        now = time.monotonic()
        for what, series in sizes.items():
            series.append(engine.store_bytes() if what == "store" else engine.memory(what))
        if a.roles and now >= next_kill:
            role = rng.choice(a.roles)
            kills[role] += engine.kill(role, rng)
            next_kill = now + rng.random() * 2 * a.every
        if now >= next_line:
            next_line = now + 30
            print(f"{now - began:6.0f} s  {ledger.line()}; MiB " +
                  ", ".join(f"{w} {s[-1] / 2**20:.1f}" for w, s in sizes.items()), flush=True)
    load.stop()
    minutes = (time.monotonic() - began) / 60
    audit(engine, ledger, retained=not soak)
    if not soak:
        del sizes["store"]  # without retention it has to grow
    drifts = {what: drift(series, STEP if what == "store" else 0) for what, series in sizes.items()}
    if not a.roles and minutes * 60 >= FLAT_MIN_S:
        for what, share in drifts.items():
            if share > FLAT:
                ledger.broken.append(f"the {what} grew by {share:.1%}")
    engine.stop()
    for line in ledger.broken[:20]:
        print("  " + line)
    killed = ", ".join(f"{r} {n}" for r, n in kills.items()) or "none"
    drifted = ", ".join(f"{w} {share:+.1%}" for w, share in drifts.items())
    pace = f"{load.rate:.1f} jobs/s, {SHARE:.0%} of the greatest; " if soak else ""
    lost = sum("lost" in b or "not terminal" in b for b in ledger.broken)
    print(f"{a.mode}: {minutes:.1f} min, seed {a.seed}, {pace}{ledger.line()}; killed: {killed}; "
          f"memory and files: {drifted}; {lost} lost, {len(ledger.broken)} broken promises")
    return 1 if ledger.broken or not ledger.jobs else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        sys.exit(endure(arguments(), pathlib.Path(scratch)))
