"""PostgreSQL with PostGIS on loopback, with its data in a temporary folder.

PostgreSQL refuses to run as root, so in that case the system user `postgres` of Debian's package runs it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from clay_assets_tests.servers.daemon import Daemon, ServerUnavailableError, WorkFolder, free_port, run_tool

INSTALL = "scripts/install_test_servers.sh installs it as root"
INITDB = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
# Data need not survive a crash, and tests use many small transactions. A date without a time means UTC.
OPTIONS = (
    "timezone=UTC",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "shared_buffers=64MB",
    "jit=off",
)


def binaries() -> Path:
    """Return the folder of `initdb` and `postgres` of the newest installation with PostGIS.

    Raises:
        ServerUnavailableError: no such installation found.
    """
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0,
        reverse=True,
    )
    if found := shutil.which("pg_config"):
        candidates.append(Path(subprocess.check_output([found, "--bindir"], text=True).strip()))
    bare = None
    for folder in candidates:
        if not (folder / "initdb").exists():
            continue
        bare = folder
        for share in (Path("/usr/share/postgresql") / folder.parent.name, folder.parent / "share/postgresql"):
            if (share / "extension/postgis.control").exists():
                return folder
    if bare is None:
        raise ServerUnavailableError(f"PostgreSQL is not installed ({INSTALL})")
    raise ServerUnavailableError(f"PostGIS is not installed for the PostgreSQL in {bare} ({INSTALL})")


class Postgres:
    """A running PostgreSQL server with one superuser, `postgres`, and no password.

    Attributes:
        port: port on 127.0.0.1.
    """

    def __init__(self) -> None:
        """Create the database cluster and start the server, about 1.5 s."""
        folder = binaries()
        user = None
        if os.geteuid() == 0:
            user = "postgres"
            try:
                pwd.getpwnam(user)
            except KeyError:
                raise ServerUnavailableError("PostgreSQL does not run as root, and there is no user postgres") from None
        self._folder = WorkFolder("clay-postgres-", owner=user)
        self._daemon: Daemon | None = None
        try:
            data = self._folder.path / "data"
            run_tool(
                [str(folder / "initdb"), "-D", str(data), *INITDB],
                60,
                user=user,
                cwd=self._folder.path,
            )
            self.port = free_port()
            options = [
                "listen_addresses=127.0.0.1",
                f"port={self.port}",
                "unix_socket_directories=",
                *OPTIONS,
            ]
            self._daemon = Daemon(
                "PostgreSQL",
                [str(folder / "postgres"), "-D", str(data), *(part for o in options for part in ("-c", o))],
                self._folder.path / "postgres.log",
                user=user,
                stop_signal=signal.SIGINT,  # "fast": do not wait for clients
                death_signal="QUIT",  # "immediate", but shared memory is released
            )
            self._daemon.wait_until(self._answers, 60)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        import psycopg

        with psycopg.connect(self.dsn("postgres"), connect_timeout=2):
            return True

    def dsn(self, database: str) -> str:
        """Address of a database for libpq clients."""
        return f"postgresql://postgres:trust@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database with the PostGIS extension and return its address."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(self.dsn(name), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION postgis")
        return self.dsn(name)

    def stop(self) -> None:
        """Stop the server and remove its data."""
        if self._daemon is not None:
            self._daemon.stop()
        self._folder.remove()
