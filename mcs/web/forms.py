"""What forms share: text without stray spaces, and a service's refusal shown at its field."""

from flask_wtf import FlaskForm


def trimmed(value: str | None) -> str:
    """What was typed, without the spaces around it; NUL, which PostgreSQL refuses, taken out."""
    return (value or "").replace("\x00", "").strip()


def complain(form: FlaskForm, field: str, reason: str) -> None:
    """Show a refusal at the form's field of that name, or at its top."""
    if field in form:
        form[field].errors = [*form[field].errors, reason]
    else:
        form.form_errors.append(reason)
