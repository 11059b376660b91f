"""Client of the Penstock job engine: submit jobs, wait for them, read their results.

    with penstock.Client() as client:
        job = client.submit("text.embed", {"texts": ["hello"]})
        print(client.wait(job, timeout=60).value["embeddings"])
"""
from .client import Client, default_endpoint
from .errors import Error, Invalid, JobFailed, Refused, Timeout, Unreachable
from .types import Accepted, Event, Job, Pong, Result

__all__ = ["Client", "default_endpoint", "Accepted", "Event", "Job", "Pong", "Result",
           "Error", "Invalid", "JobFailed", "Refused", "Timeout", "Unreachable"]
__version__ = "0.1.0"
