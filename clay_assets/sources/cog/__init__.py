"""Reading blocks of cloud-optimised GeoTIFFs, without opening a file whose header is known.

`headers` reads what has to be known of a file once; `ranges` fetches bytes and notices that a file changed; `decoding`
makes pixels of bytes; `reader` puts them together. What the pixels mean is the platforms' business. A file that these
cannot decode is read through rasterio (`sources.rasters`), and counted.
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
