"""A Dask scheduler and its workers as local processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from clay_assets_tests.servers.daemon import Daemon, WorkFolder, free_port, outside_environment

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240  # on a busy machine


class DaskCluster:
    """A scheduler with single-threaded workers; `stop` ends all.

    Args:
        workers: number of workers to start.
        allowed_failures: number of workers that may die while running a job before it fails.
        environment: additional variables of the scheduler.
    """

    def __init__(self, workers: int, allowed_failures: int = 3, environment: Mapping[str, str] | None = None) -> None:
        """Start them, and wait until they are connected."""
        failures = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)}
        self._of_scheduler = {**failures, **(environment or {})}
        self.folder, self.daemons = WorkFolder("clay-dask-"), list[Daemon]()
        self.port, self.workers = free_port(), list[Daemon]()
        self._alike: dict[Daemon, Daemon] = {}  # worker without peculiarities → the scheduler that it belongs to
        self.address = f"tcp://127.0.0.1:{self.port}"
        try:
            self.start_scheduler()
            for _ in range(workers):
                self.add_worker()
            self.wait_for(workers)
        except BaseException:
            self.stop()
            raise

    def start_scheduler(self) -> None:
        """Start a scheduler at the cluster's address."""
        self.scheduler = self._start("scheduler", ["--host", "127.0.0.1", "--port", str(self.port)], self._of_scheduler)

    def restore(self, workers: int) -> None:
        """Whatever was done to the cluster, give it a scheduler and this number of workers without peculiarities.

        What still runs is kept, as each process takes a second or two to start.
        """
        if not self.scheduler.running:
            self.start_scheduler()
        fit = [one for one in self.workers if one.running and self._alike.get(one) is self.scheduler][:workers]
        for worker in self.workers:
            if worker not in fit:
                worker.stop()
        self.workers = fit
        while len(self.workers) < workers:
            self.add_worker()
        self.wait_for(workers)

    def add_worker(self, environment: Mapping[str, str] | None = None, command: tuple[str, ...] = ()) -> Daemon:
        """Add a worker.

        Args:
            environment: additional variables of this worker.
            command: prefix of its command line, such as `unshare`.
        """
        arguments = [self.address, "--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder.path)]
        worker = self._start("worker", arguments, environment or {}, command)
        self.workers.append(worker)
        if not environment and not command:
            self._alike[worker] = self.scheduler
        return worker

    def wait_for(self, workers: int) -> None:
        """Wait until this number of workers is connected."""
        from distributed import Client

        with Client(self.address, timeout=SECONDS, set_as_default=False) as client:  # only one, as creating it is slow
            self.scheduler.wait_until(lambda: len(client.nthreads()) == workers, SECONDS)

    def kill(self, daemon: Daemon) -> None:
        """Kill one immediately, like a machine that disappears."""
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.stop()  # waits for its end, as until then the system may still accept connections for it

    def stop(self) -> None:
        """Stop everything."""
        for daemon in reversed(self.daemons):
            daemon.stop()
        self.folder.remove()

    def _start(
        self, name: str, arguments: list[str], environment: Mapping[str, str], before: tuple[str, ...] = ()
    ) -> Daemon:
        command = [*before, sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments, "--no-dashboard"]
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(REPOSITORY)]))
        env = {**outside_environment(), **environment, "PYTHONPATH": path}
        log = self.folder.path / f"{name}-{len(self.daemons)}.log"
        self.daemons.append(Daemon(f"dask {name}", command, log, env=env))
        return self.daemons[-1]


def other_versions(folder: Path, *names: str) -> dict[str, str]:
    """Environment of a process with other versions of some distributions."""
    for name in names:
        told = folder / f"{name}-0.0.7.dist-info"
        told.mkdir(parents=True)
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.7\n")
    return {"PYTHONPATH": str(folder)}
