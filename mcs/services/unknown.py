"""What every service says of an id that leads nowhere."""


class Unknown(LookupError):
    """There is no such row, or it was deleted."""
