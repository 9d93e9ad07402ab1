"""The content language: what it says, what it refuses, and what a marketer is told."""

import time

import pytest

from mcs.core import language, tree
from mcs.core.content import Problem, check, fields_used, fields_without_default
from mcs.core.language import BadContent

KNOWN = ("company", "city", "visits")


def told(subject: str = "News", content: str = "Hello", format: str = "text") -> list[Problem]:
    return check(subject, content, format, KNOWN)


def text(source: str, **values: str) -> str:
    parsed = language.parse(source)
    pieces = tree.follow(parsed, tree.path(parsed, values))
    return "".join(piece if isinstance(piece, str) else piece.of(values) for piece in pieces)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hello {{ company }}", "Hello Acme"),
        ("{{company}}{{ city }}", "AcmeBerlin"),
        ("{{ nothing }}", ""),
        ("{{ nothing | default('there') }}", "there"),
        ('{{ blank | default("there") }}', "there"),
        ('{{ company | default("there") }}', "Acme"),
        ("{{ company | upper }}", "ACME"),
        ("{{ company | lower }}", "acme"),
        ("{{ low | title }}", "Anna Maria"),
        ("{{ low | capitalize }}", "Anna maria"),
        ("[{{ spaced | trim }}]", "[x]"),
        ("{{ nothing | default('there') | upper }}", "THERE"),
        ("{{ größe }}", "XL"),
        ("{% if company %}yes{% endif %}", "yes"),
        ("{% if blank %}yes{% endif %}", ""),
        ("{% if nothing %}yes{% else %}no{% endif %}", "no"),
        ("{% if not nothing %}yes{% endif %}", "yes"),
        ("{% if company and city %}both{% endif %}", "both"),
        ("{% if company and nothing %}both{% else %}one{% endif %}", "one"),
        ("{% if nothing or city %}one{% endif %}", "one"),
        ("{% if city == 'Berlin' %}B{% else %}-{% endif %}", "B"),
        ("{% if city != 'Berlin' %}B{% else %}-{% endif %}", "-"),
        ("{% if city | lower == 'berlin' %}B{% endif %}", "B"),
        ("{% if (city == 'Rome' or company == 'Acme') and low %}B{% endif %}", "B"),
        ("{% if city == 'A' %}A{% elif city == 'Berlin' %}B{% else %}C{% endif %}", "B"),
        ("{% if company is defined %}D{% endif %}", "D"),
        ("{% if nothing is not defined %}N{% endif %}", "N"),
        ("{% if company %}a{% if city %}b{% endif %}c{% endif %}d", "abcd"),
        ("100 % of { us } # here", "100 % of { us } # here"),
        ("a{# a note #}b", "ab"),
        ("{{ braces }}", "{{ company }}"),
    ],
)
def test_a_content_says_what_it_means(source: str, expected: str) -> None:
    values = {
        "company": "Acme",
        "city": "Berlin",
        "low": "anna maria",
        "spaced": " x ",
        "größe": "XL",
    }
    assert text(source, blank="  ", braces="{{ company }}", **values) == expected


@pytest.mark.parametrize(
    ("source", "with_value", "without"),
    [
        ("a\n{% if x %}\nb\n{% endif %}\nc", "a\nb\nc", "a\nc"),
        ("a\n\n{% if x %}\nb\n{% endif %}\n\nc", "a\n\nb\n\nc", "a\n\nc"),
        ("a\n  {% if x %}  \nb\n\t{% else %}\nd\n{% endif %}", "a\nb\n", "a\nd\n"),
        ("a {% if x %}b{% endif %}\nc", "a b\nc", "a \nc"),
        ("a\r\n{% if x %}\r\nb\r\n{% endif %}\r\nc", "a\nb\nc", "a\nc"),
        ("{% if x == '%}' %}\nb\n{% endif %}\nc", "c", "c"),
    ],
)
def test_a_line_of_only_tags_leaves_no_empty_line(
    source: str, with_value: str, without: str
) -> None:
    assert (text(source, x="1"), text(source)) == (with_value, without)


