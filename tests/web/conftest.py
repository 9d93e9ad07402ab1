"""Olga owns the installation; Marie is one of its marketers."""

import pytest
from flask import Flask

from mcs.extensions import db
from mcs.services import users
from tests.web.visitor import MADE_AT, PASSWORD, Visitor, make_owner


@pytest.fixture
def stranger(app: Flask) -> Visitor:
    """Somebody who has not signed in, of an installation that has an owner."""
    make_owner(app)
    return Visitor(app)


@pytest.fixture
def olga(app: Flask) -> Visitor:
    make_owner(app)
    visitor = Visitor(app)
    assert visitor.sign_in().status_code == 303
    return visitor


@pytest.fixture
def marie(app: Flask, olga: Visitor) -> Visitor:
    with app.app_context():
        users.create_user(db.session(), MADE_AT, "marie@shop.example", PASSWORD, users.MARKETER)
    visitor = Visitor(app)
    assert visitor.sign_in("marie@shop.example").status_code == 303
    return visitor
