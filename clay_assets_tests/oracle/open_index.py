"""Runs inside the readers' environment: open the merged index in each reader's plainest form, write what it holds.

    python open_index.py MERGED_INDEX OUT.json

Imports nothing of clay_assets.
"""

import json
import os
import sys
from collections.abc import Callable

import dask.dataframe
import dask_geopandas
import datasets
import pandas as pd
import polars as pl

READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    "dask": lambda root: dask.dataframe.read_parquet(root).compute(),
    "dask-geopandas": lambda root: dask_geopandas.read_parquet(root).compute(),
    "polars": lambda root: pl.read_parquet(root).to_pandas(),
    "polars, lazily": lambda root: pl.scan_parquet(root).collect().to_pandas(),
    "huggingface datasets": lambda root: datasets.load_dataset(root, split="train").to_pandas(),
}


def main(root: str, out: str) -> None:
    """Open the index at `root` with every reader."""
    found = {}
    for name, read in READERS.items():
        frame = read(root)
        rows = frame[["chipid", "platform", "year"]].astype({"year": int}).sort_values(["platform", "chipid"])
        found[name] = rows.to_numpy().tolist()
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(*sys.argv[1:])
