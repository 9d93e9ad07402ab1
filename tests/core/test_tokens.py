"""Unsubscribe tokens: whom they speak of, and what they are not good for."""

import base64

import pytest

from mcs.core.tokens import RESUBSCRIBE, UNSUBSCRIBE, Recipient, Signer

ANN = Recipient("contact-ann", "campaign-1")


def test_a_token_says_whom_it_was_made_for() -> None:
    signer = Signer(["key-one"], UNSUBSCRIBE)
    assert signer.read(signer.sign(ANN)) == ANN


def test_the_newest_key_signs_and_every_key_verifies() -> None:
    old, rotated = Signer(["old"], UNSUBSCRIBE), Signer(["new", "old"], UNSUBSCRIBE)
    assert rotated.read(old.sign(ANN)) == ANN
    assert old.read(rotated.sign(ANN)) is None
    assert Signer(["new"], UNSUBSCRIBE).read(rotated.sign(ANN)) == ANN


def test_a_token_is_good_for_its_purpose_only() -> None:
    token = Signer(["key"], UNSUBSCRIBE).sign(ANN)
    assert Signer(["key"], RESUBSCRIBE).read(token) is None


def test_no_address_stands_in_it() -> None:
    payload = Signer(["key"], UNSUBSCRIBE).sign(ANN).split(".")[0]
    assert b"@" not in base64.urlsafe_b64decode(payload + "==")


@pytest.mark.parametrize("token", ["", ".", "a.b", "x" * 5000, "ünï", "WyJhIl0.aaaa", "null.x"])
def test_what_we_did_not_sign_says_nothing(token: str) -> None:
    assert Signer(["key"], UNSUBSCRIBE).read(token) is None


@pytest.mark.parametrize("payload", [[1], {"a": 1}, "text", ["a", "b", "c"], [1, 2], None])
def test_a_signed_thing_of_another_shape_says_nothing(payload: object) -> None:
    signer = Signer(["key"], UNSUBSCRIBE)
    token = signer._serializer.dumps(payload)
    assert signer.read(str(token)) is None