INJECTIONS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ name.__class__ }}",
    "{{ name['__class__'] }}",
    "{{ name|attr('__class__') }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ config.items() }}",
    "{{ request.application.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ range(10**9) }}",
    "{{ 'a' * 10**9 }}",
    "{{ name * 99999 }}",
    "{{ 7 * 7 }}",
    "{{ name ~ name }}",
    "{{ name + name }}",
    "{{ -name }}",
    "{{ [name] }}",
    "{{ {'a': name} }}",
    "{{ name() }}",
    "{{ name if name else name }}",
    "{{ name is defined }}",
    "{{ name == 'x' }}",
    "{{ 'fixed' }}",
    "{{ name|map('upper')|list }}",
    "{{ name|upper() ** 2 }}",
    "{{ name|default(name) }}",
    "{{ name|default('a' * 9) }}",
    "{{ name|default('\\x41') }}",
    "{{ name|replace('a', 'b') }}",
    "{{ name|center(1000000000) }}",
    "{{ name|upper(1) }}",
    "{{ _private }}",
    "{{ __class__ }}",
    "{% for x in name %}x{% endfor %}",
    "{% for x in range(9) %}{% for y in range(9) %}x{% endfor %}{% endfor %}",
    "{% set x = 1 %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'x' import y %}",
    "{% extends 'base.html' %}",
    "{% block x %}{% endblock %}",
    "{% macro x() %}x{% endmacro %}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% with x = name %}{% endwith %}",
    "{% autoescape false %}x{% endautoescape %}",
    "{% raw %}{{ name }}{% endraw %}",
    "{% print(name) %}",
    "{% do name %}",
    "{% debug %}",
    "{% if name.x %}x{% endif %}",
    "{% if name() %}x{% endif %}",
    "{% if name in 'abc' %}x{% endif %}",
    "{% if name > 'a' %}x{% endif %}",
    "{% if name == name %}x{% endif %}",
    "{% if 'a' == 'a' == 'a' %}x{% endif %}",
    "{% if 1 %}x{% endif %}",
    "{% if true %}x{% endif %}",
    "{% if name is divisibleby 3 %}x{% endif %}",
    "{% if name is sameas('x') %}x{% endif %}",
]


@pytest.mark.parametrize("payload", INJECTIONS)
def test_h20_an_injection_is_refused_with_its_line(payload: str) -> None:
    (problem,) = told(content=f"Dear {{{{ name }}}},\n\n{payload}\n")
    assert problem.fatal
    assert problem.field == "content"
    assert problem.text.startswith("Line 3: ")
    assert problem.text.endswith(".")
    (problem,) = told(subject=f"x {payload}")
    assert problem.fatal
    assert problem.field == "subject"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a\n{{ name", "Line 2: {{ is never closed: write }} behind the name."),
        ("{% if name %}\na", "Line 2: A {% if %} has no {% endif %}, or a {{ has no }}."),
        (
            "a\n{% endif %}",
            "Line 2: A {% endif %}, {% else %} or {% elif %} has no {% if %} before it.",
        ),
        ("{{ first name }}", "Line 1: Something inside {{ }} or {% %} is too much or missing."),
        ("{{ }}", "Line 1: A {{ }} or {% if %} is empty."),
        ("{% if %}a{% endif %}", "Line 1: A {{ }} or {% if %} is empty."),
        ("{# a", "Line 1: A {# has no #}."),
        ("{{ name.first }}", "Line 1: A dot inside a field is not allowed."),
        ("{% if visits == 3 %}a{% endif %}", 'Line 1: A number must stand in quotes, like "3".'),
        (
            "{{ name | reverse }}",
            'Line 1: There is no filter "reverse"; '
            "there are default, upper, lower, title, capitalize, trim.",
        ),
        (
            "{% for x in y %}a{% endfor %}",
            "Line 1: {% for %} is not allowed: there are only if, elif, else and endif.",
        ),
        (
            "{{ compny }}",
            "{{ compny }} is not a field of this campaign's contacts; did you mean company?",
        ),
        (
            "{{ Company }}",
            "{{ Company }} is not a field of this campaign's contacts; did you mean company?",
        ),
        ("{{ zzz }}", "{{ zzz }} is not a field of this campaign's contacts."),
        (
            "{% if zzz %}a{% endif %}{{ zzz }}",
            "{{ zzz }} is not a field of this campaign's contacts.",
        ),
        ("  \n", "The content is empty."),
        ("{% if name %}  {% endif %}", "The content is empty."),
    ],
)
def test_a_marketer_understands_what_is_wrong(content: str, sentence: str) -> None:
    assert told(content=content) == [Problem("content", sentence)]


