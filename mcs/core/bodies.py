"""A scenario's content as html and as plain text, with the merge fields still open.

A field is a token of plain letters and digits on its way through Markdown and the sanitizer, so
whatever they do to it is what they would do to a word. Where it ends up decides how a contact's
value is written there: see ``Place``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from html import escape

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mcs.core import letter
from mcs.core.language import BadContent, Field, Flat
from mcs.core.mime import body_text

HTML_WARNING = 100_000
HTML_LIMIT = 500_000
DEPTH_LIMIT = 256
# Markdown's cost grows with its marks, not its letters: this many take a second or two at worst.
MARKS_LIMIT = 40_000
UNSUBSCRIBE_URL = Field("unsubscribe_url")

_TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "a", "img"}
_TAGS |= {"ul", "ol", "li", "blockquote", "pre", "code"}
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}
_MARKDOWN = MarkdownIt("commonmark", {"html": False})
_MARKS = re.compile(r"[\n*_`\[!<>&\\#+-]")
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
    """The two parts of a message: literal pieces with holes between them."""

    text: Pieces
    html: Pieces

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
    """Words that stand for fields. None of them occurs in the source by itself."""

    def __init__(self, flat: Flat, sender: Sender) -> None:
        literals = [piece for piece in flat if isinstance(piece, str)]
        taken = "".join([*literals, sender.name, sender.postal_address]).lower()
        self._prefix = "mcsfield"
        while self._prefix in taken:
            self._prefix += "q"
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

    def is_unsubscribe_url(self, match: re.Match[str]) -> bool:
        return self.field(match) == UNSUBSCRIBE_URL


def bodies(flat: Flat, format: str, sender: Sender) -> Bodies:
    """Both parts, footers included. Raises BadContent when they would be too large or too deep."""
    tokens = _Tokens(flat, sender)
    source = tokens.source.strip("\n")
    if format == "markdown":
        html, text = _from_markdown(source, tokens)
    else:
        html, text = _typed_html(source, tokens), source
    footer = (sender.name, sender.postal_address, tokens.unsubscribe_url)
    _refuse_size(html)
    return Bodies(
        text=_merged(_filled(letter.text_letter(text, *footer), tokens, Place.TEXT)),
        html=_merged(_html_pieces(letter.html_letter(html, *footer), tokens)),
    )


def _refuse_size(html: str) -> None:
    if len(html.encode()) > HTML_LIMIT:
        raise BadContent(f"The html of this message is larger than {HTML_LIMIT // 1000} KB.")


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


# Markdown


def _from_markdown(source: str, tokens: _Tokens) -> tuple[str, str]:
    if len(_MARKS.findall(source)) > MARKS_LIMIT:
        raise BadContent(f"There are more than {MARKS_LIMIT:,} marks of Markdown in this.")
    environment: dict[str, object] = {}
    parsed = _MARKDOWN.parse(source, environment)
    if _depth(parsed) > DEPTH_LIMIT:
        raise BadContent(f"Things are inside each other more than {DEPTH_LIMIT} deep.")
    html = _MARKDOWN.renderer.render(parsed, _MARKDOWN.options, environment)
    _refuse_size(html)
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        attribute_filter=_only_safe_images,
        link_rel=None,
    )
    return clean, _readable(parsed, tokens)


def _depth(parsed: list[Token]) -> int:
    level = deepest = 0
    for token in parsed:
        level += token.nesting
        deepest = max(deepest, level + (_depth(token.children) if token.children else 0))
    return deepest


def _only_safe_images(tag: str, attribute: str, value: str) -> str | None:
    if (tag, attribute) == ("img", "src") and ":" in value and not value.startswith("https:"):
        return None
    return value


def _readable(parsed: list[Token], tokens: _Tokens) -> str:
    """Markdown as a person would type it in a plain mail."""
    lines: list[str] = []
    prefixes: list[str] = []
    numbers: list[int] = []
    for token in parsed:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            numbers.append(int(token.attrGet("start") or 1) if token.tag == "ol" else -1)
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            numbers.pop()
            _blank(lines, prefixes)
        elif token.type == "list_item_open":
            prefixes.append("- " if numbers[-1] < 0 else f"{numbers[-1]}. ")
            numbers[-1] += numbers[-1] >= 0
        elif token.type == "blockquote_open":
            prefixes.append("> ")
        elif token.type in ("list_item_close", "blockquote_close"):
            if prefixes.pop() == "> ":
                _blank(lines, prefixes)
        elif token.type == "inline":
            _write(lines, prefixes, _readable_inline(token.children or [], tokens))
        elif token.type in ("fence", "code_block"):
            _write(lines, prefixes, token.content.rstrip("\n"))
            _blank(lines, prefixes)
        elif token.type == "hr":
            _write(lines, prefixes, "-" * 20)
            _blank(lines, prefixes)
        elif token.type in ("paragraph_close", "heading_close") and not token.hidden:
            _blank(lines, prefixes)
    return "\n".join(lines).strip("\n")


def _write(lines: list[str], prefixes: list[str], text: str) -> None:
    for line in text.split("\n"):
        lines.append("".join(prefixes) + line)
        # A list's mark stands on the item's first line, the rest is indented under it.
        prefixes[:] = [mark if mark == "> " else " " * len(mark) for mark in prefixes]


def _blank(lines: list[str], prefixes: list[str]) -> None:
    line = "".join(mark if mark == "> " else " " * len(mark) for mark in prefixes).rstrip()
    if lines and not lines[-1].strip("> "):
        lines[-1] = line
    elif lines:
        lines.append(line)


def _readable_inline(children: list[Token], tokens: _Tokens) -> str:
    written: list[str] = []
    links: list[tuple[str, int]] = []
    for token in children:
        if token.type in ("softbreak", "hardbreak"):
            written.append("\n")
        elif token.type == "link_open":
            links.append((str(token.attrGet("href") or ""), len(written)))
        elif token.type == "link_close":
            url, start = links.pop()
            label = "".join(written[start:])
            if url.removeprefix("mailto:") != label:
                written.append(f" ({tokens.as_url(url)})" if label else tokens.as_url(url))
        else:
            written.append(token.content)
    return "".join(written)


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
        if match[2] == "u":
            yield Hole(tokens.field(match), Place.TEXT_URL)
        else:
            yield Hole(tokens.field(match), Place.URL_PART if start <= match.start() else place)
        end = match.end()
    yield text[end:]


def _merged(pieces: Iterator[str | Hole]) -> Pieces:
    """The same with neighbouring literals made one, so that no line break comes between them."""
    merged: list[str | Hole] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(piece for piece in merged if piece)
