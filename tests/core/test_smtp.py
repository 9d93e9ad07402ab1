"""Replies cut from bytes, however they arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcs.core.smtp import LONGEST_REPLY, BadReply, Reply, ReplyReader, offers

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


GARBAGE = [b"hello\r\n", b"99 low\r\n", b"600 high\r\n", b"\r\n", b"\xff\xfe\r\n", b"25O OK\r\n"]
ENDLESS = b"250" + b"x" * LONGEST_REPLY


@pytest.mark.parametrize("garbage", [*GARBAGE, ENDLESS])
@pytest.mark.parametrize(
    ("before", "heard"),
    [
        (b"", []),
        (b"250 2.0.0 queued\r\n", [250]),
        (b"250-2.0.0 queued\r\n250 as 4cX\r\n550 No\r\n", [250, 550]),
        (b"250-never completed\r\n", []),
    ],
)
def test_what_is_no_reply_is_refused_and_what_came_before_it_is_heard(
    before: bytes, heard: list[int], garbage: bytes
) -> None:
    replies: list[Reply] = []
    with pytest.raises(BadReply):
        replies.extend(ReplyReader().feed(before + garbage + b"250 OK\r\n"))
    assert [reply.code for reply in replies] == heard


@pytest.mark.parametrize("piece", [b"250" + b"x" * 10_000, b"250-more\r\n" * 200])
def test_a_reply_without_end_is_refused(piece: bytes) -> None:
    reader = ReplyReader()
    with pytest.raises(BadReply):
        for _ in range(10):
            assert list(reader.feed(piece)) == []
