"""Markdown as clean html and as readable plain text."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from mcs.core.language import BadContent

HTML_LIMIT = 500_000
DEPTH_LIMIT = 256
# Markdown's cost grows with its marks, not its letters: this many take a second or two at worst.
MARKS_LIMIT = 40_000

_TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "a", "img"}
_TAGS |= {"ul", "ol", "li", "blockquote", "pre", "code"}
_ATTRIBUTES = {"a": {"href", "title"}, "img": {"src", "alt", "title"}, "ol": {"start"}}
# A mail has no place of its own: a link without a scheme leads nowhere.
_LINKED = {"href": ("http://", "https://", "mailto:"), "src": ("https://",)}
_SCHEMES = {"http", "https", "mailto"}
# A line break that was typed is one: marketers write signatures of two lines.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True})
_MARKS = re.compile(r"[\n*_`\[!<>&\\#+-]")


def refuse_size(html: str) -> None:
    """Raises BadContent for what no mail should weigh (and css-inline should not see)."""
    if len(html.encode()) > HTML_LIMIT:
        raise BadContent(f"The html of this message is larger than {HTML_LIMIT // 1000} KB.")


@dataclass(frozen=True)
class Rendered:
    """Clean html, the same as plain text, and the links and images that had to be left out."""

    html: str
    text: str
    left_out: tuple[str, ...]


def rendered(source: str, as_url: Callable[[str], str]) -> Rendered:
    """The source in both forms. Raises BadContent.

    ``as_url`` says how the address of a link is written in the text; what it changes is a merge
    field, which is looked at when its value is known.
    """
    if len(_MARKS.findall(source)) > MARKS_LIMIT:
        raise BadContent(f"There are more than {MARKS_LIMIT:,} marks of Markdown in this.")
    environment: dict[str, object] = {}
    parsed = _MARKDOWN.parse(source, environment)
    if _depth(parsed) > DEPTH_LIMIT:
        raise BadContent(f"Things are inside each other more than {DEPTH_LIMIT} deep.")
    html = _MARKDOWN.renderer.render(parsed, _MARKDOWN.options, environment)
    refuse_size(html)
    left_out: list[str] = []

    def only_safe_links(tag: str, attribute: str, value: str) -> str | None:
        schemes = _LINKED.get(attribute)
        if schemes is None or value.lower().startswith(schemes) or as_url(value) != value:
            return value
        left_out.append(value)
        return None

    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        attribute_filter=only_safe_links,
        link_rel=None,
    )
    return Rendered(clean, _readable(parsed, as_url), tuple(left_out))


def _depth(parsed: list[Token]) -> int:
    level = deepest = 0
    for token in parsed:
        level += token.nesting
        deepest = max(deepest, level + (_depth(token.children) if token.children else 0))
    return deepest


def _readable(parsed: list[Token], as_url: Callable[[str], str]) -> str:
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
            _write(lines, prefixes, _readable_inline(token.children or [], as_url))
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


def _readable_inline(children: list[Token], as_url: Callable[[str], str]) -> str:
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
                written.append(f" ({as_url(url)})" if label else as_url(url))
        else:
            written.append(token.content)
    return "".join(written)
