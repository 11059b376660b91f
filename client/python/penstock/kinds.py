"""The four kinds of job: submissions that read files, and what their results hold."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from .errors import Invalid
from .types import Submission

File = str | os.PathLike[str]


class EmbeddingsAsked(TypedDict, total=False):
    """What the result of text.embed has where it was asked for."""

    adapter: str


class Embeddings(EmbeddingsAsked):
    """The result of text.embed: a row of unit length for each text."""

    model: str
    dim: int
    embeddings: list[list[float]]
    tokens: list[int]
    truncated: list[bool]


class GenerationAsked(TypedDict, total=False):
    """What the result of text.generate has where it was asked for."""

    adapter: str
    logprobs: list[float]
    top_logprobs: list[list[tuple[int, float]]]
    choices: list[dict[str, Any]]


class Generation(GenerationAsked):
    """The result of text.generate; with n beyond 1, choices holds all texts and the rest is the first."""

    model: str
    text: str
    tokens: list[int]
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seed: int


class Risk(TypedDict):
    level: str
    rule: str
    why: str


class RiskOf(Risk):
    clause: int | None  # an index into clauses; None for what is absent


class Fragment(TypedDict):
    """The part of a span on one line; bbox is [x0, y0, x1, y1] in points from the top left."""

    page: int
    bbox: list[float]
    charspan: list[int]


class Page(TypedDict):
    page: int
    outcome: str
    reason: str
    width: float
    height: float
    charspan: list[int]
    running: str


class Entity(TypedDict):
    type: str
    value: str
    normalized: Any
    charspan: list[int]
    prov: list[Fragment]
    score: float


class Clause(TypedDict):
    type: str
    also: list[dict[str, Any]]
    heading: str | None
    number: str | None
    level: int
    text: str
    charspan: list[int]
    prov: list[Fragment]
    score: float
    cosine: float
    cue: Any
    truncated: bool
    risk: Risk | None


class ContractAnalysis(TypedDict):
    """The result of contract.analyze; a charspan is [begin, end) in characters of the text, which is
    None when the job came as text."""

    language: str
    title: str | None
    format: str
    text: str | None
    entities: list[Entity]
    clauses: list[Clause]
    risks: list[RiskOf]
    summary: dict[str, Any]
    method: str
    model: str
    taxonomy: dict[str, Any]
    policy: dict[str, Any]
    pages_in: int
    pages_ok: int
    pages_partial: int
    pages_failed: int
    pages: list[Page]
    notices: list[str]


class Defect(TypedDict):
    """Where the part differs from its reference; a box is [x, y, width, height] in pixels."""

    score: float
    box: list[int]
    size: dict[str, Any]
    contrast: float


class Cause(TypedDict):
    cause: str
    score: float
    evidence: list[dict[str, Any]]  # lines of the log, and rules that held


class Inspection(TypedDict):
    """The result of qc.inspect; the names in capitals are those of OPC 40100-1."""

    PartId: str
    RecipeId: str
    ResultId: str
    MeasId: str
    ResultState: int
    IsPartial: bool
    IsSimulated: bool
    state: str          # OK or NG
    score: float
    threshold: float
    version: int
    method: str
    defects: list[Defect]
    defects_total: int
    rules: list[dict[str, Any]]
    causes: list[Cause]
    image: dict[str, Any]
    log: dict[str, Any] | None


def embed(texts: str | Sequence[str], *, adapter: str | None = None) -> Submission[Embeddings]:
    """text.embed of one text or several, with a LoRA adapter of the workers or without."""
    listed = [texts] if isinstance(texts, str) else list(texts)
    return Submission("text.embed", given(texts=listed, adapter=adapter))


def as_json(value: Any) -> Any:
    """Values that nest deeper than the wire's maps may go as text."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def generate(prompt: str | None = None, *, messages: Sequence[Mapping[str, Any]] | None = None,
             tools: Sequence[Mapping[str, Any]] | None = None,
             template_vars: Mapping[str, Any] | None = None, adapter: str | None = None,
             max_tokens: int | None = None, temperature: float | None = None,
             top_k: int | None = None, top_p: float | None = None, min_p: float | None = None,
             repetition_penalty: float | None = None, presence_penalty: float | None = None,
             frequency_penalty: float | None = None, n: int | None = None,
             logprobs: bool | None = None, top_logprobs: int | None = None,
             stop: Sequence[str] | None = None, schema: Mapping[str, Any] | str | None = None,
             stream: bool | None = None, seed: int | None = None) -> Submission[Generation]:
    """text.generate: continue a prompt, or answer the messages of a conversation by the model's chat
    template, which is told of the tools and of other variables; with a JSON Schema by one value that
    it allows, with an adapter as that LoRA adapter of the workers makes it. What is not given is as
    `penstock schema text.generate` says."""
    if (prompt is None) == (messages is None):
        raise Invalid("a text is generated from a prompt or from messages=, one of them")
    body = given(prompt=prompt, messages=as_json(messages), tools=as_json(tools),
                 template_vars=as_json(template_vars), adapter=adapter, max_tokens=max_tokens,
                 temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                 repetition_penalty=repetition_penalty, presence_penalty=presence_penalty,
                 frequency_penalty=frequency_penalty, n=n, logprobs=logprobs,
                 top_logprobs=top_logprobs, stop=None if stop is None else list(stop),
                 schema=as_json(schema), stream=stream)
    return Submission("text.generate", body, seed=seed)


def contract(path: File | None = None, *, text: str | None = None, language: str | None = None,
             title: str | None = None) -> Submission[ContractAnalysis]:
    """contract.analyze of a file (PDF or text), or of a text that is at hand. The title is the file's
    name."""
    if (path is None) == (text is None):
        raise Invalid("a contract is given as a path or as text=, one of them")
    document = None if path is None else read(path)
    if path is not None and title is None:
        title = Path(path).name
    return Submission("contract.analyze",
                      given(document=document, text=text, language=language, title=title))


def inspect(image: File | bytes, recipe: str, part_id: str, *, log: File | bytes | None = None,
            log_format: str | None = None, reference: File | bytes | None = None,
            meas_id: str | None = None, simulated: bool | None = None) -> Submission[Inspection]:
    """qc.inspect of a part: its image and its device log are files, or bytes that are at hand.

    `recipe` is the name of one that the workers have, or a whole recipe as YAML.
    """
    body = given(image=read(image), recipe=recipe, part_id=part_id,
                 log=None if log is None else read(log), log_format=log_format,
                 reference=None if reference is None else read(reference), meas_id=meas_id,
                 simulated=simulated)
    return Submission("qc.inspect", body)


def read(source: File | bytes) -> bytes:
    """The bytes of a file; bytes are themselves."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