NEVER_CLOSED = "{{ is never closed: write }} behind the name."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a\nb\n{{ oops\nc\nd alert(1) {{ name }} e", f"Line 3: {NEVER_CLOSED}"),
        ("a\n{{ oops\nit's {{ name }}", f"Line 2: {NEVER_CLOSED}"),
        ("{{ name }} {{ oops, 3 euros\n\n# Title", f"Line 1: {NEVER_CLOSED}"),
        ("Hi {{ name }\n{{ company }}", f"Line 1: {NEVER_CLOSED}"),
        ("{# {{ #}\n{{\nname\n}}\n{{ oops\n", f"Line 5: {NEVER_CLOSED}"),
        (
            "a\n{% if name\nHello {% endif %}",
            "Line 2: {% is never closed: write %} at its end.",
        ),
        ("{% if name }}\na{% endif %}", "Line 1: {% is never closed: write %} at its end."),
    ],
)
def test_a_tag_that_is_never_closed_is_told_with_its_own_line(content: str, sentence: str) -> None:
    assert told(content=content) == [Problem("content", sentence)]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{{ name\n}}\n{{ 3 }}", 3),
        ('{{ company\n| default("{{")\n}} {{ a b }}', 3),
        ("{# {{ #} {{ 3 }}", 1),
        ("{{ company | default('}}') }}\n{{ a.b }}", 2),
        ("{% if name\n%}a{% endif %}\n{{ a + 1 }}", 3),
        ("{{ name\n| reverse }}", 2),
        ("{{ it's }} {{ name }}", 1),
        ("{{ 3 }}\n{{ oops", 1),
    ],
)
def test_a_tag_on_several_lines_is_not_taken_for_one_that_is_never_closed(
    content: str, line: int
) -> None:
    (problem,) = told(content=content)
    assert problem.text.startswith(f"Line {line}: ")
    assert "never closed" not in problem.text


@pytest.mark.parametrize(
    ("subject", "sentence"),
    [
        ("", "The subject is empty."),
        (" \t", "The subject is empty."),
        ("a\nb", "The subject must be a single line."),
        ("a\u2028b", "The subject must be a single line."),
        (
            "{{ compny }}",
            "{{ compny }} is not a field of this campaign's contacts; did you mean company?",
        ),
        ("{{ name", "{{ is never closed: write }} behind the name."),
    ],
)
def test_a_subject_that_cannot_be_is_fatal(subject: str, sentence: str) -> None:
    assert told(subject=subject) == [Problem("subject", sentence)]


@pytest.mark.parametrize(
    "subject",
    [
        "Re: your order",
        "RE : your order",
        "  fwd: look",
        "Fw: x",
        "AW: x",
        "re[2]: x",
        "RE： x",
        "{% if company %}Re: x{% else %}y{% endif %}",
        "{% if company %}{% endif %}Re: x",
    ],
)
def test_h18_a_fake_reply_is_refused(subject: str) -> None:
    (problem,) = told(subject=subject)
    assert problem.fatal
    assert "Re:" in problem.text


@pytest.mark.parametrize(
    "subject", ["Recipes: ten of them", "Reward: 5 €", "Your order, Re: none", "{{ name }} Re: x"]
)
def test_h18_an_honest_subject_is_not(subject: str) -> None:
    assert told(subject=subject) == []


def test_a_good_scenario_has_no_problems() -> None:
    subject = "Hello {{ first_name | default('there') }}"
    content = (
        "Dear {{ name }},\n{% if company %}\n{{ company }}\n{% endif %}\n{{ unsubscribe_url }}"
    )
    assert check(subject, content, "markdown", KNOWN) == []


def test_a_field_without_default_is_a_warning() -> None:
    (problem,) = told(content="You at {{ company }} and {{ city | default('home') }}")
    assert not problem.fatal
    assert problem.text == (
        "A contact without company sees nothing in its place; "
        '{{ company | default("...") }} says what to write instead.'
    )


