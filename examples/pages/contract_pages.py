"""The pages of a document as jobs of their own: read apart, worked on by whichever workers are free, and
joined in their order. A page that fails leaves its place and its reason, and the others their results.

    penstock up --pipelines :examples/pages --python examples/pages/contract_pages.py
    penstock submit contract.analyze --pipeline contract.pages --file examples/contract-en.pdf --wait --json
    penstock dead ls        # pages that failed, as any other job

The first stage gives the document to `penstock-extract`, the helper that the engine's own workers use: it
runs under limits, without files, network or processes.
"""
import os
import re
import shutil
import struct
import subprocess

import penstock

worker = penstock.Worker("pages")
HELLO, PAGE, BAD, DEATH, END = 1, 2, 3, 4, 5
FIGURE = re.compile(r"\d[\d.,]*\d|\d")


def helper():
    """penstock-extract: named, or beside the program `penstock`."""
    beside = shutil.which("penstock-extract", path=os.path.dirname(shutil.which("penstock") or ""))
    found = os.environ.get("PENSTOCK_EXTRACT") or beside or shutil.which("penstock-extract")
    if not found:
        raise penstock.StageError("penstock-extract is not installed; name it in PENSTOCK_EXTRACT")
    return found


def string(body, at):
    """A length and UTF-8: the text, and where the next thing begins."""
    end = at + 4 + struct.unpack_from("<I", body, at)[0]
    return body[at + 4:end].decode(), end


def pages_of(document):
    """(text, reason) of each page, as workers/extract/frames.h says it."""
    said = subprocess.run([helper(), "--format=pdf"], input=document, capture_output=True).stdout
    pages, at = [], 0
    while at + 5 <= len(said):
        length, kind = struct.unpack_from("<IB", said, at)
        body, at = said[at + 5:at + 4 + length], at + 4 + length
        if kind == PAGE:
            text, end = string(body, 13)
            pages.append((text, string(body, end)[0]))
        elif kind in (BAD, DEATH):
            raise penstock.StageError(f"the document cannot be read: {string(body, 1)[0]}")
        elif kind == END:
            return pages
    raise penstock.StageError("the helper ended before the document did", transient=True)


@worker.stage("pages.split")
def split(job):
    """At most 256 pages; a page without a text is one that its own job will complain of."""
    pages = pages_of(job.body["document"])
    return {"children": [{"text": text or "\n", "title": reason[:200]} for text, reason in pages],
            "keep": {"title": job.body.get("title", "")}}


@worker.stage("pages.figures")
def figures(job):
    text = job.body["text"]
    if not text.strip():
        raise penstock.StageError(job.body.get("title") or "the page has no text; is it a picture?")
    return {"words": len(text.split()), "figures": FIGURE.findall(text)}


@worker.stage("pages.join")
def join(job):
    """Every page at its place: with its result, or with the reason why there is none."""
    pages = [{"page": number, "state": part["state"], **(part["result"] or {"reason": part["reason"]})}
             for number, part in enumerate(job.input["children"], 1)]
    failed = sum(page["state"] != "done" for page in pages)
    return {"title": job.input["keep"]["title"], "pages_in": len(pages),
            "pages_ok": len(pages) - failed, "pages_failed": failed, "pages": pages}
