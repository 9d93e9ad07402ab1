"""Reading what came: a body as JSON, parameters of the address, both held against their schemas."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from json import JSONDecodeError
from typing import Any

from flask import request
from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from mcs.api.problems import Problem, at, invalid, of_parameter
from mcs.api.schemas import SCHEMAS

JSON, NDJSON = "application/json", "application/x-ndjson"
DEEPEST = 20
LARGEST_NUMBER = 2**63
LONGEST_TEXT = 320
_MOST_SAID = 20


def body(schema: str, kinds: Sequence[str], largest: int) -> Any:
    """The request's body, which is as the schema of that name says. Raises Problem.

    A body of lines is the object that the schema describes, with its one list filled from them.
    """
    request.max_content_length = largest
    kind = request.mimetype
    if kind not in kinds:
        raise Problem("unsupported-media-type", f"Send {' or '.join(kinds)}.")
    raw = request.get_data(cache=False)
    # A body without a stated length is cut off there.
    if len(raw) >= largest:
        raise Problem("too-large")
    read = _lines(raw) if kind == NDJSON else _parsed(raw)
    _refuse_unkeepable(read)
    errors = list(_first(_validator(schema).iter_errors(read), _MOST_SAID))
    if errors:
        raise invalid(*(at(error.instance_path, _wrong(error)) for error in errors))
    return read


def query(parameters: Mapping[str, Mapping[str, Any]], needed: Sequence[str]) -> dict[str, Any]:
    """The address's parameters, each of the type that its schema names. Raises Problem.

    One that nobody knows is refused: a misspelt filter must not mean all.
    """
    errors = [
        of_parameter(name, f"unknown: use {', '.join(sorted(parameters)) or 'none'}")
        for name in request.args
        if name not in parameters
    ]
    errors += [of_parameter(name, "it is needed") for name in needed if name not in request.args]
    read: dict[str, Any] = {}
    for name, schema in parameters.items():
        given = request.args.getlist(name)
        if not given:
            continue
        try:
            read[name] = _of_type(schema, given)
        except ValueError as error:
            errors.append(of_parameter(name, str(error)))
    if errors:
        raise invalid(*errors)
    return read


def day(given: str) -> date:
    """A date of the body. Raises Problem for one that no calendar has."""
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise Problem("invalid", _no_date(given)) from None


def _no_date(given: str) -> str:
    return f"{given!r} is no date: write it as 2026-11-24"


def _parsed(raw: bytes, line: int | None = None) -> Any:
    try:
        return json.loads(
            raw.decode("utf-8"), parse_constant=_refuse, parse_float=_real, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise Problem("malformed", _not_json(error, line)) from None


def _not_json(error: Exception, line: int | None) -> str:
    if line is None:
        return f"It is not JSON in UTF-8: {error}."
    # The parser counts lines from the beginning of what it was given, which is this one.
    said = f"{error.msg}, column {error.colno}" if isinstance(error, JSONDecodeError) else error
    return f"Line {line} is not JSON in UTF-8: {said}."


def _lines(raw: bytes) -> dict[str, list[Any]]:
    lines = enumerate(raw.splitlines(), 1)
    return {"subjects": [_parsed(line, number) for number, line in lines if line.strip()]}


def _wrong(error: ValidationError) -> str:
    """What a schema says is wrong, in the words of who sent it."""
    kind = error.kind
    if isinstance(kind, ValidationErrorKind.Format) and kind.format == "date":
        return _no_date(str(error.instance))
    return _OF_KEYWORD.get(kind.name, error.message)


# Of keywords that only say who is enrolled: the message would name the schema's parts.
_OF_KEYWORD = {
    "anyOf": "give a subject with its subject_id, a contact, or a contact_id",
    "not": "give a contact or a contact_id, not both",
}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _real(text: str) -> float | int:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    # In JSON, 1.0 is as whole a number as 1.
    return int(number) if number.is_integer() and abs(number) < LARGEST_NUMBER else number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= LARGEST_NUMBER:
        raise ValueError("a number is too large")
    return number


def _refuse_unkeepable(read: Any) -> None:
    """What the databases cannot hold: NUL, halves of a character; and what is nested too deep."""
    waiting: list[tuple[Any, int]] = [(read, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise Problem("malformed", f"It is nested deeper than {DEEPEST} levels.")
        if isinstance(one, str):
            _refuse_unkeepable_text(one)
        elif isinstance(one, list):
            waiting += [(each, depth + 1) for each in one]
        elif isinstance(one, dict):
            waiting += [(each, depth + 1) for pair in one.items() for each in pair]


def _refuse_unkeepable_text(text: str) -> None:
    if text.isascii() and "\0" not in text:
        return
    if "\0" in text:
        raise Problem("invalid", "A text has the character NUL in it, which cannot be kept.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Problem("invalid", "A text has half of a surrogate pair in it.") from None


@cache
def _validator(schema: str) -> Any:
    found = {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": SCHEMAS}}
    return Draft202012Validator(found, validate_formats=True)


def _first(errors: Any, most: int) -> Any:
    return (error for _, error in zip(range(most), errors, strict=False))


def _of_type(schema: Mapping[str, Any], given: Sequence[str]) -> Any:
    if schema["type"] == "array":
        return [_of_type(schema["items"], [one]) for one in given]
    if len(given) > 1:
        raise ValueError("give it once")
    read: Callable[[Mapping[str, Any], str], Any] = _READERS[schema.get("format", schema["type"])]
    return read(schema, given[0])


def _integer(schema: Mapping[str, Any], text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise ValueError(f"{text!r} is no whole number")
    low, high = schema["minimum"], schema["maximum"]
    if not low <= int(text) <= high:
        raise ValueError(f"{text}: use a number from {low} to {high}")
    return int(text)


def _boolean(_schema: Mapping[str, Any], text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r}: use true or false")
    return text == "true"


def _text(schema: Mapping[str, Any], text: str) -> str:
    known = schema.get("enum")
    if known and text not in known:
        raise ValueError(f"{text!r}: use {', '.join(known)}")
    longest = schema.get("maxLength", LONGEST_TEXT)
    if not text or len(text) > longest or "\0" in text:
        raise ValueError(f"give a text of 1 to {longest} characters")
    if "pattern" in schema and not re.fullmatch(schema["pattern"].strip("^$"), text):
        raise ValueError(f"{text!r} is no such thing: it is as {schema['pattern']} says")
    return text


def _moment(_schema: Mapping[str, Any], text: str) -> datetime:
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        if moment.tzinfo is None or "T" not in text.upper():
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment: write it as 2026-11-24T09:00:00Z") from None


_READERS: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
    "integer": _integer,
    "boolean": _boolean,
    "string": _text,
    "date-time": _moment,
}
