"""What a person reads when a request cannot be answered: what happened, and what to do."""

from dataclasses import dataclass

from flask import Flask, render_template
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError
from werkzeug.exceptions import HTTPException

from mcs.extensions import db
from mcs.services.unknown import Unknown


@dataclass(frozen=True)
class Page:
    title: str
    text: str


PAGES = {
    400: Page("That request could not be read", "Go back, load the page again, and try once more."),
    403: Page("That is not yours to open", "Ask the owner of this installation if you need it."),
    404: Page("There is no such page", "It may have been deleted, or the address has a typo."),
    405: Page("That address does not take this", "Go back and use the page's own buttons."),
    413: Page(
        "That is too large",
        "A CSV may have up to 200 MB, any other form up to 2 MB. Go back, what you typed is"
        " still there: make it smaller, or split the file.",
    ),
    422: Page("Something in there is not right", "Go back, check the form, and send it again."),
    429: Page("Too many attempts", "Wait a quarter of an hour, then try again."),
    500: Page(
        "Something went wrong here",
        "It is our fault, not yours. What was confirmed before is safe. Try again; if it happens"
        " again, the log says what it was.",
    ),
}
CSRF_PAGE = Page(
    "This page was open too long",
    "You were signed out, or signed in again, since it was loaded. Go back, load it again, and"
    " send it once more. Nothing was changed.",
)


def init_app(app: Flask) -> None:
    """Register a page for each of the errors above."""
    app.register_error_handler(HTTPException, show_error)
    app.register_error_handler(Unknown, lambda error: answer(PAGES[404], 404))
    app.register_error_handler(DataError, refuse_value)
    app.register_error_handler(CSRFError, lambda error: answer(CSRF_PAGE, 400))


def refuse_value(_error: DataError) -> tuple[str, int]:
    """A value that PostgreSQL cannot hold, such as a NUL or a number beyond its columns."""
    db.session.rollback()
    return answer(PAGES[400], 400)


def show_error(error: HTTPException) -> tuple[str, int] | HTTPException:
    """The error as a page; redirects and other non-errors go through as they are."""
    code = error.code or 500
    if error.response is not None or code < 400:
        return error
    return answer(PAGES.get(code) or PAGES[400 if code < 500 else 500], code)


def answer(page: Page, code: int) -> tuple[str, int]:
    return render_template("error.html", page=page, code=code), code
