"""The language of subjects and contents: a small part of Jinja's, parsed and never run by Jinja.

Text; ``{{ name }}``; ``{{ company | default("there") }}`` and the other FILTERS; ``{% if %}``,
``{% elif %}``, ``{% else %}`` over fields, ``not``, ``and``, ``or``, ``==`` and ``!=`` with quoted
text, ``is defined``. Everything else is refused: first by an allow-list of tokens, then by an
allow-list of Jinja's syntax nodes. So what a marketer types costs what its length says, no more.
"""

import re
from collections.abc import Callable

from jinja2 import Environment, TemplateSyntaxError, nodes

from mcs.core.tree import Choice, Condition, Field, Nodes

SOURCE_LIMIT = 500_000
TAGS_LIMIT = 5_000
TAG_LIMIT = 60
DEPTH_LIMIT = 20

FILTERS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "capitalize": str.capitalize,
    "trim": str.strip,
}
TAGS = ("if", "elif", "else", "endif")

# It parses. Nothing is ever compiled or rendered by it.
_JINJA = Environment(keep_trailing_newline=True)
_TAG = r"\{%(?:[^\n\"'%]|%(?!\})|\"[^\"\n]*\"|'[^'\n]*')*%\}"
_LINE_OF_TAGS = re.compile(rf"^[ \t]*({_TAG}(?:[ \t]*{_TAG})*)[ \t]*\n", re.MULTILINE)
_BEGINS = re.compile(r"\{\{|\{%")
# Comments, and tags on however many lines. Atomic groups, so that its time is linear: possessive
# quantifiers around groups match wrongly in Python 3.11.2.
_INSIDE = r"(?>(?:\"[^\"\n]*\"|'[^'\n]*'|(?!\}\}|%\}|\{\{|\{%).)*)"
_CLOSED = re.compile(
    rf"\{{#(?>(?:(?!#\}}|\{{#).)*)#\}}|\{{\{{{_INSIDE}\}}\}}|\{{%{_INSIDE}%\}}", re.DOTALL
)
_UNCLOSED = {
    "{{": "{{ is never closed: write }} behind the name.",
    "{%": "{% is never closed: write %} at its end.",
}
_FORBIDDEN: dict[type[nodes.Node], str] = {
    nodes.Getattr: "A dot inside a field is not allowed",
    nodes.Getitem: "Square brackets are not allowed",
    nodes.Call: "A call with brackets is not allowed",
    nodes.CondExpr: "An if inside {{ }} is not allowed; use {% if %}",
    nodes.Concat: "Joining with ~ is not allowed",
    nodes.BinExpr: "Calculating is not allowed",
    nodes.UnaryExpr: "Calculating is not allowed",
    nodes.Literal: "Fixed text inside {{ }} is not allowed; write it outside",
}


class BadContent(ValueError):
    """A source that is not in the language. ``reason`` is a plain sentence, ``line`` where."""

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def parse(source: str) -> Nodes:
    """The source as text, fields and choices. Raises BadContent.

    A line of nothing but tags leaves no empty line behind.
    """
    if len(source) > SOURCE_LIMIT:
        raise BadContent(f"This is longer than {SOURCE_LIMIT:,} characters.")
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    try:
        return _read(source)
    except BadContent as refusal:
        unclosed = _unclosed(source, refusal.line)
        if unclosed is None:
            raise
        raise unclosed from refusal


def _read(source: str) -> Nodes:
    try:
        source = _LINE_OF_TAGS.sub(_line_end_into_tag, source)
        _refuse_tokens(source)
        return _parsed(_JINJA.parse(source).body)
    except TemplateSyntaxError as error:
        raise BadContent(_plain(error), error.lineno) from error


def _unclosed(source: str, line: int) -> BadContent | None:
    """What is wrong at a line or before it, where that is a tag that is not closed before another
    one begins: it takes the text behind it for its own, so that this is refused further down."""
    left = _CLOSED.sub(lambda whole: "\n" * whole[0].count("\n"), source)
    begins = _BEGINS.search(left)
    if begins is None:
        return None
    at = left.count("\n", 0, begins.start()) + 1
    return BadContent(_UNCLOSED[begins[0]], at) if at <= line else None


def _line_end_into_tag(line: re.Match[str]) -> str:
    """Move the line end inside the last tag: the line vanishes, line numbers stay true."""
    tags = line[1]
    if tags[-3] in "-+":
        return line[0]
    return f"{tags[:-2]}\n%}}"


def _refuse_tokens(source: str) -> None:
    """Bound the parser's work, and refuse by the token what needs no understanding."""
    depth = tags = tokens = 0
    tag_begins = False
    for line, kind, text in _JINJA.lex(source):
        if kind == "raw_begin":
            raise BadContent("{% raw %} is not allowed.", line)
        if kind in ("block_begin", "variable_begin"):
            tokens, tag_begins = 0, kind == "block_begin"
            tags += 1
            if tags > TAGS_LIMIT:
                raise BadContent(f"There are more than {TAGS_LIMIT:,} fields and ifs.", line)
            continue
        tokens += kind != "whitespace"
        if tokens > TAG_LIMIT:
            raise BadContent("This tag is too long.", line)
        if kind in ("integer", "float"):
            raise BadContent(f'A number must stand in quotes, like "{text[:20]}".', line)
        if kind == "string" and "\\" in text:
            raise BadContent("A backslash is not allowed inside quotes.", line)
        if kind == "name" and tag_begins:
            if text not in TAGS:
                raise BadContent(
                    f"{{% {text[:40]} %}} is not allowed: there are only if, elif, else and endif.",
                    line,
                )
            depth += (text == "if") - (text == "endif")
            if depth > DEPTH_LIMIT:
                raise BadContent(f"More than {DEPTH_LIMIT} ifs are inside each other.", line)
        tag_begins = tag_begins and kind == "whitespace"


