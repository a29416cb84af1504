"""Small definitions that other processes load, and the phases of their runs."""

import os
import time
from pathlib import Path

import dagster as dg

from clay_assets.runs.whole_chain import Step

PARTS = dg.StaticPartitionsDefinition(["a", "b", "c", "d"])
FOLDER = Path(os.environ.get("SIDE_BY_SIDE_FOLDER", "."))


@dg.asset
def ground() -> None:
    if (FOLDER / "no ground").exists():
        raise dg.Failure("no ground")


@dg.asset
def sky() -> None: ...


@dg.asset(partitions_def=PARTS)
def place(context: dg.AssetExecutionContext) -> None:
    (FOLDER / f"begun {context.partition_key} {os.getpid()}").touch()
    if (FOLDER / f"die {context.partition_key}").exists():
        os._exit(1)
    deadline = time.monotonic() + 60
    while (FOLDER / "wait").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


defs = dg.Definitions(
    [ground, sky, place],
    jobs=[dg.define_asset_job("before", [ground, sky]), dg.define_asset_job("places", [place])],
    executor=dg.in_process_executor,
)


def load() -> dg.Definitions:
    return defs


def phases() -> list[list[Step]]:
    return [
        [Step("before", asset="ground"), Step("before", asset="sky")],
        [Step("places", part, needs="ground") for part in "ab"] + [Step("places", part, needs="sky") for part in "cd"],
    ]
