"""Runs inside stacchip's environment: index one item, write the index as plain Parquet.

    python run_stacchip.py ITEM.json INDEXER_CLASS CHIP_MAX_NODATA OUT.parquet

Imports nothing of clay_assets, and is read by an older pyarrow than ours.
"""

import os
import sys

import geoarrow.pyarrow as ga
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
from stacchip import indexer


def main(item_path: str, class_name: str, chip_max_nodata: str, out: str) -> None:
    """Index the item at `item_path` with stacchip's class and write its table, geometry as WKB and WKT."""
    item = pystac.Item.from_file(item_path)
    table = getattr(indexer, class_name)(item, chip_max_nodata=float(chip_max_nodata)).create_index()
    place = table.schema.get_field_index("geometry")
    geometry = table.column(place)
    if isinstance(geometry, pa.ChunkedArray):
        geometry = geometry.combine_chunks()
    table = table.set_column(place, "geometry", pa.array(ga.format_wkt(geometry, precision=16)).cast(pa.string()))
    pq.write_table(table, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    # The table is written. The old libraries' threads now and then abort the process while it is torn down
    # ("terminate called without an active exception"), which says nothing of the index: end without that.
    os._exit(0)