def test_an_address_that_leads_nowhere_is_a_warning() -> None:
    content = (
        "[a](www.x.example/{{ name }}) [b](https://x.example) "
        "![c](http://x.example/c.png) [d]({{ name }})"
    )
    problems = told(content=content, format="markdown")
    assert [problem.text for problem in problems] == [
        "The address www.x.example/{{ name }} does not begin with https:// and is left out.",
        "The address http://x.example/c.png does not begin with https:// and is left out.",
    ]
    assert not any(problem.fatal for problem in problems)


def test_fields_used_are_printed_or_asked_about() -> None:
    content = "{{ company | upper }}{% if city == 'x' %}{{ email }}{% endif %}"
    assert fields_used("Hi {{ name }}", content) == {"name", "company", "city", "email"}
    assert fields_used("Hi {{ name", content) == {"company", "city", "email"}


def test_fields_without_default_leave_gaps() -> None:
    content = (
        "{{ company }}{{ city | default('x') }}{{ email }}"
        "{% if visits %}{{ visits }}{% else %}{{ plan }}{% endif %}"
    )
    assert fields_without_default("Hi {{ name }}", content) == {"name", "company", "plan"}


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_h19_much_html_warns_and_too_much_is_refused(format: str) -> None:
    assert told(content="word " * 18_000, format=format) == []
    (warning,) = told(content="word " * 30_000, format=format)
    assert not warning.fatal
    assert "Gmail cuts off" in warning.text
    (refusal,) = told(content="& " * 120_000, format=format)
    assert refusal.fatal


def test_h19_counts_the_longest_branches() -> None:
    content = "{% if company %}short{% else %}" + "word " * 30_000 + "{% endif %}"
    (warning,) = told(content=content)
    assert "Gmail cuts off" in warning.text


MONSTERS = {
    "deep emphasis": "*" * 20_000 + "a" + "*" * 20_000,
    "deep quotes": ">" * 20_000 + " a",
    "many quotes": "> a\n" * 100_000,
    "deep lists": "".join(" " * 2 * depth + "- a\n" for depth in range(600)),
    "brackets": "[" * 499_000,
    "image brackets": "![" * 249_000,
    "links": "[a](" * 120_000,
    "ticks": "`a``b" * 99_000,
    "html tags": "<div>" * 99_000,
    "ifs inside ifs": "{% if name %}" * 20_000 + "a" + "{% endif %}" * 20_000,
    "ifs in a row": "{% if name %}x{% endif %}" * 20_000,
    "elifs": "{% if name %}x" + "{% elif name %}y" * 20_000 + "{% endif %}",
    "fields": "{{ name }}" * 45_000,
    "round brackets": "{{" + "(" * 100_000 + "name" + ")" * 100_000 + "}}",
    "nots": "{% if " + "not " * 100_000 + "name %}a{% endif %}",
    "filters": "{{ name" + "|upper" * 80_000 + "}}",
    "a huge number": "{{ " + "9" * 100_000 + " }}",
    "too long": "a" * 600_000,
}


@pytest.mark.parametrize("format", ["text", "markdown"])
@pytest.mark.parametrize("monster", MONSTERS)
def test_a_pathological_content_takes_bounded_time(monster: str, format: str) -> None:
    started = time.process_time()
    problems = check("News", MONSTERS[monster], format, ())
    assert time.process_time() - started < 10
    assert problems or monster.startswith("deep")


@pytest.mark.parametrize(
    ("monster", "sentence"),
    [
        ("deep emphasis", "Things are inside each other more than 256 deep."),
        ("brackets", "There are more than 40,000 marks of Markdown in this."),
        ("ifs inside ifs", "Line 1: More than 20 ifs are inside each other."),
        ("ifs in a row", "Line 1: There are more than 5,000 fields and ifs."),
        ("round brackets", "Line 1: This tag is too long."),
        ("too long", "Line 1: This is longer than 500,000 characters."),
    ],
)
def test_a_pathological_content_is_refused_in_words(monster: str, sentence: str) -> None:
    assert told(content=MONSTERS[monster], format="markdown") == [Problem("content", sentence)]


def test_a_refusal_knows_its_line() -> None:
    with pytest.raises(BadContent) as refused:
        language.parse("a\n{% if x %}\nb\n{% endif %}\n\n{{ x.y }}")
    assert refused.value.line == 6
