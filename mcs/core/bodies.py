"""A scenario's content as html and as plain text, with the merge fields still open.

A field is a token of plain letters and digits on its way through Markdown and the sanitizer, so
whatever they do to it is what they would do to a word. Where it ends up decides how a contact's
value is written there: see ``Place``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from html import escape

from mcs.core import letter, markdown
from mcs.core.markdown import Rendered, refuse_size
from mcs.core.mime import body_text
from mcs.core.tree import Field, Flat

HTML_WARNING = 100_000
UNSUBSCRIBE_URL = Field("unsubscribe_url")

_TAG = re.compile(r"<[A-Za-z/!](?:[^\"'>]|\"[^\"]*\"|'[^']*')*>")
_LINKED_ATTRIBUTE = re.compile(r"\s(?:href|src)=\"([^\"]*)\"")
_URL = re.compile(r"https?://[^\s<>\"']*[^\s<>\"'.,;:!?)\]]")


class Place(Enum):
    """Where a field stands, which decides how its value is escaped."""

    TEXT = "text"
    HTML = "html"
    ATTRIBUTE = "attribute"
    URL_PART = "part of a url"
    TEXT_URL = "a whole url, or the beginning of one, in text"
    HTML_URL = "a whole url, or the beginning of one, in html"


@dataclass(frozen=True)
class Hole:
    """A field at its place."""

    field: Field
    place: Place


Pieces = tuple[str | Hole, ...]


@dataclass(frozen=True)
class Bodies:
    """The two parts of a message: literal pieces with holes between them.

    ``left_out`` are the addresses of links and images that no mail can have.
    """

    text: Pieces
    html: Pieces
    left_out: tuple[str, ...] = ()

    @property
    def html_size(self) -> int:
        """In bytes of UTF-8, without what the fields will add."""
        return sum(len(piece.encode()) for piece in self.html if isinstance(piece, str))


@dataclass(frozen=True)
class Sender:
    """What the footer says of who writes."""

    name: str
    postal_address: str


class _Tokens:
    """Words that stand for fields. No source can contain them: a digest of it is in each."""

    def __init__(self, flat: Flat, sender: Sender) -> None:
        literals = [piece for piece in flat if isinstance(piece, str)]
        source = repr((literals, sender))
        self._prefix = f"mcs{sha256(source.encode()).hexdigest()[:24]}n"
        self._fields: list[Field] = []
        self.source = "".join(
            body_text(piece) if isinstance(piece, str) else self.word(piece) for piece in flat
        )
        self.unsubscribe_url = self.word(UNSUBSCRIBE_URL)
        self.pattern = re.compile(rf"{self._prefix}([0-9]+)([xu])")

    def word(self, field: Field) -> str:
        self._fields.append(field)
        return f"{self._prefix}{len(self._fields) - 1}x"

    def as_url(self, url: str) -> str:
        """The same, noting that a field at its beginning has to be a URL by itself."""
        first = self.pattern.match(url)
        return f"{self._prefix}{first[1]}u{url[first.end() :]}" if first else url

    def field(self, match: re.Match[str]) -> Field:
        return self._fields[int(match[1])]

    def readable(self, text: str) -> str:
        """The text with its fields as the marketer wrote them."""
        return self.pattern.sub(lambda match: f"{{{{ {self.field(match).name} }}}}", text)

    def is_unsubscribe_url(self, match: re.Match[str]) -> bool:
        return self.field(match) == UNSUBSCRIBE_URL


def bodies(flat: Flat, format: str, sender: Sender) -> Bodies:
    """Both parts, footers included. Raises BadContent when they would be too large or too deep."""
    tokens = _Tokens(flat, sender)
    source = tokens.source.strip("\n")
    if format == "markdown":
        body = markdown.rendered(source, tokens.as_url)
    else:
        body = Rendered(_typed_html(source, tokens), source, ())
    refuse_size(body.html)
    footer = (sender.name, sender.postal_address, tokens.unsubscribe_url)
    return Bodies(
        text=_merged(_filled(letter.text_letter(body.text, *footer), tokens, Place.TEXT)),
        html=_merged(_html_pieces(letter.html_letter(body.html, *footer), tokens)),
        left_out=tuple(tokens.readable(address) for address in body.left_out),
    )


# Plain text as typed


def _typed_html(source: str, tokens: _Tokens) -> str:
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", source)
    return "\n".join(f"<p>{_typed_paragraph(text, tokens)}</p>" for text in paragraphs)


def _typed_paragraph(text: str, tokens: _Tokens) -> str:
    html: list[str] = []
    end = 0
    for url in _urls(text, tokens):
        html += [_typed(text[end : url.start()]), _link(url[0])]
        end = url.end()
    html.append(_typed(text[end:]))
    return "".join(html)


def _urls(text: str, tokens: _Tokens) -> Iterator[re.Match[str]]:
    for match in re.finditer(rf"{_URL.pattern}|{tokens.pattern.pattern}", text):
        field = tokens.pattern.fullmatch(match[0])
        if field is None or tokens.is_unsubscribe_url(field):
            yield match


def _link(url: str) -> str:
    return f'<a href="{escape(url)}">{escape(url)}</a>'


def _typed(text: str) -> str:
    html = escape(text).replace("\n", "<br>\n")
    # Columns typed with spaces stay columns.
    return re.sub(r"(?<= ) ", "\u00a0", html)


# Holes


def _html_pieces(html: str, tokens: _Tokens) -> Iterator[str | Hole]:
    end = 0
    for tag in _TAG.finditer(html):
        yield from _filled(html[end : tag.start()], tokens, Place.HTML)
        yield from _tag_pieces(tag[0], tokens)
        end = tag.end()
    yield from _filled(html[end:], tokens, Place.HTML)


def _tag_pieces(tag: str, tokens: _Tokens) -> Iterator[str | Hole]:
    end = 0
    for url in _LINKED_ATTRIBUTE.finditer(tag):
        yield from _filled(tag[end : url.start(1)], tokens, Place.ATTRIBUTE)
        yield from _url_pieces(url[1], tokens)
        end = url.end(1)
    yield from _filled(tag[end:], tokens, Place.ATTRIBUTE)


def _url_pieces(url: str, tokens: _Tokens) -> Iterator[str | Hole]:
    """A field that begins a URL must be one; any other is a part of one."""
    first = tokens.pattern.match(url)
    if first:
        yield Hole(tokens.field(first), Place.HTML_URL)
        url = url[first.end() :]
    yield from _filled(url, tokens, Place.URL_PART)


def _filled(text: str, tokens: _Tokens, place: Place) -> Iterator[str | Hole]:
    urls = [match.span() for match in _URL.finditer(text)]
    spans = iter([*urls, (len(text) + 1, len(text) + 1)])
    start, stop = next(spans)
    end = 0
    for match in tokens.pattern.finditer(text):
        while match.start() >= stop:
            start, stop = next(spans)
        yield text[end : match.start()]
        inside_url = start <= match.start()
        yield Hole(tokens.field(match), _place_in_text(tokens, match, inside_url, place))
        end = match.end()
    yield text[end:]


def _place_in_text(tokens: _Tokens, word: re.Match[str], inside_url: bool, place: Place) -> Place:
    if word[2] == "u" or (place is Place.TEXT and tokens.is_unsubscribe_url(word)):
        return Place.TEXT_URL
    return Place.URL_PART if inside_url else place


def _merged(pieces: Iterator[str | Hole]) -> Pieces:
    """The same with neighbouring literals made one, so that no line break comes between them."""
    merged: list[str | Hole] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(piece for piece in merged if piece)
