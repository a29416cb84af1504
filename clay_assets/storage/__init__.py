"""Our own files: their paths (`layout`), reading and writing (`stores`), and their formats (`geoparquet`,
`stac_geoparquet`). The contract is in docs/operate.md under "Storage".
"""
