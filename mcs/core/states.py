"""The states of each noun and the moves that are legal between them."""

SCENARIO_STATES = ("draft", "scheduled")
CONTENT_FORMATS = ("text", "markdown")

EMAILER_STATES = ("planned", "sending", "paused", "sent", "cancelled", "missed")
EMAILER_LIVE = ("planned", "sending", "paused")
EMAILER_MOVES: dict[str, tuple[str, ...]] = {
    "planned": ("sending", "missed", "cancelled"),
    "sending": ("paused", "sent", "cancelled"),
    "paused": ("sending", "missed", "cancelled"),
    "missed": ("planned", "sending", "cancelled"),
    "sent": ("sending",),
    "cancelled": (),
}

DELIVERY_STATES = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
# Those that people look for.
DELIVERY_EXCEPTIONS = ("failed", "in_doubt", "skipped")
DELIVERY_MOVES: dict[str, tuple[str, ...]] = {
    "pending": ("sending", "skipped"),
    "sending": ("sent", "failed", "in_doubt", "pending"),
    "in_doubt": ("sent", "failed", "pending"),
    "failed": ("pending",),
    "sent": (),
    # An action's only: its subject was withdrawn, and has come back.
    "skipped": ("pending",),
}

ACTION_STATES = ("pending", "processing", "completed", "failed", "cancelled")
ACTION_MOVES: dict[str, tuple[str, ...]] = {
    "pending": ("processing", "cancelled"),
    "processing": ("completed", "failed", "pending", "cancelled"),
    "failed": ("pending",),
    "cancelled": ("pending",),
    "completed": (),
}

IMPORT_STATES = ("waiting", "review", "running", "done", "failed")


def may_move(moves: dict[str, tuple[str, ...]], before: str, after: str) -> bool:
    """Whether ``before`` -> ``after`` is a legal move."""
    return after in moves[before]
