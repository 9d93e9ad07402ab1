"""Slices: which deliveries lie in one, and how a worker is called to it."""

from typing import Any

from sqlalchemy import ColumnElement, and_

from mcs.models import Delivery
from mcs.services.queue import Queue


def lies_in(piece: Any, delivery: Any = Delivery) -> ColumnElement[bool]:
    """Whether an emailer's delivery lies in a slice of it. Either is a table or a row, one of them
    at least a table."""
    # The emailer too: ids of two emailers that were started at once are interleaved.
    return and_(
        delivery.emailer_id == piece.emailer_id,
        delivery.id >= piece.low_id,
        delivery.id <= piece.high_id,
    )


def ring(queue: Queue, slice_id: int) -> None:
    """Call a worker to a slice."""
    queue.enqueue("mcs.jobs.deliver_slice", slice_id, job_id=f"slice-{slice_id}")
