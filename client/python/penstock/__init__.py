"""Client of the Penstock job engine: submit jobs, wait for them, read their results.

    with penstock.Client() as client:
        vectors = client.run(penstock.embed(["The pump is loud."]))
        print(vectors["embeddings"][0][:4])

AsyncClient has the same verbs for asyncio; penstock.worker runs stages that are written in Python.
"""
from .aio import AsyncClient, AsyncStream
from .client import Client, Stream
from .endpoint import default_endpoint
from .errors import (Error, Invalid, JobCancelled, JobExpired, JobFailed, JobNotDone, Refused,
                     SomeRefused, Timeout, Unreachable)
from .kinds import (Cause, Clause, ContractAnalysis, Defect, Embeddings, Entity, Generation, Inspection, Risk,
                    contract, embed, generate, inspect)
from .types import Accepted, Ended, Event, Job, Pong, Result, Retry, Submission, TextPiece
from .worker import StageError, StageJob, Worker

__version__ = "0.1.0"
__all__ = ["AsyncClient", "AsyncStream", "Client", "Stream", "default_endpoint",
           "Error", "Invalid", "JobCancelled", "JobExpired", "JobFailed", "JobNotDone", "Refused",
           "SomeRefused", "Timeout", "Unreachable",
           "Cause", "Clause", "ContractAnalysis", "Defect", "Embeddings", "Entity", "Generation", "Inspection", "Risk",
           "contract", "embed", "generate", "inspect",
           "Accepted", "Ended", "Event", "Job", "Pong", "Result", "Retry", "Submission", "TextPiece",
           "StageError", "StageJob", "Worker"]
