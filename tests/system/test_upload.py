"""Bodies of more than a frame: uploaded in chunks, resumed, refused, given up, submitted."""
import subprocess
import time

import msgpack
import pytest

from real_broker import (ACCEPTED, CANCEL, LIST, REFUSED, SUBMIT, Broker, Client, EchoWorker, Worker,
                         body, echo)
from uploads import (MIB, UPLOAD_BEGIN, UPLOAD_CHUNK, UPLOAD_DROP, UPLOAD_GET, UPLOAD_STATE, Upload,
                     crc32c, large)

BODY = large(3 * MIB + 12345)
BODY_CRC = crc32c(BODY)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("b"), echo(), echo("narrow", queue_max=1)) as broker:
        yield broker


@pytest.fixture
def client(shared):
    """Whose jobs are gone when its test is over."""
    with Client(shared) as c:
        yield c
        for job in c.ask(LIST, {"state": "ready", "limit": 500})[1]["jobs"]:
            c.ask(CANCEL, {"job": job["job"]})


@pytest.fixture
def upload(client):
    return Upload(client, BODY, crc=BODY_CRC)


def check_store(broker):
    """The store of a broker that is not running is sound."""
    out = subprocess.run([broker.command[0], "store", "check", "--dir", str(broker.dir)],
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stdout + out.stderr


# ---- the way of an upload ----

def test_a_body_of_many_chunks_reaches_the_worker_whole(shared, client, upload):
    job = upload.begin().send().submit()["job"]
    with Worker(shared) as w:
        lease, payload = w.lease()
        assert lease["job"] == job and lease["body_parts"] == len(payload) == 4
        assert all(len(part) <= MIB for part in payload) and b"".join(payload) == BODY
        w.done(lease)
    assert client.wait(job)[0]["state"] == "done"
    assert client.show(job)["body_bytes"] == len(BODY)


@pytest.mark.parametrize("size", [1, 1024, 69584, 69585, 1043760, 1043761, 2 * 1043760, 16 * MIB])
def test_sizes_around_every_edge_come_back_equal(shared, client, size):
    data = large(size) if size > 100 else b"\x80"
    up = Upload(client, data).begin().send()
    if size == 1:  # an empty map: whole, but no body of this kind
        assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo",
                                       "upload": up.name})["code"] == "missing"
        return
    job = up.submit()["job"]
    with Worker(shared) as w:
        lease, payload = w.lease()
        assert b"".join(payload) == data
        w.done(lease)
    client.wait(job)


def test_chunks_may_be_sent_ahead_of_the_answers(client, upload):
    upload.begin()
    offsets = range(0, len(BODY), upload.chunk_bytes)
    reqs = [client.send(UPLOAD_CHUNK, *upload.chunk(at)) for at in offsets]
    have = [client.answer(req)[1]["have"] for req in reqs]
    assert have == [min(at + upload.chunk_bytes, len(BODY)) for at in offsets]
    upload.submit()


def test_two_clients_upload_at_once_and_neither_disturbs_the_other(shared, client):
    data = [large(2 * MIB, fill) for fill in "ab"]
    with Client(shared) as other:
        ups = [Upload(client, data[0]).begin(), Upload(other, data[1]).begin()]
        while any(u.have < 2 * MIB for u in ups):
            for u in ups:
                if u.have < 2 * MIB:
                    u.step()
        jobs = {u.submit()["job"]: u.data for u in ups}
    with Worker(shared) as w:
        for _ in jobs:
            lease, payload = w.lease()
            assert b"".join(payload) == jobs[lease["job"]]
            w.done(lease)


def test_a_later_stage_gets_body_and_input_apart(tmp_path):
    chain = echo("echo").replace("  - {name: only, run: test.echo}",
                                 "  - {name: a, run: test.a}\n  - {name: b, run: test.b}")
    output = [msgpack.packb({"d": b"i" * (MIB + 7)})[at:at + MIB] for at in (0, MIB)]
    with Broker(tmp_path, chain) as broker, Client(broker) as client, \
            Worker(broker, "test.a") as a, Worker(broker, "test.b") as b:
        Upload(client, BODY, crc=BODY_CRC).begin().send().submit()
        lease, _ = a.lease()
        a.done(lease, output)
        lease, payload = b.lease()
        n = lease["body_parts"]
        assert b"".join(payload[:n]) == BODY and payload[n:] == output
        b.done(lease)


# ---- what goes wrong ----

