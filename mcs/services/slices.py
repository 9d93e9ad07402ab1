"""Slices in the job queue."""

from mcs.services.queue import Queue


def ring(queue: Queue, slice_id: int) -> None:
    """Call a worker to a slice."""
    queue.enqueue("mcs.jobs.deliver_slice", slice_id, job_id=f"slice-{slice_id}")
