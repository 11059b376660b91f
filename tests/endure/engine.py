"""An engine under test: `penstock up` in a folder, its processes, their memory, and their deaths."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

START_S = 120
ROLES = ("broker", "worker", "extract", "up")


class Engine:
    """`penstock up` on one folder; start() again after whatever became of it."""

    def __init__(self, folder, workers=1, options=()):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.endpoint = f"ipc://{self.dir}/clients"
        self.log = self.dir / "log"
        models = pathlib.Path(__file__).parents[2] / "examples" / "models"
        self.command = [os.path.join(os.environ["PENSTOCK_BIN"], "penstock"), "up", "--json",
                        "--dir", str(self.dir), "--workers", str(workers), "--models", str(models),
                        "--lease-ms", "3000", "--heartbeat-ms", "500", *options]
        self.process = None
        self.start()

    def start(self):
        """Until it is ready. A supervisor that was killed leaves children that still drain and
        hold the store's lock, so that a start may have to be repeated."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log)
            if json.loads(self.process.stdout.readline() or "{}"):
                return
            self.process.wait()
            time.sleep(0.5)
        raise RuntimeError(f"the engine does not start; {self.log} says why")

    def pids(self, role):
        """The processes of a role, found by name among those that this engine started."""
        if role == "up":
            return [self.process.pid] if self.process.poll() is None else []
        return [pid for pid, name in self._family() if name == f"penstock-{role}"[:15]]

    def _family(self):
        """(pid, name) of everything below the supervisor."""
        below, rows = {}, {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
            rows[int(text.split(" ", 1)[0])] = name
            below.setdefault(int(rest[1]), []).append(int(text.split(" ", 1)[0]))
        todo, found = [self.process.pid], []
        while todo:
            for pid in below.get(todo.pop(), ()):
                found.append((pid, rows[pid]))
                todo.append(pid)
        return found

    def memory(self, role):
        """Private resident bytes of a role's processes: what the store's map shows is not counted."""
        total = 0
        for pid in self.pids(role):
            try:
                fields = dict(line.split(":", 1) for line in
                              pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
            except OSError:
                continue
            total += int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
        return total

    def store_bytes(self):
        """What the store's files take on the disk."""
        return sum(f.stat().st_blocks * 512 for f in self.dir.rglob("*.mdb"))

    def kill(self, role, rng=random):
        """kill -9 one process of a role; False when there is none now."""
        pids = self.pids(role)
        if not pids:
            return False
        try:
            os.kill(rng.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        if role == "up":
            self.process.wait()
            self.start()
        return True

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
