"""Dagster's SQLite storage with persistent connections, for a process that runs many jobs one after another.

Dagster opens the database, creates an engine and compiles its statements again for every event, which took a quarter of
the demo's time. The file format is unchanged, so the UI and everything else can use Dagster's own classes. Written for
Dagster 1.13, whose SQLite storage has no option for this.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as db
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import QueuePool

# Runs log everything, so stdout and stderr are not captured: Dagster starts four processes per run for that.
NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
RUNS_OPEN = 4  # databases of runs; one is written at a time, and each takes three file descriptors


def open_instance(home: str | Path) -> dg.DagsterInstance:
    """The Dagster instance of a folder whose `dagster.yaml` leaves storage and compute logs at their defaults."""
    storage = {"module": __name__, "class": Storage.__name__, "config": {"base_dir": str(home)}}
    overrides = {"storage": {"custom": storage}, "compute_logs": NO_COMPUTE_LOGS}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=overrides))


class EventLog(SqliteEventLogStorage):
    """Events in one database per run, and an index of all."""

    def __init__(self, base_dir: str) -> None:
        self._engines: dict[str, db.Engine] = {}
        self._known: dict[tuple[str, str], bool] = {}
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[db.Connection]:
        with self._db_lock:
            engine = self._engines.pop(shard, None) or self._open(shard)
            self._engines[shard] = engine  # the most recently used is last
            with engine.begin() as connection:
                yield connection

    def _open(self, shard: str) -> db.Engine:
        runs = [name for name in self._engines if name != INDEX_SHARD_NAME]
        for name in runs[: len(runs) + 1 - RUNS_OPEN]:
            self._engines.pop(name).dispose()
        path = self.path_for_shard(shard)
        if not os.path.exists(path):
            # Written atomically: another process that finds the file assumes it is complete.
            with tempfile.NamedTemporaryFile(dir=self._base_dir, suffix=".new", delete=False) as file:
                file.write(self._empty)
            os.replace(file.name, path)
        self._initialized_dbs.add(shard)
        return _engine(self.conn_string_for_shard(shard))

    @cached_property
    def _empty(self) -> bytes:
        """A template database without events: creating one with Alembic takes as long as a whole run."""
        folder = tempfile.mkdtemp()
        try:
            engine = _engine(f"sqlite:///{folder}/empty.db")
            self._initdb(engine)
            engine.dispose()
            return Path(folder, "empty.db").read_bytes()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # The schema does not change while a process runs.

    def has_table(self, table_name: str) -> bool:
        return self._once("table", table_name, super().has_table)

    def has_secondary_index(self, name: str) -> bool:
        return self._once("index", name, super().has_secondary_index)

    def _has_asset_key_col_on_connection(self, conn: db.Connection, column_name: str) -> bool:
        looked = super()._has_asset_key_col_on_connection
        return self._once("column", column_name, lambda name: looked(conn, name))

    def _once(self, kind: str, name: str, look: Any) -> bool:
        if not self._known.get((kind, name)):
            self._known[kind, name] = look(name)
        return self._known[kind, name]

    def dispose(self) -> None:
        super().dispose()
        while self._engines:
            self._engines.popitem()[1].dispose()


class Runs(SqliteRunStorage):
    """Runs, their tags and snapshots, in one database."""

    @cached_property
    def _engine(self) -> db.Engine:
        return _engine(self._conn_string)

    @contextmanager
    def connect(self) -> Iterator[db.Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        super().dispose()
        self._engine.dispose()


class Storage(DagsterSqliteStorage):
    """Events and runs, plus Dagster's own storage of schedules, which runs do not use."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        history = Path(base_dir, "history")
        self._run_storage = Runs.from_local(str(history))
        self._event_log_storage = EventLog(str(history / "runs"))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Storage:
        return cls(inst_data=inst_data, **config_value)


def _engine(address: str) -> db.Engine:
    engine = db.create_engine(address, poolclass=QueuePool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})

    @db.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        # A killed process loses nothing; only a power failure can lose the demo's last events.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