def test_a_bad_checksum_is_refused_and_the_chunks_before_it_stay(client, upload):
    upload.begin().send(upload.chunk_bytes)
    header, data = upload.chunk(upload.have)
    refusal = client.refused(UPLOAD_CHUNK, dict(header, crc=header["crc"] ^ 1), data)
    assert refusal["code"] == "checksum" and str(upload.have) in refusal["message"]
    assert client.refused(UPLOAD_CHUNK, header, data[:-1] + b"?")["code"] == "checksum"
    assert upload.get()["have"] == upload.chunk_bytes
    upload.send().submit()


def test_a_chunk_at_another_offset_is_answered_with_what_is_there(client, upload):
    upload.begin().send(upload.chunk_bytes)
    for offset in (0, 1, upload.chunk_bytes - 1, 2 * upload.chunk_bytes, len(BODY)):
        header, data = upload.chunk(min(offset, len(BODY) - upload.chunk_bytes))
        code, h, _ = client.ask(UPLOAD_CHUNK, dict(header, offset=offset), data)
        assert (code, h["have"], h["bytes"]) == (UPLOAD_STATE, upload.chunk_bytes, len(BODY))
    upload.send().submit()


@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_a_chunk_of_another_length_is_refused(client, upload, cut):
    upload.begin()
    data = BODY[:cut]
    refusal = client.refused(UPLOAD_CHUNK, {"upload": upload.name, "offset": 0, "crc": crc32c(data)}, data)
    assert refusal["code"] == "limit" and str(upload.chunk_bytes) in refusal["limit"]
    client.ask(UPLOAD_DROP, {"upload": upload.name})


def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(client):
    refusal = client.refused(UPLOAD_BEGIN, {"bytes": 16 * MIB + 1, "crc": 0})
    assert refusal["code"] == "limit" and refusal["field"] == "bytes"
    assert client.refused(UPLOAD_BEGIN, {"bytes": 0, "crc": 0})["field"] == "bytes"


def test_an_upload_that_is_not_whole_cannot_be_submitted(client, upload):
    upload.begin().send(upload.chunk_bytes)
    refusal = client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "upload": upload.name})
    assert refusal["field"] == "upload" and str(len(BODY)) in refusal["message"]
    upload.send().submit()


def test_a_whole_that_has_not_its_checksum_is_refused(client):
    up = Upload(client, BODY, crc=BODY_CRC ^ 5).begin().send()
    assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo",
                                   "upload": up.name})["code"] == "checksum"
    client.ask(UPLOAD_DROP, {"upload": up.name})


@pytest.mark.parametrize("data, code", [(b"\xc1" * (2 * MIB), "malformed"),
                                        (msgpack.packb({"texts": ["x" * (2 * MIB)]}), "limit"),
                                        (msgpack.packb({"texts": 1, "pad": b"x" * 2 * MIB}), "type")])
def test_a_body_that_the_kind_refuses_is_refused_and_the_upload_is_still_there(client, data, code):
    up = Upload(client, data).begin().send()
    assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo",
                                   "upload": up.name})["code"] == code
    assert up.get()["have"] == len(data)
    client.ask(UPLOAD_DROP, {"upload": up.name})


def test_a_job_has_one_body(client, upload):
    upload.begin().send()
    fields = {"kind": "text.embed", "pipeline": "echo"}
    for header, payload in ((fields, []), (dict(fields, upload=upload.name), [body()])):
        assert client.refused(SUBMIT, header, *payload)["code"] == "frames"
    upload.submit()


def test_an_upload_that_was_submitted_takes_no_more(client, upload):
    job = upload.begin().send().submit()["job"]
    header, data = upload.chunk(0)
    assert client.refused(UPLOAD_CHUNK, header, data)["code"] == "unknown_upload"
    assert client.refused(UPLOAD_GET, {"upload": upload.name})["code"] == "unknown_upload"
    code, h, _ = client.ask(UPLOAD_DROP, {"upload": upload.name})
    assert (code, h["bytes"]) == (UPLOAD_STATE, 0)
    assert client.show(job)["body_bytes"] == len(BODY)


# ---- once, and only for those who know ----

def test_a_submit_that_is_repeated_finds_its_job(shared, client, upload):
    first = upload.begin().send().submit()
    assert not first.get("existing")
    reqs = [client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "upload": upload.name})
            for _ in range(3)]
    for req in reqs:
        code, h, _ = client.answer(req)
        assert (code, h["job"], h["existing"]) == (ACCEPTED, first["job"], True)
    with EchoWorker(shared):
        client.wait(first["job"])
    again = upload.submit()
    assert (again["job"], again["state"], again["seed"]) == (first["job"], "done", first["seed"])


