"""Everything that we write: where it lies (`layout`), how bytes get there (`stores`), in which format
(`geoparquet`, `stac_geoparquet`). The contract is in docs/operate.md under "Storage".
"""
