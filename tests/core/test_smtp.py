"""Replies cut from bytes, however they arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcs.core.smtp import BadReply, ReplyReader, offers

CONVERSATION = (
    b"220 mx.example ESMTP\r\n"
    b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-AUTH PLAIN LOGIN\r\n"
    b"250 SMTPUTF8\r\n"
    b"550 5.1.1 <bob@people.example>: no such user\n"
    b"250\r\n"
)


@given(st.lists(st.integers(min_value=1, max_value=len(CONVERSATION)), max_size=20))
def test_replies_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]) -> None:
    reader = ReplyReader()
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    replies = [
        reply
        for low, high in itertools.pairwise(edges)
        for reply in reader.feed(CONVERSATION[low:high])
    ]
    assert [reply.code for reply in replies] == [220, 250, 550, 250]
    assert replies[2].enhanced == "5.1.1"
    assert replies[2].text == "5.1.1 <bob@people.example>: no such user"
    offered = offers(replies[1])
    assert (offered.pipelining, offered.smtputf8, offered.starttls) == (True, True, False)
    assert offered.size == 10240000
    assert offered.auth == {"PLAIN", "LOGIN"}


@pytest.mark.parametrize(
    "garbage",
    [b"hello\r\n", b"99 low\r\n", b"600 high\r\n", b"\r\n", b"\xff\xfe\r\n", b"25O OK\r\n"],
)
def test_what_is_no_reply_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadReply):
        ReplyReader().feed(garbage)


def test_a_reply_without_end_is_refused() -> None:
    reader = ReplyReader()
    with pytest.raises(BadReply):
        for _ in range(10):
            reader.feed(b"250" + b"x" * 10_000)


def test_lines_without_end_are_refused() -> None:
    reader = ReplyReader()
    with pytest.raises(BadReply):
        for _ in range(300):
            reader.feed(b"250-more\r\n" * 10)
