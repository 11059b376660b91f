"""The kill loop in short: what `make crash` does for minutes."""
import pathlib
import re
import subprocess

ENDURE = pathlib.Path(__file__).parent / "endure.py"


def test_half_a_minute_of_kills_loses_nothing():
    done = subprocess.run(["/usr/bin/python3", str(ENDURE), "crash", "--minutes", "0.3", "--every", "2",
                           "--seed", "11"], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    total = done.stdout.splitlines()[-1]
    assert " 0 lost, 0 broken promises" in total
    assert int(re.search(r"(\d+) jobs accepted", total)[1]) > 0
    assert sum(int(n) for n in re.findall(r"(?:broker|worker|up) (\d+)", total)) > 0, total
