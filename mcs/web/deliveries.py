"""The page of one delivery: its row of the ledger, and the ways to what it is of."""

from datetime import timedelta

from flask import Blueprint, render_template

from mcs.extensions import db
from mcs.gateways import catcher
from mcs.models import Delivery
from mcs.services import contacts, ledger
from mcs.web.parts import LARGEST_BIG_ID, settings

bp = Blueprint("deliveries", __name__)

# The catcher and the database may each have a clock of its own. In a longer time the catcher takes
# thousands of messages, all of which would be read in vain where it has let this one go.
CLOCKS_DIFFER = timedelta(seconds=5)


@bp.get(f"/deliveries/<int(max={LARGEST_BIG_ID}):delivery_id>")
def show(delivery_id: int) -> str:
    session = db.session()
    entry = ledger.entry(session, delivery_id)
    return render_template(
        "deliveries/show.html",
        delivery=entry.delivery,
        contact=entry.contact,
        origin=contacts.origins_of(session, [entry.delivery])[delivery_id],
        caught=_caught(entry.delivery),
    )


def _caught(delivery: Delivery) -> str | None:
    """Its message's id in the mailbox, where that has it."""
    if not settings().embedded_mail or delivery.started_at is None:
        return None
    until = delivery.sent_at or delivery.started_at
    return catcher.find(
        settings().instance, delivery.message_id, delivery.started_at, until, CLOCKS_DIFFER
    )
