"""What forms share: text without stray spaces, and a service's refusal shown at its field."""

from flask_wtf import FlaskForm


def typed(value: object) -> str:
    """What was typed, as it was; NUL, which PostgreSQL refuses, taken out. A file was not typed."""
    return value.replace("\x00", "") if isinstance(value, str) else ""


def trimmed(value: object) -> str:
    """What was typed, without the spaces around it."""
    return typed(value).strip()


def complain(form: FlaskForm, field: str, reason: str) -> None:
    """Show a refusal at the form's field of that name, or at its top."""
    if field in form:
        form[field].errors = [*form[field].errors, reason]
    else:
        form.form_errors.append(reason)
