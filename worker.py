"""An RQ worker: ``python worker.py``."""

import sys

from rq.utils import import_attribute

from mcs import config
from mcs.gateways import journal, worker
from mcs.gateways.jobqueue import JOBS, JobQueue


def main() -> int:
    """Work until SIGTERM or SIGINT."""
    journal.begin()
    try:
        settings = config.load()
    except config.BadSetting as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    for name in JOBS:
        import_attribute(name)  # Before the forks, so that a horse finds everything imported.
    queue = JobQueue(settings.redis_url, settings.redis_tls_verify)
    worker.work(queue, settings.redis_url, settings.redis_tls_verify)
    return 0


if __name__ == "__main__":
    sys.exit(main())
