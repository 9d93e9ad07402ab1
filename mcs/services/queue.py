"""The queue, as services that the library uses know it: without Redis."""

from typing import Any, Protocol


class Queue(Protocol):
    """What they need of mcs.gateways.jobqueue.JobQueue."""

    def enqueue(self, name: str, *args: Any, job_id: str) -> bool: ...
