"""An RQ worker: ``python worker.py``."""

import signal
import sys

from mcs import config, jobs
from mcs.gateways import drain, journal, worker
from mcs.gateways.jobqueue import JobQueue


def main() -> int:
    """Work until SIGTERM or SIGINT."""
    journal.begin()
    try:
        settings = config.load()
    except config.BadSetting as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    drain.on_signals(signal.SIGTERM, signal.SIGINT)
    jobs.rehearse()
    queue = JobQueue(settings.redis_url, settings.redis_tls_verify)
    worker.work(queue, settings.redis_url, settings.redis_tls_verify)
    return 0


if __name__ == "__main__":
    sys.exit(main())