def _parsed(body: list[nodes.Node]) -> Nodes:
    tree: list[str | Field | Choice] = []
    for node in body:
        if isinstance(node, nodes.Output):
            tree += [_text_or_field(part) for part in node.nodes]
        elif isinstance(node, nodes.If):
            tree.append(_choice(node))
        else:
            raise _refusal(node)
    return tuple(tree)


def _text_or_field(node: nodes.Expr) -> str | Field:
    return node.data if isinstance(node, nodes.TemplateData) else _field(node)


def _field(node: nodes.Node) -> Field:
    changes: list[Callable[[str], str]] = []
    has_default = False
    while isinstance(node, nodes.Filter):
        changes.append(_change(node))
        has_default = has_default or node.name == "default"
        if node.node is None:
            raise _refusal(node)
        node = node.node
    if not isinstance(node, nodes.Name):
        raise _refusal(node)
    if node.name.startswith("_"):
        raise BadContent(f"{node.name[:40]} is not a field: none begins with _.", node.lineno)
    return Field(node.name, tuple(reversed(changes)), has_default)


def _change(node: nodes.Filter) -> Callable[[str], str]:
    given = [*node.args, *node.kwargs, node.dyn_args, node.dyn_kwargs]
    given = [argument for argument in given if argument is not None]
    if node.name == "default":
        instead = _quoted_text(given[0]) if len(given) == 1 else None
        if instead is None:
            raise BadContent('default needs a text in quotes, like default("there").', node.lineno)
        return _default(instead)
    if node.name not in FILTERS:
        allowed = ", ".join(["default", *FILTERS])
        raise BadContent(
            f'There is no filter "{node.name[:40]}"; there are {allowed}.', node.lineno
        )
    if given:
        raise BadContent(f'The filter "{node.name}" takes nothing in brackets.', node.lineno)
    return FILTERS[node.name]


def _default(instead: str) -> Callable[[str], str]:
    return lambda text: text if text.strip() else instead


def _quoted_text(node: nodes.Node | None) -> str | None:
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return node.value
    return None


def _choice(node: nodes.If) -> Choice:
    branches: list[tuple[Condition | None, Nodes]] = [
        (_condition(branch.test), _parsed(branch.body)) for branch in [node, *node.elif_]
    ]
    if node.else_:
        branches.append((None, _parsed(node.else_)))
    return Choice(tuple(branches))


def _condition(node: nodes.Node) -> Condition:
    if isinstance(node, nodes.Not):
        inner = _condition(node.node)
        return Condition(lambda values: not inner.holds(values), inner.fields)
    if isinstance(node, nodes.And | nodes.Or):
        return _both_or_either(node)
    if isinstance(node, nodes.Compare):
        return _comparison(node)
    if isinstance(node, nodes.Test):
        if node.name != "defined" or node.args:
            raise BadContent('The only test with "is" is "is defined".', node.lineno)
        return _has_value(_field(node.node))
    return _has_value(_field(node))


def _has_value(field: Field) -> Condition:
    return Condition(lambda values: bool(field.of(values).strip()), (field,))


def _both_or_either(node: nodes.And | nodes.Or) -> Condition:
    left, right = _condition(node.left), _condition(node.right)
    both = left.fields + right.fields
    if isinstance(node, nodes.And):
        return Condition(lambda values: left.holds(values) and right.holds(values), both)
    return Condition(lambda values: left.holds(values) or right.holds(values), both)


def _comparison(node: nodes.Compare) -> Condition:
    operand = node.ops[0]
    text = _quoted_text(operand.expr)
    if len(node.ops) > 1 or operand.op not in ("eq", "ne") or text is None:
        raise BadContent(
            'A field can only be compared with text, like city == "Berlin" or city != "Berlin".',
            node.lineno,
        )
    field, wanted = _field(node.expr), operand.op == "eq"
    return Condition(lambda values: (field.of(values) == text) is wanted, (field,))


def _refusal(node: nodes.Node) -> BadContent:
    for kind, sentence in _FORBIDDEN.items():
        if isinstance(node, kind):
            return BadContent(f"{sentence}.", node.lineno)
    return BadContent("Only fields, filters and if are allowed here.", node.lineno)


def _plain(error: TemplateSyntaxError) -> str:
    message = error.message or ""
    if "unexpected end of template" in message.lower() or "end of template" in message:
        return "A {% if %} has no {% endif %}, or a {{ has no }}."
    if "Missing end of comment" in message:
        return "A {# has no #}."
    if "unknown tag" in message:
        return "A {% endif %}, {% else %} or {% elif %} has no {% if %} before it."
    if "Expected an expression" in message:
        return "A {{ }} or {% if %} is empty."
    if "expected token" in message.lower() and "end of" in message:
        return "Something inside {{ }} or {% %} is too much or missing."
    return f"This is not understood: {message.rstrip('.')}."
