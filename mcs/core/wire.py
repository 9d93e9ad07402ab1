"""Both bodies of a message as ready bytes, with places where a contact's values are spliced in."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from html import escape
from typing import TypeAlias
from urllib.parse import quote

from mcs.core import mime
from mcs.core.bodies import Bodies, Hole, Place
from mcs.core.tree import Field, Values

# Quoted-printable never writes "=_", so no body can contain it.
BOUNDARY = b"=_part"
CONTENT_TYPE = b'Content-Type: multipart/alternative; boundary="' + BOUNDARY + b'"\r\n'

_Written: TypeAlias = Callable[[str], bytes]

_SAFE_URL = re.compile(r"(?:https?://|mailto:)[^\s<>\"\x00-\x1f\x7f]+", re.IGNORECASE)


class WireBody:
    """The body along one path through the content's choices: ready bytes with holes."""

    def __init__(self, parts: Bodies) -> None:
        self._ready: list[bytes] = []
        holes: dict[Field, dict[Place, list[int]]] = {}
        for kind, pieces in (("plain", parts.text), ("html", parts.html)):
            self._ready.append(_part_start(kind))
            for piece in pieces:
                if isinstance(piece, Hole):
                    places = holes.setdefault(piece.field, {})
                    places.setdefault(piece.place, []).append(len(self._ready))
                    self._ready.append(b"")
                else:
                    self._ready.append(mime.literal(piece))
        self._ready.append(b"\r\n--" + BOUNDARY + b"--\r\n")
        self._filling = [_Filling(field, places) for field, places in holes.items()]

    def write(self, values: Values) -> list[bytes]:
        body = self._ready.copy()
        for filling in self._filling:
            value = filling.value_of(values)
            if value:
                # Nearly every value reads alike in text and in html.
                plain = mime.plain(value) if filling.alike else None
                if plain is None:
                    writers = filling.writers
                else:
                    for place in filling.alike:
                        body[place] = plain
                    writers = filling.url_writers
                for written, places in writers:
                    encoded = written(value)
                    for place in places:
                        body[place] = encoded
        return body


class _Filling:
    """A field, and how its value is written at each of its places in a body.

    ``alike`` are the places where a plain value is written in the same way.
    """

    __slots__ = ("alike", "url_writers", "value_of", "writers")

    def __init__(self, field: Field, places: Mapping[Place, list[int]]) -> None:
        words = {place: where for place, where in places.items() if place in _AS_WORDS}
        urls = {place: where for place, where in places.items() if place in _AS_URLS}
        self.value_of = field.of
        self.alike = [number for where in words.values() for number in where]
        self.url_writers = [(_AS_URLS[place], where) for place, where in urls.items()]
        self.writers = [
            *((_AS_WORDS[place], where) for place, where in words.items()),
            *self.url_writers,
        ]


def _part_start(kind: str) -> bytes:
    return (
        b"\r\n--" + BOUNDARY + b"\r\n"
        b"Content-Type: text/" + kind.encode("ascii") + b'; charset="utf-8"\r\n'
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    )


def _html(value: str) -> bytes:
    return mime.spliced(escape(mime.body_text(value)).replace("\n", "<br>\n"))


def _attribute(value: str) -> bytes:
    return mime.spliced(escape(mime.body_text(value)).replace("\n", " "))


def _url_part(value: str) -> bytes:
    return mime.spliced(quote(mime.body_text(value), safe=""))


def _text_url(value: str) -> bytes:
    return _link(value if _SAFE_URL.fullmatch(value) else "#")


def _html_url(value: str) -> bytes:
    return _link(escape(value) if _SAFE_URL.fullmatch(value) else "#")


# The unsubscribe link of a message stands in both its parts.
@lru_cache(maxsize=16)
def _link(url: str) -> bytes:
    return mime.literal(url)


# Where a plain value is written alike.
_AS_WORDS: dict[Place, _Written] = {
    Place.TEXT: mime.spliced,
    Place.HTML: _html,
    Place.ATTRIBUTE: _attribute,
}
_AS_URLS: dict[Place, _Written] = {
    Place.URL_PART: _url_part,
    Place.TEXT_URL: _text_url,
    Place.HTML_URL: _html_url,
}
