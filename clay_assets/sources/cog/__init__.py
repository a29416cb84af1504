"""Reads blocks of cloud-optimised GeoTIFFs, without opening a file whose header is known.

`headers` reads the metadata of a file once; `ranges` fetches bytes and detects changed files; `decoding` turns bytes
into pixels; `reader` combines them. Platforms interpret the pixels. Files that cannot be decoded here are read through
rasterio (`sources.rasters`), and counted.
"""

from clay_assets.sources.cog.headers import CogHeader, arrow_schema, read_header
from clay_assets.sources.cog.reader import BlockReader, BlockRequest, Counters

__all__ = [
    "BlockReader",
    "BlockRequest",
    "CogHeader",
    "Counters",
    "Validity",
    "arrow_schema",
    "read_header",
    "validity",
]
