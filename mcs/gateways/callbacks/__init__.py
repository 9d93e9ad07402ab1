"""The table of callbacks: those that MCS brings along, and those that packages install.

``send_email`` is in no such table: it goes through the ledger (mcs.services.email_actions).
"""

import logging
from collections.abc import Callable, Collection
from importlib.metadata import entry_points
from typing import Any

from mcs.core.calls import SEND_EMAIL, Call
from mcs.gateways.callbacks.notify import Notify
from mcs.gateways.callbacks.webhook import Webhook

GROUP = "mcs.callbacks"

log = logging.getLogger(__name__)


def built_in(allow: Collection[str] = ()) -> dict[str, Callable[[Call], Any]]:
    """A kind of callback, its id. ``allow`` are hosts of one's own for webhooks."""
    return {"webhook": Webhook(allow), "notify": Notify()}


def installed(taken: Collection[str] = ()) -> dict[str, Callable[[Call], Any]]:
    """Functions that packages offer as entry points of the group ``mcs.callbacks``.

    Each takes a Call. One with a method ``check`` is asked by it whether a step's config will do,
    which raises mcs.core.calls.BadConfig otherwise. What one names in ``secrets`` is never shown
    again of a config; one without them has ``secret``. Ids that are ``taken`` are left to who took
    them; what cannot be imported is left out, and the log says so.
    """
    found: dict[str, Callable[[Call], Any]] = {}
    for point in entry_points(group=GROUP):
        if point.name in taken or point.name == SEND_EMAIL:
            continue
        try:
            found[point.name] = point.load()
        except Exception:
            # Somebody else's package: it must not keep the rest from running.
            log.exception("the callback %s cannot be loaded: left out", point.name)
    return found


def table(allow: Collection[str] = ()) -> dict[str, Callable[[Call], Any]]:
    """All that an installation has, by id."""
    own = built_in(allow)
    return installed(own) | own
