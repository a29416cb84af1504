"""With persistent connections the same is written as by Dagster's own classes, which can read it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from clay_assets.runs.kept_connections import RUNS_OPEN, EventLog, open_instance

YEARS = dg.StaticPartitionsDefinition([str(year) for year in range(2000, 2010)])
SETTINGS = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


@dg.asset(partitions_def=YEARS, check_specs=[dg.AssetCheckSpec("few", asset="first")], code_version="1")
def first(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # its value and the check are two outputs to Dagster
    if context.partition_key == "2009":
        raise dg.Failure("no such year")
    return dg.MaterializeResult(
        metadata={"year": int(context.partition_key), "table": dg.MetadataValue.md("| a |\n| --- |\n| 1 |")},
        check_results=[dg.AssetCheckResult(passed=context.partition_key != "2003", metadata={"of": 3})],
        tags={"kind": "odd" if int(context.partition_key) % 2 else "even"},
    )


@dg.asset(partitions_def=YEARS, deps=[first])
def second() -> None: ...


@dg.asset_check(asset=second)
def there() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


defs = dg.Definitions(
    [first, second], asset_checks=[there], jobs=[dg.define_asset_job("both", "*")], executor=dg.in_process_executor
)


def run(instance: dg.DagsterInstance, year: str) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("both")
    return job.execute_in_process(
        instance=instance,
        partition_key=year,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def kept(home: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(home) as instance:
        yield instance


def plain(home: Path) -> dg.DagsterInstance:
    """The same folder as opened by the UI."""
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home)))


def told(instance: dg.DagsterInstance) -> list[tuple[object, ...]]:
    """What the UI shows of an instance's runs, without ids and times."""
    seen: list[tuple[object, ...]] = []
    for run in reversed(instance.get_runs()):
        logs = instance.all_logs(run.run_id)
        kinds = [(entry.step_key, entry.dagster_event_type) for entry in logs]
        seen.append((run.job_name, run.status, run.tags.get("dagster/partition"), kinds))
    for key in (first.key, second.key):
        for year in YEARS.get_partition_keys():
            records = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[year]), 10).records
            made = [record.asset_materialization for record in records]
            seen += [(key, one.partition, one.metadata, sorted(one.tags or ())) for one in made if one]
        seen.append((key, sorted(instance.get_materialized_partitions(key))))
        checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(first.key, "few"), dg.AssetCheckKey(second.key, "there")]
        )
        seen += sorted((str(check), record.status, _evaluated(record)) for check, record in checks.items())
    tag = "dagster/data_version"
    event = dg.DagsterEventType.ASSET_MATERIALIZATION
    tags = instance.event_log_storage.get_latest_tags_by_partition(first.key, event, [tag])
    seen.append((sorted((year, tag in found) for year, found in tags.items()),))
    return seen


def _evaluated(record: AssetCheckExecutionRecord) -> object:
    evaluation = record.event.dagster_event.event_specific_data if record.event and record.event.dagster_event else None
    return getattr(evaluation, "metadata", None)


@pytest.mark.slow
def test_the_same_is_stored_and_dagsters_own_classes_read_it(tmp_path: Path) -> None:
    seen = []
    for name, opened in (("plain", plain), ("kept", open_instance)):
        home = tmp_path / name
        home.mkdir()
        (home / "dagster.yaml").write_text(SETTINGS)
        with opened(home) as instance:
            # The last one fails; there are more runs than open databases, and one is re-run.
            outcomes = [run(instance, year).success for year in ("2000", "2001", "2003", "2001", "2009")]
            assert outcomes == [True] * 4 + [False]
            seen.append(told(instance))
        with plain(home) as instance:
            seen.append(told(instance))
    assert all(one == seen[0] for one in seen[1:])
    assert len(seen[0]) == 20
    of_plain, of_kept = (sorted(tables(tmp_path / name)) for name in ("plain", "kept"))
    assert of_kept == of_plain


def tables(home: Path) -> Iterator[tuple[str, str | None, object]]:
    """The tables and indexes in every database, and the revision of Dagster's schema."""
    for path in (home / "history").rglob("*.db"):
        with sqlite3.connect(path) as connection:
            kind = path.stem if path.stem in ("runs", "index") else "run"
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            for name, sql in connection.execute("SELECT name, sql FROM sqlite_master"):
                yield f"{kind} {name} {mode}", sql, revision


@pytest.mark.slow
def test_either_goes_on_where_the_other_stopped(home: Path) -> None:
    for year, opened in (("2000", plain), ("2001", open_instance), ("2002", plain), ("2003", open_instance)):
        with opened(home) as instance:
            assert run(instance, year).success
    with open_instance(home) as instance, plain(home) as ui:
        assert run(instance, "2004").success
        years = ["2000", "2001", "2002", "2003", "2004"]
        assert sorted(ui.get_materialized_partitions(first.key)) == years  # visible while the other still has it open
        assert run(ui, "2005").success
        assert sorted(instance.get_materialized_partitions(first.key)) == [*years, "2005"]


@pytest.mark.slow
def test_databases_of_ended_runs_are_closed(kept: dg.DagsterInstance, home: Path) -> None:
    def opened() -> int:
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(home) in target and target.endswith(".db") for target in links)

    if not Path("/proc/self/fd").exists():
        pytest.skip("the files that a process has open can be listed on Linux alone")
    for year in YEARS.get_partition_keys()[: RUNS_OPEN + 2]:
        assert run(kept, year).success
    assert opened() <= RUNS_OPEN + 2  # plus the index and the runs
    kept.dispose()
    assert opened() == 0


WRITER = """
import sys
from clay_assets.runs.kept_connections import open_instance
from clay_assets_tests.runs.test_kept_connections import run
with open_instance(sys.argv[1]) as instance:
    assert all(run(instance, year).success for year in sys.argv[2:])
"""


@pytest.mark.slow
def test_several_processes_write_at_once(home: Path) -> None:
    with open_instance(home):
        pass  # the first to open it creates it
    years = [["2000", "2001"], ["2002", "2003"]]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(home), *some]) for some in years]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    with plain(home) as instance:
        assert sorted(instance.get_materialized_partitions(second.key)) == sorted(years[0] + years[1])
        assert len(instance.get_runs()) == 4


@pytest.mark.slow
def test_no_half_made_database_is_taken_for_one(home: Path) -> None:
    with open_instance(home) as instance:
        assert isinstance(instance.event_log_storage, EventLog)
        assert run(instance, "2000").success
    assert not [path for path in home.rglob("*") if path.suffix == ".new"]
