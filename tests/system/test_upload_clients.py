"""Long bodies through the clients: nobody who calls them sees that there are chunks."""
import asyncio
import ctypes
import os
import pathlib
import subprocess
import sys
import threading
import time

import msgpack
import pytest

import penstock
from penstock.crc import crc32c, plain
from real_broker import Broker, EchoWorker, Worker, echo
from uploads import MIB, large

INSPECT = """name: qc.inspect
kind: qc.inspect
stages:
  - {name: only, run: test.echo}
timeout_ms: 20000
"""
LONG = large(5 * MIB)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("b"), echo(), INSPECT) as broker:
        yield broker


def leased(broker, job):
    """The body of a job as a worker gets it; the job is done then."""
    with Worker(broker) as w:
        while True:
            lease, payload = w.lease()
            w.done(lease)
            if lease["job"] == job:
                return b"".join(payload[:lease.get("body_parts", 1)])


class Job(ctypes.Structure):
    """struct penstock_job of client/penstock.h."""

    STEP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    _fields_ = [("kind", ctypes.c_char_p), ("body", ctypes.c_char_p), ("body_bytes", ctypes.c_size_t),
                ("body_json", ctypes.c_char_p), ("pipeline", ctypes.c_char_p), ("key", ctypes.c_char_p),
                ("source", ctypes.c_char_p),
                ("has_priority", ctypes.c_bool), ("priority", ctypes.c_uint32),
                ("delay_ms", ctypes.c_uint64), ("ttl_ms", ctypes.c_uint64), ("has_seed", ctypes.c_bool),
                ("seed", ctypes.c_uint64), ("progress", STEP), ("progress_arg", ctypes.c_void_p)]


class InC:
    """The C library, as seen from Python."""

    library = None

    def __init__(self, endpoint):
        if InC.library is None:
            InC.library = ctypes.CDLL(str(pathlib.Path(os.environ["PENSTOCK_BIN"]).parent
                                          / "lib" / "libpenstock.so"))
        self.handle, self.err = ctypes.c_void_p(), ctypes.create_string_buffer(640)
        assert self.library.penstock_open(ctypes.byref(self.handle), endpoint.encode(), self.err, 640) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.penstock_close(self.handle)

    def submit(self, body, progress=None, key=None, timeout=30.0):
        job = Job(kind=b"text.embed", body=body, body_bytes=len(body), pipeline=b"echo",
                  key=key and key.encode(),
                  progress=Job.STEP((lambda _, have, n: progress(have, n) or 0) if progress else 0))
        accepted = ctypes.create_string_buffer(256)
        rc = self.library.penstock_submit(self.handle, ctypes.byref(job), accepted, int(timeout * 1000),
                                          self.err, 640)
        if rc != 0:
            raise penstock.Error(f"{rc}: {self.err.value.decode()}")
        return accepted.value.decode()


class InPython(penstock.Client):
    def submit(self, body, progress=None, key=None, timeout=30.0):
        return str(super().submit("text.embed", msgpack.unpackb(body), pipeline="echo", key=key,
                                  progress=progress, timeout=timeout))


in_c = pytest.mark.skipif("thread" in os.environ.get("SAN", ""),
                          reason="Python cannot load a library that needs the thread sanitizer")
both = pytest.mark.parametrize("make", [pytest.param(InC, marks=in_c), InPython])


