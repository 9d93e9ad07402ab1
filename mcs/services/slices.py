"""Slices in the job queue: each waits for a worker under an id that tells it from other jobs."""

from collections.abc import Iterable

from mcs.services.queue import Queue

_ID = "slice-{}"


def ring(queue: Queue, slice_id: int) -> None:
    """Call a worker to a slice."""
    queue.enqueue("mcs.jobs.deliver_slice", slice_id, job_id=_ID.format(slice_id))


def others_among(job_ids: Iterable[str]) -> bool:
    """Whether one of these jobs is something else than a slice."""
    return not all(job_id.startswith(_ID.format("")) for job_id in job_ids)
