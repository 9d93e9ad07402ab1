"""What a marketer is told about a subject and a content before anything is sent."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from mcs.core import language, tree
from mcs.core.bodies import HTML_WARNING, Sender, bodies
from mcs.core.language import BadContent
from mcs.core.markdown import HTML_LIMIT
from mcs.core.tree import Nodes

BUILT_IN_FIELDS = ("name", "first_name", "email", "unsubscribe_url")

_LINE_BREAK = re.compile("[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_FAKE_REPLY = re.compile(r"\s*(?:re|fw|fwd|aw|wg|sv|antw)\s*(?:\[\d+\])?\s*[:：]", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the ``field`` ("subject" or "content"), as a sentence.

    A fatal one must be put right before the scenario can be scheduled.
    """

    field: str
    text: str
    fatal: bool = True


def check(subject: str, content: str, format: str, known: Collection[str]) -> list[Problem]:
    """All that is wrong, the subject's first; empty when nothing is.

    ``known`` are the attributes of the batch; the BUILT_IN_FIELDS need not be among them. A field
    that no contact can have is fatal. One contact's missing value is not: it is written as empty
    text, and ``fields_without_default`` says for which fields that can happen.
    """
    return [*_subject_problems(subject, known), *_content_problems(content, format, known)]


def fields_used(subject: str, content: str) -> set[str]:
    """The names of the fields that are printed or asked about. What cannot be read has none."""
    return {field.name for parsed in _readable(subject, content) for field in tree.fields(parsed)}


def fields_without_default(subject: str, content: str) -> set[str]:
    """The fields that leave a gap where a contact has no value: the caller counts such contacts.

    A field whose presence some ``{% if %}`` asks about is taken to be looked after.
    """
    printed, asked = set(), set()
    for parsed in _readable(subject, content):
        printed |= {field.name for field in tree.printed(parsed) if not field.has_default}
        asked |= {field.name for field in tree.asked(parsed)}
    return printed - asked - {"email", "unsubscribe_url"}


def _readable(*sources: str) -> Iterator[Nodes]:
    for source in sources:
        try:
            yield language.parse(source)
        except BadContent:
            continue


def _subject_problems(subject: str, known: Collection[str]) -> Iterator[Problem]:
    if _LINE_BREAK.search(subject):
        yield Problem("subject", "The subject must be a single line.")
        return
    try:
        parsed = language.parse(subject)
    except BadContent as error:
        yield Problem("subject", error.reason)
        return
    if tree.is_blank(parsed):
        yield Problem("subject", "The subject is empty.")
    if any(_FAKE_REPLY.match(text) for text in tree.beginnings(parsed)):
        yield Problem(
            "subject",
            "The subject begins like a reply (Re:) or a forwarded mail (Fwd:), which it is not; "
            "mail providers punish that.",
        )
    yield from _field_problems("subject", parsed, known)


def _content_problems(content: str, format: str, known: Collection[str]) -> Iterator[Problem]:
    try:
        parsed = language.parse(content)
    except BadContent as error:
        yield Problem("content", f"Line {error.line}: {error.reason}")
        return
    if tree.is_blank(parsed):
        yield Problem("content", "The content is empty.")
    yield from _field_problems("content", parsed, known)
    try:
        parts = bodies(tree.longest(parsed), format, Sender("", ""))
    except BadContent as error:
        yield Problem("content", error.reason)
        return
    for address in dict.fromkeys(parts.left_out):
        yield Problem(
            "content",
            f"The address {address[:80]} does not begin with https:// and is left out.",
            fatal=False,
        )
    size = parts.html_size
    if size > HTML_LIMIT:
        yield Problem("content", f"The message is larger than {HTML_LIMIT // 1000} KB.")
    elif size > HTML_WARNING:
        yield Problem(
            "content",
            f"The message has {size // 1000} KB of html: Gmail cuts off what is over "
            f"{HTML_WARNING // 1000} KB, the unsubscribe link with it.",
            fatal=False,
        )


def _field_problems(where: str, parsed: Nodes, known: Collection[str]) -> Iterator[Problem]:
    legal = sorted({*known, *BUILT_IN_FIELDS})
    used = dict.fromkeys(field.name for field in tree.fields(parsed))
    for name in used:
        if name not in legal:
            yield Problem(where, _unknown(name, legal))
    gaps = dict.fromkeys(field.name for field in tree.printed(parsed) if not field.has_default)
    asked = {field.name for field in tree.asked(parsed)}
    for name in gaps:
        if name in legal and name not in BUILT_IN_FIELDS and name not in asked:
            yield Problem(
                where,
                f"A contact without {name} sees nothing in its place; "
                f'{{{{ {name} | default("...") }}}} says what to write instead.',
                fatal=False,
            )


def _unknown(name: str, legal: Collection[str]) -> str:
    sentence = f"{{{{ {name} }}}} is not a field of this campaign's contacts"
    by_lower = {field.lower(): field for field in legal}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f"{sentence}; did you mean {by_lower[close[0]]}?" if close else f"{sentence}."
