"""Time zones as people name them: by their city."""

from collections.abc import Collection


def named(text: str, zones: Collection[str]) -> str | None:
    """The one of ``zones`` that ``text`` means, or None when none or several could be meant.

    ``text`` is the whole IANA name, or its last part where that names one zone only; case does not
    matter, and a space is as good as an underscore: ``new york`` is ``America/New_York``.
    """
    wanted = "_".join(text.replace("_", " ").split()).lower()
    whole = [zone for zone in zones if zone.lower() == wanted]
    found = whole or [zone for zone in zones if _city(zone) == wanted]
    return found[0] if len(found) == 1 else None


def _city(zone: str) -> str:
    return zone.rpartition("/")[2].lower()
