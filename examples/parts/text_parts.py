"""A text in parts: split into paragraphs, each one a job of its own, joined in their order.

    penstock up --pipelines :examples/parts --python examples/parts/text_parts.py
    penstock submit text.embed --pipeline text.parts --set texts=@LONG.txt --wait --json

The pipeline text.parts says `fan_out` at its first stage: what that returns under `children` becomes jobs
of the pipeline text.part, on whichever workers are free. Its second stage runs when all have ended.
"""
import penstock

worker = penstock.Worker("parts")


@worker.stage("parts.split")
def split(job):
    text = "\n\n".join(job.body["texts"])
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    return {"children": [{"texts": [part]} for part in paragraphs], "keep": {"letters": len(text)}}


@worker.stage("parts.count")
def count(job):
    part = job.body["texts"][0]
    if "\ufffd" in part:
        raise penstock.StageError("the paragraph has characters that could not be read")
    return {"begins": part[:40], "words": len(part.split())}


@worker.stage("parts.join")
def join(job):
    """Every part is there in order, with its result, or with the reason why there is none."""
    done = [part for part in job.input["children"] if part["state"] == "done"]
    failed = [{"part": i, "reason": part["reason"]}
              for i, part in enumerate(job.input["children"]) if part["state"] != "done"]
    return {"letters": job.input["keep"]["letters"], "parts": [part["result"] for part in done],
            "words": sum(part["result"]["words"] for part in done), "failed": failed}
