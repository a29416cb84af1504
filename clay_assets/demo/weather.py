"""Quality rasters: cloud, shadow and nodata pixels, drawn so that every chip's counts are known.

Each chip is first assigned a number of cloudy pixels; then that many of its pixels, the lowest of a smooth field,
become cloud. Where a nodata wedge covers part of a chip, its pixels are counted from the wedge's width in each row, and
the cloud is drawn on the rest. So the ground truth is the input of the drawing, not measured from the result.

Codes: Sentinel-2 Level-2A Algorithm Theoretical Basis Document (SCL); Landsat 8-9 Collection 2 Level 2 Science
Product Guide, LSDS-1619, tables 6-2 and 6-3 (QA_PIXEL values).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clay_assets.demo.calendar import COVER_LEVELS, NO_WEDGE, Scene
from clay_assets.demo.noise import generator, ranked, smooth_field
from clay_assets.demo.sites import Site, wedge_widths

TEXTURES = 3  # and as many inverted
BLOCKS = 4  # width of a periodic texture in chips
SURFACE_PIXELS = 8  # width of a ground patch
OPAQUE = 7  # the smallest cloud thickness that hides the ground
# Appearance of clouds by thickness, from the fringe to the core: opacity and brightness. In addition their shadows,
# with the share of light that remains.
CLOUDS = tuple((min(1.0, 0.12 + 0.13 * n), 0.66 + 0.02 * max(0, n - OPAQUE)) for n in range(16))
SHADOWS = (0.86, 0.72, 0.6, 0.52)
SKIES = ((1.0, 0.0, 0.0), *((light, 0.0, 0.0) for light in SHADOWS), *((1.0, *cloud) for cloud in CLOUDS))
LOOK = 0.01  # share of a texture's deviation: the unit of cloud thickness
THICKER = 8  # step to the next thickness, in that unit; smaller if half of the clouds would not be opaque
FRAYED = 0.12  # share of it by which cloud edges vary
SHADOW_FALLS = 11  # spots in each direction
QUOTA_STEP = 64  # chips without nodata have a multiple of this many cloudy pixels

Blocks = NDArray[Any]  # (rows of chips, columns of chips, pixels of a chip)


@dataclass(frozen=True)
class Encoding:
    """How one sensor encodes quality.

    Attributes:
        nodata: code of nodata pixels.
        clouds: (code, cumulative share of the bad pixels), from the core of a cloud outwards.
        surfaces: codes of clear ground, one set per climate.
        counted: codes that count towards the scene's cloud cover.
        snow: code of clear snow; the code of water is the first of the surfaces.
        dtype: the raster's data type.
    """

    nodata: int
    clouds: tuple[tuple[int, float], ...]
    surfaces: dict[str, tuple[int, ...]]
    counted: tuple[int, ...]
    snow: int
    dtype: type[np.unsignedinteger[Any]]


SCL = Encoding(
    nodata=0,
    # high probability, medium probability, thin cirrus, shadow, saturated or defective
    clouds=((9, 0.55), (8, 0.82), (10, 0.94), (3, 0.995), (1, 1.0)),
    # water, vegetation, bare, unclassified, dark area or snow
    surfaces={"warm": (6, 4, 4, 5, 7, 2), "cold": (6, 4, 5, 2, 11, 11)},
    counted=(8, 9, 10),
    snow=11,
    dtype=np.uint8,
)
QA_PIXEL = Encoding(
    nodata=1,
    # cloud, cloud with cirrus, dilated cloud, shadow
    clouds=((22280, 0.70), (55052, 0.86), (21826, 0.94), (23888, 1.0)),
    # clear over water, clear, clear with cirrus (not cloud), clear over snow
    surfaces={"warm": (21952, 21824, 21824, 54596), "cold": (21952, 21824, 30048, 54596)},
    counted=(22280, 55052),
    snow=30048,
    dtype=np.uint16,
)
COLD_FROM = 55  # degrees of latitude


@dataclass(frozen=True)
class Drawing:
    """One quality raster and the ground truth of its whole chips.

    Attributes:
        codes: (height, width).
        cloud, nodata: number of pixels in each whole chip, (chips down, chips across).
        cloud_cover: cloud cover in the scene's metadata, percent of the valid pixels.
        nodata_share: nodata, percent of all pixels.
        shares: code of cloud or shadow → percent of the valid pixels.
    """

    codes: NDArray[Any]
    cloud: NDArray[np.int64]
    nodata: NDArray[np.int64]
    cloud_cover: float
    nodata_share: float
    shares: dict[int, float]


class Weather:
    """Draws the scenes of one sensor.

    Args:
        seed: the planet's seed.
        encoding: the sensor's encoding of quality.
        chip: width of a chip in quality-raster pixels.
    """

    def __init__(self, seed: int, encoding: Encoding, chip: int) -> None:
        self.seed, self.encoding, self.chip = seed, encoding, chip
        size, pixels = BLOCKS * chip, chip * chip
        self._ranks = np.empty((2 * TEXTURES, BLOCKS, BLOCKS, pixels), np.int32)
        # Pixels of a chip among the lowest 0, 1/128, 2/128, … of the whole texture.
        self._quotas = np.empty((2 * TEXTURES, COVER_LEVELS + 1, BLOCKS, BLOCKS), np.int64)
        # Visible cloud textures with frayed edges, and their limits, in units of `LOOK`.
        self._looks = np.empty((2 * TEXTURES, size, size), np.int16)
        self._edges = np.empty((2 * TEXTURES, COVER_LEVELS + 1), np.int16)
        for index in range(TEXTURES):
            field = smooth_field(generator(seed, "texture", chip, index), (size, size), size / 3)
            blocks = _to_blocks(field, chip).reshape(-1, pixels)
            order = np.argsort(blocks, axis=-1)
            ranks = np.empty(blocks.shape, np.int32)
            np.put_along_axis(ranks, order, np.arange(pixels, dtype=np.int32)[None], axis=-1)
            ascending = np.take_along_axis(blocks, order, axis=-1)
            steps = np.sort(ascending, axis=None)[np.arange(COVER_LEVELS) * field.size // COVER_LEVELS]
            inside = np.stack([np.searchsorted(values, steps) for values in ascending], axis=1)
            quotas = np.full((COVER_LEVELS + 1, len(blocks)), pixels)
            quotas[:-1] = np.round(inside / QUOTA_STEP) * QUOTA_STEP
            self._ranks[index] = ranks.reshape(BLOCKS, BLOCKS, pixels)
            self._quotas[index] = quotas.reshape(-1, BLOCKS, BLOCKS)
            frayed = np.arange(size) * 5 % size  # the same texture at a fifth of the size
            self._looks[index] = np.round((field + FRAYED * field[np.ix_(frayed, frayed)]) / LOOK)
            self._edges[index] = np.round(np.append(steps, steps[-1]) / LOOK)
        self._ranks[TEXTURES:] = pixels - 1 - self._ranks[:TEXTURES]
        self._quotas[TEXTURES:] = pixels - self._quotas[:TEXTURES, ::-1]
        self._looks[TEXTURES:] = -self._looks[:TEXTURES]
        self._edges[TEXTURES:] = -self._edges[:TEXTURES, ::-1]
        self._images = np.stack([_to_image(ranks, chip).astype(np.float32) for ranks in self._ranks])

    def heights(self, site: Site) -> NDArray[np.float64]:
        """Height rank of each patch of a place, 0 to 1, which determines its surface."""
        shape = (-(-site.height // SURFACE_PIXELS), -(-site.width // SURFACE_PIXELS))
        return ranked(smooth_field(generator(self.seed, "surface", site.name), shape, 24))

    def codes_of(self, site: Site) -> tuple[int, ...]:
        """Codes of the surfaces of a place, from the lowest to the highest, with equal shares."""
        return self.encoding.surfaces["cold" if site.middle[1] > COLD_FROM else "warm"]

    def surface(self, site: Site) -> NDArray[Any]:
        """Codes of a cloudless place, (height, width)."""
        codes = self.codes_of(site)
        chosen = np.asarray(codes, self.encoding.dtype)[(self.heights(site) * len(codes)).astype(int)]
        return np.kron(chosen, np.ones((SURFACE_PIXELS,) * 2, chosen.dtype))[: site.height, : site.width]

    def sky(self, scene: Scene, step: int) -> NDArray[np.uint8]:
        """The appearance of clouds at every `step`th pixel of a scene, in both directions, as rows of `SKIES`.

        They match the quality raster except for a few pixels, as that is drawn to given counts.
        """
        site, chip = scene.site, self.chip
        texture, down, across = self._cut(scene)
        look = self._looks[texture]
        rows, columns = (
            np.arange(0, count, step) + start * chip for count, start in ((site.height, down), (site.width, across))
        )
        fall = SHADOW_FALLS * step  # pixels, to the north-west, or to the south-west in the south
        tilt = fall if site.middle[1] > 0 else -fall
        edge, side = self._edges[texture, scene.level], look.shape[0]
        depth, fallen = (
            edge - look[(rows + south)[:, None] % side, (columns + east) % side]
            for south, east in ((0, 0), (tilt, fall))
        )
        some = depth[::4, ::4]
        thicker = np.int16(np.clip(np.median(some[some > 0]) // OPAQUE if (some > 0).any() else 1, 1, THICKER))
        thick, shade = (np.clip(one // thicker, 0, len(CLOUDS)) for one in (depth, fallen))
        return np.asarray(np.where(thick, len(SHADOWS) + thick, np.minimum(shade, len(SHADOWS))), np.uint8)

    def draw(self, scene: Scene, surface: NDArray[Any]) -> Drawing:
        """Draw one scene over the `surface` of its site."""
        site, chip, pixels = scene.site, self.chip, self.chip * self.chip
        rows, columns = -(-site.height // chip), -(-site.width // chip)
        texture, down, across = self._cut(scene)
        chips = np.ix_((np.arange(rows) + down) % BLOCKS, (np.arange(columns) + across) % BLOCKS)
        quota = self._quotas[texture, scene.level][chips]
        ranks = self._images[texture][(np.arange(site.height) + down * chip) % (BLOCKS * chip)]
        ranks = np.tile(ranks, (1, 1 - (-columns // BLOCKS)))[:, across * chip : across * chip + site.width]
        hidden = np.zeros((rows, columns), np.int64)
        if scene.wedge != NO_WEDGE:
            widths = np.pad(wedge_widths(site, scene.wedge), (0, rows * chip - site.height), mode="edge")
            touched = -(-int(widths.max()) // chip)  # columns of chips
            hidden = np.clip(widths[:, None] - chip * np.arange(columns), 0, chip).reshape(rows, chip, -1).sum(axis=1)
            quota = np.minimum(np.round(quota * (1 - hidden / pixels)).astype(np.int64), pixels - hidden)
            mask = np.arange(touched * chip) < widths[:, None]
            among = _reranked(self._ranks[texture][chips][:, :touched], _to_blocks(mask, chip))
            edge = min(touched * chip, site.width)
            ranks[:, :edge] = _to_image(among, chip)[: site.height, :edge]
        codes, reached = surface.copy(), np.zeros(len(self.encoding.clouds) + 1, np.int64)
        if scene.level:
            # Rank of each pixel outwards from its chip's cloud core; below 1 it belongs to the cloud.
            reach = quota.astype(np.float32).repeat(chip, axis=1)[:, : site.width]
            reach = reach.repeat(chip, axis=0)[: site.height]
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(ranks, reach, out=reach)
            depth = np.zeros(reach.shape, np.uint8)  # 0 outside, from 1 at the fringe to n in the core
            for index, (_, share) in enumerate(self.encoding.clouds):
                inside = reach < np.float32(share)
                reached[index + 1] = np.count_nonzero(inside)
                depth += inside.view(np.uint8)
            by_depth = [0, *(code for code, _ in reversed(self.encoding.clouds))]
            codes = np.where(depth, np.asarray(by_depth, self.encoding.dtype).take(depth), surface)
        empty = 0
        if scene.wedge != NO_WEDGE:
            np.putmask(codes[:, :edge], mask[: site.height, :edge], self.encoding.nodata)
            empty = int(wedge_widths(site, scene.wedge).sum())
        with_data = codes.size - empty
        shares = {
            code: 100 * int(count) / with_data
            for (code, _), count in zip(self.encoding.clouds, np.diff(reached), strict=True)
        }
        whole = np.s_[: site.whole_chips[0], : site.whole_chips[1]]
        return Drawing(
            codes=codes,
            cloud=quota[whole],
            nodata=hidden[whole],
            cloud_cover=sum(shares[code] for code in self.encoding.counted),
            nodata_share=100 * empty / codes.size,
            shares=shares,
        )

    def _cut(self, scene: Scene) -> tuple[int, int, int]:
        """The texture that a scene is cut from, and the position in chips down and across."""
        rng = generator(self.seed, "sky", scene.site.name, scene.lucky)
        texture, down, across = (int(n) for n in rng.integers([2 * TEXTURES, BLOCKS, BLOCKS]))
        return texture, down, across


def _to_blocks(image: NDArray[Any], chip: int) -> Blocks:
    rows, columns = (side // chip for side in image.shape)
    return np.ascontiguousarray(image.reshape(rows, chip, columns, chip).swapaxes(1, 2)).reshape(rows, columns, -1)


def _to_image(blocks: Blocks, chip: int) -> NDArray[Any]:
    rows, columns = blocks.shape[:2]
    return blocks.reshape(rows, columns, chip, chip).swapaxes(1, 2).reshape(rows * chip, columns * chip)


def _reranked(ranks: Blocks, hidden: Blocks) -> Blocks:
    """Ranks among the visible pixels, in the same order; hidden ones rank last."""
    seen = np.empty(ranks.shape, np.int32)
    np.put_along_axis(seen, ranks, (~hidden).astype(np.int32), axis=-1)
    among = np.take_along_axis(np.cumsum(seen, axis=-1, dtype=np.int32) - 1, ranks, axis=-1)
    return np.where(hidden, np.int32(ranks.shape[-1]), among)
