"""What forms share: text without stray spaces, and a service's refusal shown at its field."""

from flask import request
from flask_wtf import FlaskForm
from werkzeug.datastructures import FileStorage, MultiDict


class Form(FlaskForm):
    """A form of what was typed: not of files or JSON, which no field of it could take."""

    class Meta(FlaskForm.Meta):
        def wrap_formdata(self, form: FlaskForm, formdata: object) -> MultiDict[str, str] | None:
            return request.form if formdata is not None and form.is_submitted() else None


class FileForm(FlaskForm):
    """A form with a file in it."""

    class Meta(FlaskForm.Meta):
        def wrap_formdata(
            self, form: FlaskForm, formdata: object
        ) -> MultiDict[str, FileStorage] | None:
            return request.files if formdata is not None and form.is_submitted() else None


def typed(value: str | None) -> str:
    """What was typed, as it was; NUL, which PostgreSQL refuses, taken out."""
    return (value or "").replace("\x00", "")


def trimmed(value: str | None) -> str:
    """What was typed, without the spaces around it."""
    return typed(value).strip()


def complain(form: FlaskForm, field: str, reason: str) -> None:
    """Show a refusal at the form's field of that name, or at its top."""
    if field in form:
        form[field].errors = [*form[field].errors, reason]
    else:
        form.form_errors.append(reason)
