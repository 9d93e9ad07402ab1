"""Workers: threads that run what is due."""

from collections.abc import Sequence

from mcs.library.arguments import BadArgument
from mcs.library.ground import Ground
from mcs.library.infos import SchedulerStatus, Worker
from mcs.services import actions, runners
from mcs.services.runners import Runner


class Workers(Ground):
    """The verbs of workers."""

    def add_worker(
        self,
        concurrency: int = 200,
        poll_ms: int = 15000,
        campaign_ids: Sequence[str] | None = None,
    ) -> Worker:
        """Start a worker in threads of this process. It runs what is due until it is stopped.

        It sleeps exactly until the next action is due; ``poll_ms`` is how often it looks for what
        other processes have scheduled meanwhile. ``campaign_ids`` limits it to these campaigns.
        """
        for name, value, most in (
            ("concurrency", concurrency, 10_000),
            ("poll_ms", poll_ms, 10**9),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise BadArgument(name, f"{value!r}: use a whole number from 1 to {most}")
        numbers = self._numbers(campaign_ids)
        with self._lock:
            self._last_worker += 1
            runner = Runner(self._given, concurrency, poll_ms / 1000, numbers)
            named = None if campaign_ids is None else tuple(campaign_ids)
            worker = Worker(self._last_worker, concurrency, poll_ms, named, runner)
            self._workers[worker.id] = worker
        runner.start()
        return worker

    def get_worker(self, id: int) -> Worker | None:
        """The worker of that id, while it has not been removed."""
        return self._workers.get(id)

    def start_workers(self) -> None:
        """Have every worker that was stopped claim actions again."""
        for worker in list(self._workers.values()):
            worker._runner.start()

    def stop_workers(self) -> None:
        """Have every worker claim nothing more, and wait for the callbacks that are running."""
        for worker in list(self._workers.values()):
            worker._runner.ask_to_stop()
        for worker in list(self._workers.values()):
            worker._runner.stop()

    def run_due(self, campaign_ids: Sequence[str] | None = None) -> int:
        """Run in this thread, one after the other, all that is due now; how many.

        For scripts, and for tests on a clock of their own. It takes back what dead workers held.
        """
        return runners.run_due(self._given, self._numbers(campaign_ids))

    def get_status(self, campaign_ids: Sequence[str] | None = None) -> SchedulerStatus:
        """How it all stands, or how these campaigns do."""
        numbers = self._numbers(campaign_ids)
        with self._session() as session:
            told = actions.status(session, self._now(), numbers)
        workers = list(self._workers.values())
        return SchedulerStatus(
            **vars(told),
            workers=sum(worker.running for worker in workers),
            running=sum(worker.busy for worker in workers),
        )
