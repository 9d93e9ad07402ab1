"""Callbacks that MCS brings along, by their ids; and those that packages install."""

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import entry_points
from typing import Any

from mcs.core.calls import Call
from mcs.gateways.callbacks.webhook import Webhook

GROUP = "mcs.callbacks"


def built_in(allow: Collection[str] = ()) -> dict[str, Callable[[Call], Any]]:
    """The table: a kind of callback, its id. ``allow`` are hosts of one's own for webhooks."""
    return {"webhook": Webhook(allow)}


def installed(names: Mapping[str, Any] | None = None) -> dict[str, Callable[[Call], Any]]:
    """Functions that packages offer as entry points of the group ``mcs.callbacks``.

    Ids that are taken (``names``) are left to who took them.
    """
    return {
        point.name: point.load()
        for point in entry_points(group=GROUP)
        if point.name not in (names or {})
    }
