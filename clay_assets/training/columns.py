"""What the columns of a scene's headers mean, and those of the ledger."""

from __future__ import annotations

from clay_assets.storage.columns import Column, Columns

_BASELINE = Column(
    "processing_baseline",
    "string",
    "processing baseline that the item states, such as `05.09`; null where it states none, or several",
)
_OFFSET = (
    Column(
        "radiometric_offset",
        "int32",
        "offset included in every valid number of the scene's bands, such as 1000; null for platforms whose numbers "
        "never have one",
    ),
    Column(
        "offset_evidence",
        "string",
        "evidence for the offset: `baseline`, `pixels` of overviews, `flags` of the item, or `default` without "
        "evidence",
    ),
)
_FLAGGED = Column("flagged_offset", "int32", "the offset according to the item's flags; null if they state none")
_PROJECTED = Column(
    "projected_offset",
    "float64",
    "the offset at which the bands meet as the scene darkens; null if not computed, or undetermined",
)
_CONTRADICTION = Column("offset_contradiction", "string", "which parts of the evidence disagree; null where none do")

COG_HEADERS = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("asset", "string", "asset of the item, such as `red`; the row is one image of its file"),
        Column("href", "string", "address of the file, without a signature"),
        Column(
            "measured_bands",
            "list of int32",
            "bands, from 1, that the item declares as measurements, even if alpha in the file; empty: as in the file",
        ),
        Column("size", "int64", "bytes of the file"),
        Column("etag", "string", "entity tag of the file; null where it is local, or the server sends none"),
        Column("mtime_ns", "int64", "last change of the file, nanoseconds since 1970; null if unknown"),
        Column("level", "int32", "null at full resolution, else the index of the overview, from 0"),
        Column("is_mask", "bool", "whether the image is the validity mask of the image with the same `level`"),
        Column("width", "int32", "pixels of the image"),
        Column("height", "int32", "pixels of the image"),
        Column("count", "int32", "bands of the image"),
        Column("dtype", "string", "numpy type of a pixel"),
        Column("block_width", "int32", "pixels of a block; blocks at the edges are stored whole"),
        Column("block_height", "int32", "pixels of a block; blocks at the edges are stored whole"),
        Column("compression", "int32", "value of the TIFF tag 259; 0 where `fallback` says that it is not a TIFF"),
        Column("predictor", "int32", "value of the TIFF tag 317"),
        Column("photometric", "int32", "value of the TIFF tag 262"),
        Column("planar", "bool", "whether bands are stored separately, all blocks of one before the next"),
        Column("bits", "int32", "bits of a sample as stored"),
        Column("byte_order", "string", "`<`: little-endian, `>`: big-endian"),
        Column("lerc", "int32", "additional compression of LERC blocks: 0 none, 1 deflate, 2 ZSTD"),
        Column("jpeg_tables", "binary", "tables that all JPEG blocks of the image share; null where it has none"),
        Column(
            "block_offsets", "list of uint64", "first byte of each block in the file; blocks are numbered row by row"
        ),
        Column("block_byte_counts", "list of uint64", "bytes of each block; 0: it is not in the file, and all nodata"),
        Column(
            "transform", "list of float64", "column and row → x and y of the CRS: a, b, c, d, e, f of an affine matrix"
        ),
        Column("crs", "string", "authority code or WKT; null where the file has none"),
        Column("nodata", "float64", "value of pixels without data; null where the file has none"),
        Column("scales", "list of float64", "by band: value = number × scale + offset, as declared in the file"),
        Column("offsets", "list of float64", "by band: value = number × scale + offset, as declared in the file"),
        Column("colorinterp", "list of string", "by band, what it shows, such as `red` or `alpha`"),
        Column("fallback", "string", "why blocks have to be read through rasterio; null where they need not"),
        *_OFFSET,
        _BASELINE,
        _FLAGGED,
        Column("dark_levels", "map of string to float64", "band → low percentile of its overview, if computed"),
        _PROJECTED,
        _CONTRADICTION,
    )
)
HEADERS_LEDGER = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("outcome", "string", "`read` or `failed`"),
        Column("files", "int32", "files of the scene"),
        Column("images", "int32", "rows of its file: at full resolution, masks and overviews, of all assets"),
        Column("blocks", "int64", "blocks of these files at full resolution"),
        Column("bytes", "int64", "size of these files"),
        Column("header_bytes", "int64", "size of the file that holds their headers"),
        Column("fallbacks", "string", "JSON: why files are read through rasterio → how many; null where none are"),
        *_OFFSET,
        _BASELINE,
        _FLAGGED,
        _PROJECTED,
        _CONTRADICTION,
        Column(
            "fingerprint",
            "string",
            "hash of the addresses of its files, the sizes and times of local files, the item if it affects the "
            "radiometry, and the code that made the file",
        ),
        Column("error", "string", "why it failed; null where it did not"),
    )
)
