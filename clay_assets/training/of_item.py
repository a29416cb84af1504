"""The chips of a STAC item that is not in an index."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pystac
from affine import Affine
from numpy.typing import ArrayLike
from rasterio.crs import CRS

from clay_assets.chips.grid import chip_polygons, ground_sample_distance
from clay_assets.errors import InputError
from clay_assets.grids import Grid
from clay_assets.platforms.base import AnyPlatform
from clay_assets.platforms.offsets import radiometric_offset
from clay_assets.sources.cog import CogHeader
from clay_assets.stac import item_datetime
from clay_assets.training.boxes import checked_box, touching
from clay_assets.training.layers import CHIP_SIZE
from clay_assets.training.places import places_of
from clay_assets.training.scene_files import SceneFiles, read_scene_files


def files_of_item(platform: AnyPlatform, item: pystac.Item) -> tuple[SceneFiles, datetime]:
    """The files of an external item, and its time of acquisition.

    Raises:
        InputError: the item is not valid or lacks an asset, or a file of it cannot be read.
        SourceError: a remote file is temporarily unreadable.
    """
    document = platform.read_item(item.to_dict(include_self_link=True, transform_hrefs=False))
    return read_scene_files(platform, document, radiometric_offset), item_datetime(document)


class SceneChips:
    """The whole chips of a scene that touch a box, row by row from the upper left, with the interface of a selection.

    Args:
        files: the scene's files.
        finest: header of the grid on which chips are counted.
        moment: time of acquisition.
        bbox: west, south, east, north in degrees; None: all chips.

    Raises:
        InputError: the scene has no such chip.
    """

    def __init__(
        self, files: SceneFiles, finest: CogHeader, moment: datetime, bbox: Sequence[float] | None = None
    ) -> None:
        self.files, self._moment = files, moment
        self._grid = Grid(CRS.from_user_input(finest.crs), Affine(*finest.transform), finest.height, finest.width)
        self._columns, self._rows = finest.width // CHIP_SIZE, finest.height // CHIP_SIZE
        self._places = np.arange(self._columns * self._rows)
        if not len(self):
            raise InputError(
                f"{files.item_id}: {finest.height} × {finest.width} pixels hold no chip of {CHIP_SIZE} × {CHIP_SIZE}. "
                "Take a larger scene."
            )
        if bbox is not None:
            self._places = np.flatnonzero(touching(chip_polygons(self._grid, CHIP_SIZE), checked_box(bbox)))
            if not len(self):
                raise InputError(f"{files.item_id}: no chip touches the box {tuple(bbox)}. Take another scene or box.")

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"{self.files.item_id}, {len(self):,} chips"

    @cached_property
    def _gsd(self) -> np.ndarray:
        return ground_sample_distance(self._grid, CHIP_SIZE)

    def rows(self, indices: ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of some chips, in the order requested."""
        places = self._places[places_of(indices, len(self))]
        files, count = self.files, len(places)
        table = pa.table(
            {
                "platform": [files.platform] * count,
                "year": np.full(count, self._moment.year, np.int16),
                "item_id": [files.item_id] * count,
                "chip_index_x": (places % self._columns).astype(np.uint16),
                "chip_index_y": (places // self._columns).astype(np.uint16),
                "datetime": pa.array([self._moment] * count, pa.timestamp("ms", tz="UTC")),
                "gsd": self._gsd[places].astype(np.float32),
            }
        )
        return table if columns is None else table.select(list(columns))

    def find(self, item_id: str, x: int, y: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The row of one chip, or no rows if the scene does not have it."""
        inside = item_id == self.files.item_id and 0 <= x < self._columns and 0 <= y < self._rows
        place = y * self._columns + x if inside else -1
        return self.rows(np.flatnonzero(self._places == place), columns)
