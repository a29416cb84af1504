"""A background program of the tests: its log, a timeout for its start, and guaranteed termination.

Programs and their configuration are in the module of each server. Every program gets a parent-death signal, and every
working folder a watcher that removes it, so that a killed pytest leaves nothing behind. The signal is sent when the
*thread* that started the program ends, so start servers from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TAIL_LINES = 30
# Below Linux' range for outgoing connections (32768-60999), so that none of them takes a port between choosing it and
# opening it.
PORTS = range(20000, 32000)


class ServerUnavailableError(Exception):
    """The server's software is not installed."""


class ServerStartError(Exception):
    """The software is installed but did not start, or did not answer in time."""


def free_port() -> int:
    """Return an unused TCP port on 127.0.0.1; processes draw from the range independently."""
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerStartError(f"no free port found among 100 of {PORTS.start}-{PORTS.stop}")


def outside_environment() -> dict[str, str]:
    """Environment for a server: ours, without variables that configure a database or cloud client."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "AWS_", "CEPH_", "CLAY_", "GDAL_"))}


class WorkFolder:
    """A temporary folder that is deleted by `remove()`, or when the test process dies.

    Args:
        prefix: start of the folder's name.
        owner: operating system user that owns it, if not the current one.
    """

    def __init__(self, prefix: str, owner: str | None = None) -> None:
        """Create the folder and start its watcher."""
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        if owner is not None:
            shutil.chown(self.path, owner, owner)
        # The watcher reads from a pipe that closes when this process ends; the pause lets servers stop before their
        # files go.
        self._watcher = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; sleep 2; rm -rf "$0"', str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove(self) -> None:
        """Delete the folder and end its watcher."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._watcher.pid, signal.SIGKILL)
        self._watcher.wait(10)
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()
        shutil.rmtree(self.path, ignore_errors=True)


def command_line(command: Sequence[str], user: str | None, death_signal: str) -> list[str]:
    """Wrap a command so that it runs as `user` and gets `death_signal` when the starting thread ends."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:  # not Linux: only the finalisers stop the server
        return list(command)
    become = [] if user is None else ["--reuid", user, "--regid", user, "--init-groups"]
    # If this process died before the signal was set, it is never sent, so the program only starts under this parent.
    only_under_us = ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    return [setpriv, *become, "--pdeathsig", death_signal, "--", *only_under_us, *command]


class Daemon:
    """A running program whose output goes to a file.

    Args:
        name: name in error messages.
        command: program and arguments, in the foreground.
        log: file for its output.
        env: its complete environment.
        user: operating system user to run as; needs root.
        stop_signal: signal sent by `stop`.
        death_signal: signal sent when this process dies; its files are then removed, so nothing needs saving.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: str = "KILL",
    ) -> None:
        """Start the program; use `wait_until` to wait for it."""
        self.name, self.log, self.stop_signal = name, log, stop_signal
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command_line(command, user, death_signal),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(outside_environment() if env is None else env),
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended."""
        return self._child.poll() is None

    def tail(self) -> str:
        """Last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()` is true; errors of network and database clients count as not ready.

        Raises:
            ServerStartError: the program ended, or the timeout expired; the message contains the end of its log.
        """
        end = time.monotonic() + seconds
        last: Exception | None = None
        while time.monotonic() < end:
            if self._child.poll() is not None:
                raise ServerStartError(
                    f"{self.name} ended with code {self._child.returncode} while starting:\n{self.tail()}"
                )
            try:
                if ready():
                    return
            except Exception as error:  # each client library has its own error for refused connections
                last = error
            time.sleep(0.05)
        raise ServerStartError(f"{self.name} was not ready in {seconds:.0f} s (last error: {last!r}):\n{self.tail()}")

    def stop(self, seconds: float = 10) -> None:
        """Ask the program to stop, wait, and kill its process group after `seconds`."""
        if self._child.poll() is None:
            self._child.send_signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(10)


def run_tool(command: Sequence[str], seconds: float, *, user: str | None = None, cwd: Path | None = None) -> str:
    """Run a set-up command and return its output.

    Raises:
        ServerStartError: it failed or took too long; the message contains its output.
    """
    try:
        done = subprocess.run(
            command_line(command, user, "KILL"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=outside_environment(),
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerStartError(f"{command[0]} did not end in {seconds:.0f} s: {' '.join(command)}") from error
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-TAIL_LINES:])
        raise ServerStartError(f"{command[0]} failed ({done.returncode}): {' '.join(command)}\n{output}")
    return done.stdout
