"""Documents, images and logs as the world sends them, through a whole engine: spans that stand in
their boxes, and hostile files that each end with a reason while the worker lives and the next job is
unharmed."""
import base64
import os
import pathlib
import random
import signal
import struct
import subprocess
import time
import zlib

import penstock
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ["PENSTOCK_BIN"]) / "penstock"
CACHE = pathlib.Path(os.environ.get("PENSTOCK_CACHE") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "penstock")
MODEL = CACHE / "models/all-MiniLM-L6-v2"
pytestmark = pytest.mark.skipif(not (MODEL / "config.json").exists(),
                                reason="all-MiniLM-L6-v2 is not in the user's cache")
WAIT_S = 240

ENGLISH = (ROOT / "examples/contract-en.pdf").read_bytes()
CHINESE = (ROOT / "examples/contract-zh.pdf").read_bytes()
BOARD = (ROOT / "examples/qc/part-ok.png").read_bytes()
# A gray picture of 16 x 16.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4"
    "UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAAQABABAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QA"
    "tRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0"
    "NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2"
    "t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AIdogg8sqqwSDAAUxIeAOFAM"
    "jj5vmBx+XIkKhCtvMqiNjlFdSqnLZ/1SDcy/LwWPB9+swOWJZsFnC+csmwOc8KZnOSQF6qMEe3SrtEEHllVWCQYACmJD"
    "wBwoBkcfN8wOPy5H/9k=")