def test_the_checksum_is_that_of_the_byte_by_byte_definition():
    assert crc32c(b"123456789") == 0xE3069283
    for size in (0, 1, 255, 256, 16383, 16384, 16385, 33000, 100001, 262144):
        data = os.urandom(size)
        assert crc32c(data) == plain(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


@both
@pytest.mark.parametrize("size", [MIB, MIB + 1, 2 * MIB, 16 * MIB])
def test_a_body_of_any_length_arrives_whole(shared, make, size):
    body, seen = large(size), []
    with make(shared.clients) as client:
        job = client.submit(body, lambda have, n: seen.append((have, n)))
    assert leased(shared, job) == body
    if size > MIB:
        assert seen == sorted(seen) and seen[-1] == (size, size) and len(seen) > size // MIB
    else:
        assert seen == []


@both
def test_a_body_beyond_the_limit_is_refused_without_a_broker(shared, make):
    with make(shared.clients) as client:
        with pytest.raises(penstock.Error, match="at most 16777216"):
            client.submit(large(16 * MIB + 1))


@both
def test_a_broker_that_is_killed_on_the_way_costs_one_chunk(tmp_path, make):
    with Broker(tmp_path) as broker, make(broker.clients) as client:
        seen, again = [], []

        def restart():
            time.sleep(0.3)
            broker.start()

        def progress(have, _):
            seen.append(have)
            if len(seen) in (2, 4):
                for thread in again:
                    thread.join()
                broker.kill()
                again.append(threading.Thread(target=restart))
                again[-1].start()

        job = client.submit(LONG, progress, timeout=60)
        for thread in again:
            thread.join()
        assert len(again) == 2 and seen == sorted(seen) and len(set(seen)) == len(seen)
        assert leased(broker, job) == LONG


@both
def test_a_key_goes_on_where_a_killed_client_ended(shared, make, tmp_path):
    key = f"killed-{make.__name__}"
    (tmp_path / "body").write_bytes(LONG)
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from test_upload_clients import {make.__name__}
def progress(have, n):
    if have > n // 2:
        os.kill(os.getpid(), signal.SIGKILL)
with {make.__name__}({shared.clients!r}) as client:
    client.submit(open({str(tmp_path / "body")!r}, "rb").read(), progress, key={key!r})
"""
    dead = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert dead.returncode == -9, dead.stderr
    seen = []
    with make(shared.clients) as client:
        job = client.submit(LONG, lambda have, _: seen.append(have), key=key)
        assert seen[0] > len(LONG) // 2
        assert client.submit(LONG, key=key) == job
    assert leased(shared, job) == LONG


@both
def test_a_refused_body_leaves_no_upload_behind(shared, make):
    with make(shared.clients) as client:
        for _ in range(20):  # a client may have 16 open
            with pytest.raises(penstock.Error, match="missing"):
                client.submit(msgpack.packb({"other": b"x" * MIB * 2}))


@in_c
def test_a_callback_that_says_so_ends_the_upload(shared):
    with InC(shared.clients) as client:
        with pytest.raises(penstock.Error, match="-7"):
            client.submit(LONG, lambda have, _: have > 0)


def test_the_asyncio_client_uploads_several_at_once(shared):
    bodies = [{"texts": [c * 700000, c * 700000]} for c in "abc"]

    async def main():
        async with penstock.AsyncClient(shared.clients, timeout=30) as client:
            return await asyncio.gather(*(client.submit("text.embed", b, pipeline="echo") for b in bodies))

    jobs = {str(a): b for a, b in zip(asyncio.run(main()), bodies)}
    with Worker(shared) as w:
        for _ in jobs:
            lease, payload = w.lease()
            w.done(lease)
            assert msgpack.unpackb(b"".join(payload)) == jobs[lease["job"]]


def test_many_jobs_may_have_long_bodies_among_them(shared):
    jobs = [penstock.Submission("text.embed", {"texts": ["x" * n]}, pipeline="echo")
            for n in (10, 700000, 20)]
    jobs.insert(1, penstock.Submission("text.embed", {"texts": ["y" * 700000] * 4}, pipeline="echo"))
    with penstock.Client(shared.clients) as client, EchoWorker(shared):
        accepted = client.submit_many(jobs)
        assert all(result.done for result in client.gather(accepted, timeout=30))


def test_the_command_line_submits_a_large_image(shared, tmp_path):
    image = os.urandom(10 * MIB)
    (tmp_path / "part.png").write_bytes(image)
    command = [os.path.join(os.environ["PENSTOCK_BIN"], "penstock"), "submit", "qc.inspect", "--set",
               f"image=@{tmp_path}/part.png", "--set", "recipe=r", "--set", "part_id=P-1", "--json"]
    out = subprocess.run(command, env=dict(os.environ, PENSTOCK_ENDPOINT=shared.clients),
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    with Worker(shared) as w:
        lease, payload = w.lease()
        assert lease["kind"] == "qc.inspect" and lease["body_parts"] == 11
        assert msgpack.unpackb(b"".join(payload))["image"] == image
        w.done(lease)


def test_a_folder_of_large_files_is_submitted(shared, tmp_path):
    files = {f"{i}.pdf": b"%PDF-" + os.urandom(2 * MIB) for i in range(3)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [os.path.join(os.environ["PENSTOCK_BIN"], "penstock"), "submit", "contract.analyze",
               "--pipeline", "contract", "--json", *(str(tmp_path / name) for name in files)]
    text = "name: contract\nkind: contract.analyze\nstages:\n  - {name: only, run: test.echo}\n"
    folder = tmp_path / "b"
    folder.mkdir()
    with Broker(folder, text) as broker:
        out = subprocess.Popen(command, env=dict(os.environ, PENSTOCK_ENDPOINT=broker.clients),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with Worker(broker) as w:
            got = set()
            for _ in files:
                lease, payload = w.lease()
                got.add(msgpack.unpackb(b"".join(payload))["document"])
                w.done(lease)
        stdout, stderr = out.communicate(timeout=60)
    assert got == set(files.values()), stderr
    assert out.returncode == 0, stdout + stderr
