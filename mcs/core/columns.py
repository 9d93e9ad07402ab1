"""What the columns of a table of contacts mean: by their names, else by what is in them."""

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

EMAIL, NAME, GIVEN, FAMILY, ATTRIBUTE, IGNORE = (
    "email",
    "name",
    "given",
    "family",
    "attribute",
    "ignore",
)
USES = (EMAIL, NAME, GIVEN, FAMILY, ATTRIBUTE, IGNORE)
WORDS = {
    EMAIL: "Email address",
    NAME: "Name",
    GIVEN: "First name",
    FAMILY: "Last name",
    ATTRIBUTE: "Merge field",
    IGNORE: "Leave out",
}

# The two columns that our download of rejected rows puts before the original ones.
OUR_COLUMNS = ("MCS line", "MCS reason")

_TITLES = {
    EMAIL: """email emailaddress emailid mail mailaddress emailadresse mailadresse contactemail
        useremail primaryemail workemail businessemail customeremail subscriberemail recipient
        correo correoelectronico courriel adresseemail indirizzoemail epost""",
    NAME: """name fullname contactname customername displayname personname recipientname
        vollername vollstandigername nomcomplet nombrecompleto""",
    GIVEN: "firstname forename givenname vorname prenom nombre fname first",
    FAMILY: "lastname surname familyname nachname familienname nomdefamille apellido lname last",
    IGNORE: "mcsline mcsreason",
}
_USE_BY_TITLE = {title: use for use, titles in _TITLES.items() for title in titles.split()}

# Built-in merge fields, and words that Jinja keeps for itself.
_TAKEN_FIELDS = """name email first_name unsubscribe_url and or not in is if elif else endif for
    true false none set block include import from with without context loop self super caller"""
_LONGEST_FIELD = 50

_LOOKS_LIKE_ADDRESS = re.compile(r"\s*[^@\s,;<>]+@[^@\s,;<>]+\.[^@\s,;<>]+\s*").fullmatch
_LOOKS_LIKE_NAME = re.compile(r"\s*[^\W\d_][^\d_@/\\=<>{}]{0,80}\s*").fullmatch


@dataclass(frozen=True)
class Column:
    """A column: its title in the file (or one we made up), and what it is used for.

    ``field`` is the merge field its values can be written with when it is an attribute.
    """

    title: str
    use: str
    field: str


def detect(first: Sequence[str], rest: Sequence[Sequence[str]]) -> tuple[bool, list[Column]]:
    """Whether the first row holds titles, and the columns. None is EMAIL when none looks it."""
    header = has_titles(first, rest)
    width = len(first) if header else max(len(row) for row in [first, *rest])
    titles = [cell.strip() for cell in first] if header else []
    titles += [""] * (width - len(titles))
    uses = _uses_by_title(titles) if header else [ATTRIBUTE] * width
    sample = rest if header else [first, *rest]
    if EMAIL not in uses:
        _find_address(uses, sample)
        if not header:
            _find_name(uses, sample)
    return header, named(titles, uses)


def has_titles(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a table holds titles: it has no address in it, and one of them is
    known, or there are addresses below."""
    if any(_LOOKS_LIKE_ADDRESS(cell) for cell in first):
        return False
    known = any(_USE_BY_TITLE.get(_folded(cell)) == EMAIL for cell in first)
    return known or any(_LOOKS_LIKE_ADDRESS(cell) for row in rest for cell in row)


def named(titles: Sequence[str], uses: Sequence[str]) -> list[Column]:
    """Columns from titles (some empty) and uses; every field is distinct and usable in content."""
    columns: list[Column] = []
    taken = set(_TAKEN_FIELDS.split())
    for number, (title, use) in enumerate(zip(titles, uses, strict=True), start=1):
        shown = title or (use if use in (EMAIL, NAME) else f"column {number}")
        field = _free(field_name(shown) or f"column_{number}", taken)
        taken.add(field)
        columns.append(Column(shown, use, field))
    return columns


def with_uses(columns: Sequence[Column], uses: Sequence[str]) -> list[Column]:
    """The same columns put to uses that a person chose.

    Raises ValueError, with a sentence to show, when they cannot be read that way.
    """
    if len(uses) != len(columns) or any(use not in USES for use in uses):
        raise ValueError("Choose a use for every column.")
    if uses.count(EMAIL) != 1:
        raise ValueError("Choose exactly one column that holds the email addresses.")
    for use in (NAME, GIVEN, FAMILY):
        if uses.count(use) > 1:
            raise ValueError(f"Only one column can be the {WORDS[use].lower()}.")
    if NAME in uses and (GIVEN in uses or FAMILY in uses):
        raise ValueError("Choose either one column with the name, or first and last name.")
    return [replace(column, use=use) for column, use in zip(columns, uses, strict=True)]


def field_name(title: str) -> str:
    """``Company Name`` -> ``company_name``: ASCII letters, digits and underscores; "" if none."""
    plain = unicodedata.normalize("NFKD", title.casefold()).encode("ascii", "ignore").decode()
    field = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if field[:1].isdigit():
        field = f"column_{field}"
    return field[:_LONGEST_FIELD].rstrip("_")


def _free(field: str, taken: Collection[str]) -> str:
    number, free = 1, field
    while free in taken:
        number += 1
        free = f"{field}_{number}"
    return free


def _folded(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def _uses_by_title(titles: Sequence[str]) -> list[str]:
    uses = []
    for title in titles:
        use = _USE_BY_TITLE.get(_folded(title), ATTRIBUTE)
        uses.append(ATTRIBUTE if use not in (ATTRIBUTE, IGNORE) and use in uses else use)
    return _settled_names(titles, uses)


def _settled_names(titles: Sequence[str], uses: list[str]) -> list[str]:
    """A whole name beats its parts; but ``Vorname`` and ``Name`` are the two parts in German."""
    if NAME in uses and GIVEN in uses and FAMILY not in uses:
        place = uses.index(NAME)
        if _folded(titles[place]) == "name" and "vorname" in map(_folded, titles):
            uses[place] = FAMILY
    if NAME in uses:
        return [ATTRIBUTE if use in (GIVEN, FAMILY) else use for use in uses]
    return uses


def _find_address(uses: list[str], sample: Sequence[Sequence[str]]) -> None:
    """Put EMAIL where most addresses are."""
    shares = [_share(sample, place, _LOOKS_LIKE_ADDRESS) for place in range(len(uses))]
    if any(shares):
        uses[shares.index(max(shares))] = EMAIL


def _find_name(uses: list[str], sample: Sequence[Sequence[str]]) -> None:
    """Put NAME beside EMAIL, where most cells look like one."""
    if EMAIL not in uses:
        return
    for place in (uses.index(EMAIL) - 1, uses.index(EMAIL) + 1):
        if 0 <= place < len(uses) and _share(sample, place, _LOOKS_LIKE_NAME) >= 0.6:
            uses[place] = NAME
            return


def _share(sample: Sequence[Sequence[str]], place: int, looks: Callable[[str], object]) -> float:
    """How many of the cells of a column that are not empty look that way, from 0 to 1."""
    cells = [row[place] for row in sample if place < len(row) and row[place].strip()]
    return sum(1 for cell in cells if looks(cell)) / len(cells) if cells else 0.0
