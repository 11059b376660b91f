"""python3 -m penstock.worker FILE: runs the stages that a file registers.

The file makes a penstock.Worker and registers stages with it; options given here count more than what
it says. Stops on SIGTERM and Ctrl-C: what runs is ended first.
"""
from __future__ import annotations

import argparse
import runpy
import sys

from ..errors import Error
from . import Worker
from .log import FORMATS, LEVELS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m penstock.worker", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="a Python file with a penstock.Worker in it")
    parser.add_argument("--endpoint", "--connect", "-c", metavar="URL",
                        help="the broker's socket for workers (default: this user's)")
    parser.add_argument("--name", help="the worker's name, for people")
    parser.add_argument("--processes", type=int, metavar="N",
                        help="run stages in N child processes; 0: in a thread")
    parser.add_argument("--credit", type=int, metavar="N", help="leases to hold at a time")
    parser.add_argument("--log-level", choices=LEVELS)
    parser.add_argument("--log-format", choices=FORMATS)
    given = vars(parser.parse_args())
    try:
        workers = {id(value): value for value in runpy.run_path(given.pop("file")).values()
                   if isinstance(value, Worker)}
        if len(workers) != 1:
            parser.error(f"the file has {len(workers)} workers; one penstock.Worker is needed")
        worker, = workers.values()
        for name, value in given.items():
            if value is not None:
                setattr(worker, name, value)
        return worker.run()
    except (Error, OSError) as error:
        print(f"penstock.worker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