def test_submits_sent_together_make_one_job(client, upload):
    upload.begin().send()
    header = {"kind": "text.embed", "pipeline": "echo", "upload": upload.name}
    answers = [client.answer(req) for req in [client.send(SUBMIT, header) for _ in range(5)]]
    assert {(code, h["job"]) for code, h, _ in answers} == {(ACCEPTED, answers[0][1]["job"])}
    assert [h.get("existing", False) for _, h, _ in answers].count(False) == 1


def test_the_key_of_a_known_job_ends_the_upload(client):
    ups = [Upload(client, BODY, crc=BODY_CRC).begin().send() for _ in range(3)]
    first = ups[0].submit(key="up-1")
    again = ups[1].submit(key="up-1")
    assert again["existing"] and again["job"] == first["job"]
    assert client.refused(UPLOAD_GET, {"upload": ups[1].name})["code"] == "unknown_upload"
    header = {"kind": "text.embed", "pipeline": "echo", "upload": ups[2].name, "key": "up-2"}
    assert client.ask(SUBMIT, header, )[1]["job"] not in (first["job"], again["job"])
    other = Upload(client, large(2 * MIB)).begin().send()
    assert client.refused(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "key": "up-1",
                                   "upload": other.name})["code"] == "key_conflict"


def test_nobody_reaches_an_upload_without_its_name(shared, client, upload):
    upload.begin().send(upload.chunk_bytes)
    name = upload.name
    guesses = ["", "x", name[:-1], name[:13] + "0" * 13, name[:13] + name[:13], name[13:] + name[:13],
               name[:25] + ("1" if name[25] != "1" else "2"), "0" * 26, "é" * 13]
    with Client(shared) as stranger:
        for guess in guesses:
            header, data = upload.chunk(upload.have)
            for code, h, payload in ((UPLOAD_CHUNK, dict(header, upload=guess), [data]),
                                     (UPLOAD_GET, {"upload": guess}, []),
                                     (UPLOAD_DROP, {"upload": guess}, [])):
                assert stranger.refused(code, h, *payload)["code"] in ("unknown_upload", "limit")
            h = {"kind": "text.embed", "pipeline": "echo", "upload": guess}
            assert stranger.refused(SUBMIT, h)["code"] in ("unknown_upload", "frames")
        other = Upload(stranger, BODY, crc=BODY_CRC).begin()
        assert other.name != name and other.have == 0
    assert upload.get()["have"] == upload.chunk_bytes
    upload.send().submit()


def test_whoever_knows_the_name_may_go_on_with_it(shared, client, upload):
    upload.begin().send(upload.chunk_bytes)
    with Client(shared) as heir:
        Upload(heir, BODY, name=upload.name, crc=BODY_CRC).get()
        taken = Upload(heir, BODY, name=upload.name, crc=BODY_CRC)
        taken.get()
        taken.send().submit()


def test_a_key_finds_the_upload_of_a_client_that_died(shared, client):
    with Client(shared) as dies:
        first = Upload(dies, BODY, key="scan-1", crc=BODY_CRC).begin().send(1)
        assert first.have > 0
    again = Upload(client, BODY, key="scan-1", crc=BODY_CRC).begin()
    assert (again.name, again.have) == (first.name, first.have)
    other = Upload(client, large(2 * MIB), key="scan-1").begin()
    assert other.name != first.name
    again.send().submit()
    client.ask(UPLOAD_DROP, {"upload": other.name})


# ---- bounds ----

def test_open_uploads_are_bounded_for_a_client_and_dropping_one_makes_room(client):
    ups = [Upload(client, BODY, crc=BODY_CRC).begin() for _ in range(16)]
    assert client.stats()["uploads"] >= 16
    assert client.stats()["upload_bytes_missing"] >= 16 * len(BODY)
    refusal = client.refused(UPLOAD_BEGIN, {"bytes": 2 * MIB, "crc": 1})
    assert refusal["code"] == "full" and "16" in refusal["limit"] and refusal["retry_after_ms"] > 0
    assert ups[0].state(UPLOAD_DROP, {"upload": ups[0].name})["bytes"] == 0
    assert ups[0].state(UPLOAD_DROP, {"upload": ups[0].name})["bytes"] == 0
    ups[0].begin()
    for up in ups:
        client.ask(UPLOAD_DROP, {"upload": up.name})