@pytest.fixture(scope="module", name="engine")
def fixture_engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    with open(folder / "log", "wb") as log:
        up = subprocess.Popen([PROGRAM, "up", "--json", "--dir", folder / "engine"], stderr=log,
                              stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            assert up.stdout.readline(), (folder / "log").read_text()
            with penstock.Client(f"ipc://{folder}/engine/clients") as client:
                yield client
        finally:
            up.terminate()
            up.wait(60)


def analyze(client, document, **more):
    return client.wait(client.submit("contract.analyze", {"document": document, **more}), WAIT_S)


def inspect(client, image=BOARD, **more):
    body = {"image": image, "recipe": "board-a", "part_id": "P", **more}
    return client.wait(client.submit("qc.inspect", body), WAIT_S)


def worker_pid(client):
    (worker,) = client.workers()
    return worker["pid"]


def pdf(*contents, more="", times=1):
    """A PDF whose pages have these content streams, all of them so many times; `more` goes into the
    trailer."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", None,
               "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for content in contents:
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    for page in range(len(contents) * times):
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(f"<</Type/Page/Parent 2 0 R/Contents {4 + page % len(contents)} 0 R>>")
    objects[1] = ("<< /Type /Pages /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
                  f"/Count {len(kids)} /Kids [{' '.join(kids)}] >>")
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    return bytes(out) + (f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Root 1 0 R /Size "
                  f"{len(objects) + 1} {more} >>\nstartxref\n{len(out)}\n%%EOF\n").encode()


def line(text, y=700):
    return f"BT /F1 12 Tf 70 {y} Td ({text}) Tj ET\n"


def png(width, height, rows, spoil=0):
    """A gray PNG from raw rows; `spoil` is added to the CRC of its data."""
    def chunk(name, data, more=0):
        return (struct.pack(">I", len(data)) + name + data +
                struct.pack(">I", (zlib.crc32(name + data) + more) % 2**32))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows, 9), spoil) + chunk(b"IEND", b""))


# ---- good documents ----

def check_spans(result):
    text, sizes = result["text"], {p["page"]: (p["width"], p["height"]) for p in result["pages"]}
    pages = {p["page"]: p["charspan"] for p in result["pages"]}
    assert result["pages_in"] == len(sizes) == (
        result["pages_ok"] + result["pages_partial"] + result["pages_failed"])
    for row in result["entities"] + result["clauses"]:
        begin, end = row["charspan"]
        assert text[begin:end] == row.get("value", row.get("text"))
        assert row["prov"], row
        drawn = "".join(text[slice(*p["charspan"])] for p in row["prov"])
        assert "".join(drawn.split()) == "".join(text[begin:end].split())
        for p in row["prov"]:
            x0, y0, x1, y1 = p["bbox"]
            width, height = sizes[p["page"]]
            assert 0 <= x0 < x1 <= width + 0.01 and 0 <= y0 < y1 <= height + 0.01
            first, last = pages[p["page"]]
            assert first <= p["charspan"][0] < p["charspan"][1] <= last


def test_the_english_contract_has_its_spans_in_boxes(engine):
    job = analyze(engine, ENGLISH)
    assert job.done, job.reason
    result = job.value
    check_spans(result)
    assert (result["format"], result["pages_in"], result["pages_ok"]) == ("pdf", 3, 3)
    assert result["pages"][1]["running"].endswith("Page 2 of 3")
    assert "Page 2 of 3" not in result["text"] and result["title"] == "SUPPLY AND SERVICES AGREEMENT"
    values = {e["value"]: e for e in result["entities"]}
    money = values["two hundred fifty thousand U.S. dollars\n($250,000)"]
    assert money["normalized"] == {"currency": "USD", "value": 250000}
    assert len(money["prov"]) == 2, "it goes over a line end"
    over = next(c for c in result["clauses"] if c["number"] == "12.2")
    assert {p["page"] for p in over["prov"]} == {2, 3} and over["text"].endswith("this Agreement.")


def test_the_chinese_contract_has_its_spans_in_boxes(engine):
    job = analyze(engine, CHINESE)
    assert job.done, job.reason
    check_spans(job.value)
    assert job.value["language"] == "zh" and job.value["text"].startswith("设备采购与服务合同")
    values = {e["value"]: e["normalized"] for e in job.value["entities"]}
    assert values["人\n民币二十万元"] == {"currency": "CNY", "value": 200000}
    assert values["青禾精密制造有限公司"] == {"name": "青禾精密制造有限公司", "role": "甲方"}


def test_the_same_document_gives_the_same_result(engine):
    assert analyze(engine, ENGLISH).value == analyze(engine, ENGLISH).value


def test_a_text_file_is_a_document_too_in_its_encoding(engine):
    text = (ROOT / "examples/contract-zh.txt").read_text(encoding="utf-8")
    job = analyze(engine, text.encode("gb18030"))
    assert job.done, job.reason
    assert job.value["format"] == "txt" and job.value["text"] == text
    assert job.value["pages_in"] == job.value["pages_ok"] == len(job.value["pages"]) == 1
    assert all(row["prov"] == [] for row in job.value["entities"] + job.value["clauses"])


def test_exactly_one_of_document_and_text_is_taken(engine):
    for body, code in (({}, "missing"), ({"text": "1. A.", "document": ENGLISH}, "conflict")):
        with pytest.raises(penstock.Refused) as refused:
            engine.submit("contract.analyze", body)
        assert refused.value.code == code
        assert "'document'" in str(refused.value) and "'text'" in str(refused.value)


def test_pages_that_fail_are_told_and_the_job_is_done(engine):
    picture = "q 100 0 0 100 70 500 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x40 EI Q"
    job = analyze(engine, pdf(line("1. Term. This Agreement ends on 31 December 2027."), picture))
    assert job.done, job.reason
    check_spans(job.value)
    assert (job.value["pages_ok"], job.value["pages_failed"]) == (1, 1)
    failed = job.value["pages"][1]
    assert failed["outcome"] == "failed" and failed["reason"]
    assert any("not all of the document" in notice for notice in job.value["notices"])
    assert [e["normalized"] for e in job.value["entities"]] == ["2027-12-31"]


# ---- hostile ones ----

def encrypted():
    key = "<" + "5A" * 32 + ">"
    return pdf(line("secret"), more=f"/Encrypt << /Filter /Standard /V 1 /R 2 /O {key} /U {key} /P -4 >> "
                                    f"/ID [<00112233445566778899AABBCCDDEEFF> <00>]")


HOSTILE_DOCUMENTS = {
    "encrypted": (encrypted(), ["encrypted"]),
    "truncated": (ENGLISH[:len(ENGLISH) // 3], ["damaged"]),
    "picture only": (pdf("q 100 0 0 100 70 500 cm BI /W 1 /H 1 /BPC 8 /CS /G ID \x40 EI Q"), ["it has no text"]),
    "blank": (pdf("", "", ""), ["none of its 3 pages has text"]),
    "without pages": (pdf(), ["page"]),
    "no PDF at all": (b"%PDF-1.7\n" + bytes(range(256)) * 64, ["damaged"]),
    "white space": (b" \n\t\n", ["it has no text"]),
    "noise": (random.Random(3).randbytes(50_000), ["not a text"]),
}


@pytest.mark.parametrize("name", HOSTILE_DOCUMENTS)
def test_a_hostile_document_ends_with_a_reason_and_harms_nobody(engine, name):
    document, words = HOSTILE_DOCUMENTS[name]
    pid = worker_pid(engine)
    job = analyze(engine, document)
    assert job.state == "failed" and job.error_class == "permanent", job
    assert any(word in job.reason for word in words), job.reason
    assert job.reason.startswith("document: ") and "\n" not in job.reason
    assert worker_pid(engine) == pid
    after = analyze(engine, ENGLISH)
    assert after.done and len(after.value["clauses"]) > 30


def test_of_10_000_pages_the_first_are_read_and_the_others_are_told(engine):
    pid = worker_pid(engine)
    job = analyze(engine, pdf(line("1. Term. It ends on 31 December 2027."), *[""] * 99, times=100))
    assert job.done, job.reason
    result = job.value
    assert result["pages_in"] == 10_000 and 0 < result["pages_failed"] < 10_000
    assert result["pages_in"] == result["pages_ok"] + result["pages_partial"] + result["pages_failed"]
    last = result["pages"][-1]
    assert last["outcome"] == "failed" and "limit" in last["reason"]
    assert len(result["notices"]) == 2 and worker_pid(engine) == pid


def jpeg_of_12_bits():
    return (b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x10\x01\x01\x11\x00" +
            b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(64) + b"\xff\xd9")


HOSTILE_IMAGES = {
    "truncated JPEG": (JPEG[:len(JPEG) * 2 // 3], ["JPEG", "image"]),
    "JPEG of 12 bits": (jpeg_of_12_bits(), ["12", "JPEG"]),
    "bad CRC": (png(64, 64, bytes(65 * 64), spoil=1), ["CRC", "PNG", "crc"]),
    "decompression bomb": (png(16384, 16384, bytes(1 << 20)), ["pixels"]),
    "noise": (random.Random(5).randbytes(10_000), ["JPEG", "PNG"]),
}


@pytest.mark.parametrize("name", HOSTILE_IMAGES)
def test_a_hostile_image_ends_with_a_reason_and_harms_nobody(engine, name):
    image, words = HOSTILE_IMAGES[name]
    pid = worker_pid(engine)
    job = inspect(engine, image)
    assert job.state == "failed" and job.error_class == "permanent", job
    assert any(word in job.reason for word in words), job.reason
    assert worker_pid(engine) == pid
    assert inspect(engine).value["state"] == "OK"


def test_a_log_of_noise_is_counted_and_harms_nobody(engine):
    pid = worker_pid(engine)
    job = inspect(engine, log=random.Random(7).randbytes(200_000))
    assert job.done, job.reason
    assert job.value["state"] == "OK" and job.value["log"]["lines"] > 0
    assert worker_pid(engine) == pid
    log = (ROOT / "examples/qc/part-ok.log").read_bytes()
    assert inspect(engine, log=log).value["log"]["malformed"] == 0


# ---- a helper that is killed ----

def helpers(worker):
    """The pids of the helpers that this worker has started."""
    found = []
    for children in pathlib.Path(f"/proc/{worker}/task").glob("*/children"):
        try:
            for pid in children.read_text().split():
                if pathlib.Path(f"/proc/{pid}/comm").read_text() == "penstock-extrac\n":
                    found.append(int(pid))
        except OSError:
            continue
    return found


def test_a_killed_helper_costs_time_and_the_job_ends_once(engine):
    """4,000 pages take a while; whoever reads them is killed twice, then left alone."""
    pid = worker_pid(engine)
    long = pdf(line("1. Term. This Agreement ends on 31 December 2027."), line(""), times=2000)
    seen = set()
    accepted = engine.submit("contract.analyze", {"document": long})
    killed, deadline = 0, time.monotonic() + 60
    while killed < 2 and time.monotonic() < deadline:
        for helper in set(helpers(pid)) - seen:
            os.kill(helper, signal.SIGKILL)
            killed += 1
            seen.add(helper)
        time.sleep(0.01)
    assert killed == 2
    job = engine.wait(accepted, WAIT_S)
    assert job.done and engine.result(accepted).value == job.value, job.reason
    assert job.value["pages_in"] == job.value["pages_ok"] == 4000
    assert worker_pid(engine) == pid
    assert analyze(engine, ENGLISH).done
