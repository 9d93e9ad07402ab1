"""How a process of MCS logs: plain lines, to standard output."""

import logging
import os
import sys

# Set by a supervisor that puts the time and the process's name before each line itself.
PREFIXED = "MCS_LOG_PREFIXED"


def begin() -> None:
    """Log from INFO upwards to standard output."""
    form = "%(message)s" if os.environ.get(PREFIXED) else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)
