"""Which addresses are taken, by which key two are the same, and what is said of the others."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from mcs.core.addresses import Address, BadAddress, parse_address, tombstone_key

GOOD = [
    ("ann@people.example", "ann@people.example"),
    ("  Ann@People.Example\n", "ann@people.example"),
    ("\ufeffann@people.example\u200b", "ann@people.example"),
    ("ann+news@people.example", "ann+news@people.example"),
    ("o'hara@people.example", "o'hara@people.example"),
    ("a.b-c_d@mail.people.test", "a.b-c_d@mail.people.test"),
    ("jörg@people.example", "jörg@people.example"),
    ("JO\u0308RG@people.example", "jörg@people.example"),
    ("ann@MÜLLER.example", "ann@xn--mller-kva.example"),
    ("ann@xn--mller-kva.example", "ann@xn--mller-kva.example"),
    ("ann@b--c.example", "ann@b--c.example"),
    ("x@1.example", "x@1.example"),
    (f"{'a' * 64}@people.example", f"{'a' * 64}@people.example"),
    (f"ann@{'b' * 63}.example", f"ann@{'b' * 63}.example"),
]

BAD = [
    ("", "the address is empty"),
    ("   ", "the address is empty"),
    ("ann", "there is no @"),
    ("ann.people.example", "there is no @"),
    ("@people.example", "there is nothing before the @"),
    ("ann@", "there is nothing after the @"),
    ("ann@people", "the part after the @ has no dot"),
    ("ann@test", "the part after the @ has no dot"),
    ("ann@localhost", "the part after the @ has no dot"),
    ("ann@@people.example", "there is more than one @"),
    ("ann@bob@people.example", "there is more than one @"),
    ("ann lee@people.example", "there is a space in it"),
    ("ann@people .example", "there is a space in it"),
    ("ann\r\nBcc: bob@people.example", "there is a space in it"),
    ("Ann <ann@people.example>", "there are angle brackets: only the address belongs here"),
    ("ann@people.example, bob@people.example", "there is a comma or a semicolon in it"),
    ("ann@people,example", "there is a comma or a semicolon in it"),
    ('"ann"@people.example', "quotation marks before the @ are not supported"),
    ("ann@[127.0.0.1]", "an IP address after the @ is not supported"),
    ("ann@127.0.0.1", "the part after the @ ends with a number"),
    ("ann..lee@people.example", "there are two dots in a row"),
    ("ann@people..example", "there are two dots in a row"),
    (".ann@people.example", "the part before the @ begins or ends with a dot"),
    ("ann.@people.example", "the part before the @ begins or ends with a dot"),
    ("ann@people.example.", "the part after the @ begins or ends with a dot"),
    ("ann@printer.local", "nobody can receive mail at a .local address"),
    ("ann@people.invalid", "nobody can receive mail at a .invalid address"),
    ("ann@-people.example", "the part after the @ is not a domain name"),
    ("ann@pe_ople.example", "the part after the @ is not a domain name"),
    (f"ann@{'b' * 64}.example", "the part after the @ is not a domain name"),
    ("ann(home)@people.example", "there is a character before the @ that cannot be there"),
    ("ann\x00@people.example", "there is a character before the @ that cannot be there"),
    (f"{'a' * 65}@people.example", "it has more than 64 characters before the @"),
    (f"ann@{'b.' * 130}example", "it is longer than 254 characters"),
    (f"{'ö' * 64}@{'b.' * 70}example", "it is too long"),
]


@pytest.mark.parametrize(("text", "key"), GOOD)
def test_good_address(text: str, key: str) -> None:
    address = parse_address(text)
    assert address.key == key
    assert address.email in text


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_bad_address_says_why(text: str, reason: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parse_address(text)
    assert refused.value.reason == reason


def test_the_key_of_a_key_is_itself() -> None:
    for _, key in GOOD:
        assert parse_address(key) == Address(key, key)


_PARTS = st.text("abzAZ09.-_+'@! xnöÄ中\u0308\u212aı", max_size=12)
_DOMAINS = st.sampled_from(
    [
        "example",
        "people.example",
        "b--c.test",
        "xn--a.de",
        "local",
        "a.local",
        "x.c0m",
        "1.1",
        "ä.de",
    ]
)
_LOOKALIKES = st.builds("{}@{}{}".format, _PARTS, _PARTS, st.one_of(st.just(""), _DOMAINS))


@settings(max_examples=500, deadline=None)
@given(_LOOKALIKES)
def test_agrees_with_email_validator(text: str) -> None:
    """The fast path and the cache take what email-validator takes, and nothing else."""
    text = text.strip()
    try:
        found = validate_email(
            text, strict=True, check_deliverability=False, test_environment=True
        ).ascii_domain
        expected = found.lower() if "." in found else None
    except EmailNotValidError:
        expected = None
    try:
        key: str | None = parse_address(text).key
    except BadAddress:
        key = None
    assert (key and key.rpartition("@")[2]) == expected


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_has_a_reason(text: str) -> None:
    try:
        parse_address(text)
    except BadAddress as refused:
        assert refused.reason


def test_a_tombstone_is_found_again_only_with_the_secret() -> None:
    key = tombstone_key("secret", "ann@people.example")
    assert key == tombstone_key("secret", "ann@people.example")
    assert key != tombstone_key("another", "ann@people.example")
    assert key.startswith("#")
    assert len(key) == 65
    assert "ann" not in key
