"""Pixels inside polygons: the same as rasterised by GDAL for any shape, and counted as by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.features import geometry_mask
from shapely import box
from shapely.affinity import rotate

from clay_assets.landcover import spans
from clay_assets.landcover.spans import Spans, count_values, spans_inside

HEIGHT, WIDTH = 90, 131
GRID = Affine(0.05, 0, 6, 0, -0.05, 3)  # degrees; the lower right corner is 12.55, -1.5
VALUES = (0, 10, 20, 95)


def at(column: float, row: float) -> tuple[float, float]:
    """The position of pixel coordinates."""
    return GRID * (column, row)


def ring(*places: tuple[float, float]) -> shapely.Polygon:
    return shapely.Polygon([at(*place) for place in places])


def random_shapes(seed: int) -> list[Any]:
    """Slanted boxes, ragged rings that may self-intersect, and unions of several of them, some beyond the grid."""
    generator = np.random.default_rng(seed)
    shapes: list[Any] = []
    for _ in range(12):
        x, y, wide, tall = generator.uniform((5, -3, 0.01, 0.01), (13, 4, 4, 3)).tolist()
        shapes.append(rotate(box(x, y, x + wide, y + tall), generator.uniform(0, 360)))
        shapes.append(shapely.make_valid(shapely.Polygon(generator.uniform((5.5, -2), (13, 3.5), (9, 2)))))
    shapes.append(shapely.union_all(shapes[::3]))
    shapes.append(shapely.difference(box(6.2, -1, 11, 2.5), shapely.union_all(shapes[::4])))
    return [shape for shape in shapes if shape.geom_type in ("Polygon", "MultiPolygon")]


SPECIAL = {
    "edges of pixels": ring((3, 3), (40, 3), (40, 60), (3, 60)),
    "centres of pixels": ring((3.5, 3.5), (40.5, 3.5), (40.5, 60.5), (3.5, 60.5)),
    "clockwise on centres": ring((3.5, 3.5), (3.5, 60.5), (40.5, 60.5), (40.5, 3.5)),
    "corners on centres": ring((10.5, 3.5), (60.5, 30.5), (20.5, 80.5)),
    "diagonal through centres": ring((5.5, 5.5), (50.5, 50.5), (5.5, 50.5)),
    "less than a pixel": ring((10.6, 10.6), (10.9, 10.6), (10.9, 10.9)),
    "around one centre": ring((10.4, 10.4), (10.6, 10.4), (10.6, 10.6), (10.4, 10.6)),
    "hole": box(*at(5, 80), *at(90, 5)).difference(box(*at(20.5, 60), *at(60.2, 20.5))),
    "two parts in a row": shapely.MultiPolygon([box(*at(5, 80), *at(30.3, 5)), box(*at(40.1, 70), *at(90, 15))]),
    "all of the grid": box(*at(-9, HEIGHT + 9), *at(WIDTH + 9, -9)),
    "beside the grid": box(*at(WIDTH + 5, 50), *at(WIDTH + 9, 5)),
    "comb": ring((5, 5), (60, 5), (60, 80), (50, 80), (50, 15), (40, 15), (40, 80.5), (30, 80), (30, 15), (5, 15.5)),
}


def mask_of(parts: tuple[Any, Any, Any]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), int)
    for row, first, stop in zip(*parts, strict=True):
        mask[row, first:stop] += 1
    assert mask.max(initial=0) <= 1
    return mask.astype(bool)


@pytest.mark.parametrize("name", SPECIAL)
def test_shapes_whose_edges_pass_centres(name: str) -> None:
    expected = geometry_mask([SPECIAL[name]], (HEIGHT, WIDTH), GRID, invert=True)
    np.testing.assert_array_equal(mask_of(spans_inside(SPECIAL[name], GRID, (HEIGHT, WIDTH))), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_any_shapes(seed: int) -> None:
    for shape in random_shapes(seed):
        expected = geometry_mask([shape], (HEIGHT, WIDTH), GRID, invert=True)
        np.testing.assert_array_equal(mask_of(spans_inside(shape, GRID, (HEIGHT, WIDTH))), expected)


def spans_of(shapes: list[Any], weights: np.ndarray) -> Spans:
    parts = (spans_inside(shape, GRID, (HEIGHT, WIDTH)) for shape in shapes)
    return Spans.of([(row, first, stop, weights[row]) for row, first, stop in parts])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [7, 64, HEIGHT])
@pytest.mark.parametrize("width", [WIDTH, 128, 64])  # whole words or not
def test_weights_are_those_of_each_pixel_in_turn(monkeypatch: pytest.MonkeyPatch, rows: int, width: int) -> None:
    monkeypatch.setattr(spans, "SLAB", 3 * width)
    generator = np.random.default_rng(rows)
    pixels = generator.choice(np.array(VALUES, np.uint8), (HEIGHT, width))
    weights = generator.uniform(0.5, 1, HEIGHT)
    window = box(*at(0, HEIGHT), *at(width, 0))
    shapes = [shapely.intersection(shape, window) for shape in (*SPECIAL.values(), *random_shapes(rows))]
    shapes = [shape for shape in shapes if shape.geom_type in ("Polygon", "MultiPolygon")]
    inside = spans_of(shapes, weights)
    slabs = [(top, pixels[top : top + rows]) for top in range(0, HEIGHT, rows)]
    counts, other = count_values(slabs, inside, VALUES)
    assert other is None
    found = inside.weighted(counts, len(shapes))
    for shape, of_values in zip(shapes, found, strict=True):
        mask = geometry_mask([shape], (HEIGHT, width), GRID, invert=True)
        by_row = np.stack([(mask & (pixels == value)).sum(axis=1) for value in VALUES], axis=1)
        np.testing.assert_array_equal(of_values, (by_row * weights[:, None]).sum(axis=0))  # to the last bit


def test_a_value_that_is_not_counted_is_told_of_the_first_polygon_that_has_one() -> None:
    pixels = np.full((HEIGHT, WIDTH), 10, np.uint8)
    pixels[80, 10], pixels[5, 100], pixels[60, 70] = 33, 44, 55
    shapes = [box(*at(60, 70), *at(80, 50)), box(*at(5, 85), *at(15, 75)), box(*at(95, 10), *at(105, 0))]
    for order, value in (((0, 1, 2), 55), ((1, 2, 0), 33), ((2, 1, 0), 44)):
        inside = spans_of([shapes[number] for number in order], np.ones(HEIGHT))
        assert count_values([(0, pixels)], inside, VALUES)[1] == value
    assert count_values([(0, pixels)], spans_of([box(*at(5, 70), *at(15, 75))], np.ones(HEIGHT)), VALUES)[1] is None
