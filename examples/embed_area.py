"""Embed the chips of an area of interest in a scene that is not in an index, and write them as GeoParquet.

After train_mae.py:

    python examples/embed_area.py mae.pt item.json sentinel-2-l2a --bbox=-150.2,61.6,-150.1,61.7 --out area.parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import shapely
import torch
from tiny_mae import TinyMAE

from clay_assets.training import ChipBatch, Chipper, Tensors


def main() -> None:
    """Embed the chips and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", help="that train_mae.py wrote")
    parser.add_argument("item", help="STAC item: path or URL of its JSON")
    parser.add_argument("platform", help="platform key, such as sentinel-2-l2a")
    parser.add_argument("--bbox", type=lambda text: [float(side) for side in text.split(",")], help="W,S,E,N, degrees")
    parser.add_argument("--out", type=Path, default=Path("embeddings.parquet"))
    options = parser.parse_args()

    model = TinyMAE()
    model.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True)["model"])
    model.eval()
    chipper = Chipper.of_item(pystac.Item.from_file(options.item), options.platform, bbox=options.bbox, threads=2)
    tensors = Tensors()  # as in training: normalised, with masks
    tables = []
    for chips in chipper.batches(32):
        with torch.no_grad():
            tables.append(table(chips, model.embed(tensors.of(chips))))
    found = gpd.GeoDataFrame(pd.concat(tables, ignore_index=True), crs="EPSG:4326")
    found.to_parquet(options.out)
    print(f"{options.out}: {len(found)} chips, vectors of {len(found['embedding'][0])}")


def table(chips: ChipBatch, vectors: torch.Tensor) -> gpd.GeoDataFrame:
    """One row per chip: its location, its cloud-free fraction, and its embedding."""
    return gpd.GeoDataFrame(
        {
            "chipid": [chip.chipid for chip in chips],
            "datetime": chips.datetime,
            "clear": (chips.valid & ~chips.cloud).mean(axis=(1, 2)).astype(np.float32),
            "embedding": list(vectors.numpy()),
        },
        geometry=shapely.box(*chips.bounds.T),
        crs=chips.crs[0],
    ).to_crs("EPSG:4326")


if __name__ == "__main__":
    main()
