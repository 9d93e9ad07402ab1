"""What the process that forks for tests.processes imports: all that the programs of MCS need.

Not the programs, which each process runs as its own. Nobody else may import it, since it has its
process end with the one that started it.
"""

import os
import signal

import gunicorn.app.wsgiapp
import gunicorn.workers.gthread  # noqa: F401

import mcs.app
import mcs.gateways.bell
import mcs.gateways.worker
import mcs.jobs
import mcs.library  # noqa: F401
from mcs.gateways import lifeline

lifeline.end_with_parent(os.getppid(), signal.SIGKILL)