def test_uploads_count_against_the_room_of_the_store(tmp_path):
    with Broker(tmp_path, echo(), extra=["--blob-cap", str(64 * MIB)]) as broker, Client(broker) as client:
        ups = []
        while (got := client.ask(UPLOAD_BEGIN, {"bytes": 16 * MIB, "crc": 1}))[0] == UPLOAD_STATE:
            ups.append(got[1]["upload"])
        assert len(ups) == 3 and got[1]["code"] == "full" and "80 %" in got[1]["limit"]
        client.ask(UPLOAD_DROP, {"upload": ups[0]})
        assert client.ask(UPLOAD_BEGIN, {"bytes": 16 * MIB, "crc": 1})[0] == UPLOAD_STATE


def test_an_idle_upload_expires_and_gives_its_space_back(tmp_path):
    extra = ["--upload-ttl-ms", "2000", "--blob-cap", str(24 * MIB)]
    with Broker(tmp_path, echo(), extra=extra) as broker, Client(broker) as client:
        empty = client.stats()["store_bytes"]
        data = large(8 * MIB)
        for _ in range(4):  # 32 MiB in all, into a store that takes 19
            up = Upload(client, data, crc=1).begin()
            offset = 0
            header, chunk = up.chunk(0)
            while up.have < len(data):
                if up.have != offset:
                    offset = up.have
                    header, chunk = up.chunk(offset)
                up.state(UPLOAD_CHUNK, header, chunk)
            deadline = time.monotonic() + 20
            while client.ask(UPLOAD_GET, {"upload": up.name})[0] != REFUSED:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        client.submit()
        client.submit()
        assert client.stats()["store_bytes"] < empty + 2 * MIB


# ---- crashes ----

def test_an_upload_goes_on_where_it_was_after_kill_9_of_the_broker(tmp_path):
    data = large(10 * MIB)
    with Broker(tmp_path) as broker, Client(broker) as client:
        up = Upload(client, data).begin()
        while up.have < len(data):
            up.step()
            have = up.have
            if have // up.chunk_bytes in (1, 4, 5) or have == len(data):
                broker.kill()
                broker.start()
                up.get()
                assert up.have == have, "what was answered is on disk"
        job = up.submit()["job"]
        broker.kill()
        check_store(broker)
        broker.start()
        assert up.submit()["job"] == job
        with Worker(broker) as w:
            lease, payload = w.lease()
            assert lease["job"] == job and b"".join(payload) == data
            w.done(lease)
        client.wait(job)


def test_kill_9_with_chunks_and_the_submit_on_their_way_loses_nothing_that_was_answered(tmp_path):
    with Broker(tmp_path) as broker, Client(broker) as client:
        for round_ in range(6):
            up = Upload(client, BODY, crc=BODY_CRC, key=f"r-{round_}").begin()
            for at in range(0, len(BODY), up.chunk_bytes):
                client.send(UPLOAD_CHUNK, *up.chunk(at))
            client.send(SUBMIT, {"kind": "text.embed", "pipeline": "echo", "upload": up.name,
                                 "key": f"j-{round_}"})
            time.sleep(0.004 * round_)
            broker.kill()
            answered, accepted = 0, None
            while (got := client.receive(0.2)):
                answered = max(answered, got[1].get("have", 0))
                accepted = got[1]["job"] if got[0] == ACCEPTED else accepted
            broker.start()
            with Client(broker) as fresh:
                up.client = fresh
                if fresh.ask(UPLOAD_GET, {"upload": up.name})[0] == UPLOAD_STATE:
                    assert accepted is None
                    up.get()
                    assert up.have >= answered
                    up.send()
                job = up.submit(key=f"j-{round_}")["job"]
                assert accepted in (None, job)
        with Worker(broker) as w:
            for _ in range(6):
                lease, payload = w.lease()
                assert b"".join(payload) == BODY
                w.done(lease)


def test_dropped_and_expired_uploads_leave_a_sound_store(tmp_path):
    with Broker(tmp_path, echo(), extra=["--upload-ttl-ms", "60000"]) as broker, Client(broker) as client:
        kept, gone = (Upload(client, BODY, crc=BODY_CRC).begin().send(1) for _ in range(2))
        client.ask(UPLOAD_DROP, {"upload": gone.name})
        broker.kill()
        broker.start()
        with Client(broker) as fresh:
            assert fresh.refused(UPLOAD_GET, {"upload": gone.name})["code"] == "unknown_upload"
            kept.client = fresh
            assert kept.get()["have"] == kept.chunk_bytes
            kept.send().submit()
        broker.stop()
        check_store(broker)
        broker.start()
