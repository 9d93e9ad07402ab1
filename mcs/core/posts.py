"""Posts to chats and social networks: which services there are, and the words for one contact.

A service is named by a URL of its own kind, which is a secret. Only services whose hosts are fixed
and public are taken: a URL that names a host could reach what only this machine can.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from mcs.core import language, tree
from mcs.core.language import BadContent
from mcs.core.tree import Nodes

# By the word that its URL begins with, as Apprise spells them.
SERVICES = {
    "discord": "Discord",
    "gchat": "Google Chat",
    "line": "Line",
    "pbul": "Pushbullet",
    "pover": "Pushover",
    "slack": "Slack",
    "tgram": "Telegram",
    "wxteams": "Cisco Webex",
    "x": "X",
}
LONGEST = 4000
# What else Apprise takes after a ? turns off TLS checks, or reads files of this machine.
_OPTIONS = ("mode",)
_URL = re.compile(r"([a-z]+)://([^\s\x00-\x1f\x7f?]+)(?:\?(\S*))?")


class BadPost(ValueError):
    """A url or text that cannot be posted; the text says what would be right."""


def service(url: str) -> str:
    """The service that a url posts to. Raises BadPost, which does not repeat the url."""
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise BadPost("it is no url of a service: write one such as discord://id/token")
    kind, _, options = found.groups()
    if kind not in SERVICES:
        named = ", ".join(f"{each}:// ({name})" for each, name in SERVICES.items())
        raise BadPost(f"{kind[:20]}:// is not among the services: use {named}")
    for name, _ in parse_qsl(options or "", keep_blank_values=True):
        if name not in _OPTIONS:
            raise BadPost(f"leave out {name[:40]!r}: only {', '.join(_OPTIONS)} may follow the ?")
    return SERVICES[kind]


def named(url: str) -> str:
    """The name of the service that a url posts to, as people know it; nothing of the secret."""
    return SERVICES.get(str(url).partition("://")[0], "a channel")


def parse(text: str) -> Nodes:
    """A text with merge fields and conditions. Raises BadPost."""
    if not isinstance(text, str) or not text.strip():
        raise BadPost("the text is empty: write what to post")
    if len(text) > LONGEST:
        raise BadPost(f"the text is longer than {LONGEST:,} characters")
    try:
        return language.parse(text)
    except BadContent as error:
        raise BadPost(f"line {error.line}: {error.reason}") from None


def write(parsed: Nodes, contact: Mapping[str, Any] | None) -> str:
    """The text for one contact, or for a subject without one, whose fields are then empty."""
    values = _values(contact or {})
    pieces = tree.follow(parsed, tree.path(parsed, values))
    return "".join(piece if isinstance(piece, str) else piece.of(values) for piece in pieces)


def _values(contact: Mapping[str, Any]) -> dict[str, str]:
    values = {name: _calmed(str(value)) for name, value in contact.get("attributes", {}).items()}
    values["name"] = _calmed(str(contact.get("name", "")))
    values["email"] = str(contact.get("email", ""))
    if not values.get("first_name"):
        values["first_name"] = values["name"].strip().partition(" ")[0]
    return values


def _calmed(value: str) -> str:
    """Somebody whose name is @everyone must not call everyone."""
    return value.replace("@", "@\u200b").replace("<!", "<\u200b!")
