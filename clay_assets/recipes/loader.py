"""Recipes: TOML files that define what is sampled, validated when loaded.

A recipe holds every choice that affects which chips are produced. Where files are stored and how fast they are read are
settings (`clay_assets.settings`).
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Options
from clay_assets.recipes.classes import DIVERSITY, WORLDCOVER_CLASSES
from clay_assets.recipes.exclusions import Exclusion, check_each_once, chips_of, scenes_of
from clay_assets.version import software_version

RULE_CLASSES = (DIVERSITY, *WORLDCOVER_CLASSES.values())


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class TileRule(_Strict):
    """Draws `tiles` at random from the `from_highest` MGRS tiles with the highest share of a class."""

    rule: str = Field(min_length=1, description="name of the rule; part of its random draw")
    land_cover: str = Field(alias="class", description=f"one of {', '.join(RULE_CLASSES)}")
    tiles: Annotated[int, Field(ge=1, strict=True, description="tiles drawn")]
    from_highest: Annotated[int, Field(ge=1, strict=True, description="size of the pool that tiles are drawn from")]

    @field_validator("land_cover")
    @classmethod
    def _class_exists(cls, value: str) -> str:
        if value not in RULE_CLASSES:
            raise ValueError(f"{value!r}: unknown class; known: {', '.join(RULE_CLASSES)}")
        return value

    @model_validator(mode="after")
    def _fits_its_pool(self) -> TileRule:
        if self.tiles > self.from_highest:
            raise ValueError(f"tiles {self.tiles} is more than from_highest {self.from_highest}")
        return self


class Tolerance(_Strict):
    """The share of failures that a run tolerates; tolerated failures are reported and skipped."""

    failed_requests: float = Field(default=0.01, ge=0, le=1, description="share of the searches of a cell")
    failed_scenes: float = Field(default=0.01, ge=0, le=1, description="share of the scenes of a cell")
    published: float = Field(
        default=0.1, ge=0, description="largest share by which counts may differ from published ones"
    )


class ChipLandcover(_Strict):
    """Which chips get land cover in the merged index, and when a check warns about class shares."""

    min_valid_share: float = Field(
        default=0.5, ge=0, le=1, description="minimum share of a chip's area that WorldCover must cover"
    )
    max_difference: float = Field(
        default=0.1, ge=0, le=1, description="largest difference of a class's share between chips and sampled tiles"
    )


class Published(_Strict):
    """Counts of a published training set according to its documentation; None where it gives no count."""

    locations: int | None = Field(default=None, ge=0, description="sampled places, such as tiles")
    requests: int | None = Field(default=None, ge=0, description="searches, one scene each")
    chips: int | None = Field(default=None, ge=0, description="chips")


# MODIS has the largest chips: its pixels are 500 m (the Clay model documentation, "Training Data").
COARSEST_PIXEL = 0.5  # km
HALF_OF_EARTH = 20_000  # km, from pole to pole
SPLIT_NAMES = ("train", "validate", "test")
SUM_TOLERANCE = 1e-6  # percent


class SplitRegion(_Strict):
    """A region with smaller blocks and its own draw, as some platforms only cover that region."""

    name: str = Field(min_length=1, description="name of the region; part of its random draw")
    block_km: float = Field(gt=0, allow_inf_nan=False, description="side of its blocks; must divide `splits.block_km`")
    outline: tuple[tuple[float, float], ...] = Field(
        min_length=3, description="approximate corners as [longitude, latitude]; must not cross ±180"
    )

    @field_validator("outline")
    @classmethod
    def _on_earth(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for longitude, latitude in value:
            if not (abs(longitude) <= 180 and abs(latitude) <= 90):  # NaN too
                raise ValueError(
                    f"[{longitude}, {latitude}] is not a valid longitude (−180 to 180) and latitude (−90 to 90)"
                )
        return value


class Splits(_Strict):
    """How chips are split into training, validation and test: by blocks on the ground."""

    shares: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = Field(
        default={"train": 90.0, "validate": 5.0, "test": 5.0}, description="percent of the land"
    )
    distance_km: float = Field(
        default=5, ge=0, allow_inf_nan=False, description="minimum distance between chips of different splits"
    )
    block_km: float = Field(default=800, gt=0, allow_inf_nan=False, description="side of a block on the ground")
    regions: tuple[SplitRegion, ...] = ()

    @field_validator("shares")
    @classmethod
    def _all_of_the_land(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(SPLIT_NAMES))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown split; known: {', '.join(SPLIT_NAMES)}")
        missing = [name for name in SPLIT_NAMES if name not in value]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing; use 0 for an empty split")
        if not abs(sum(value.values()) - 100) <= SUM_TOLERANCE:
            raise ValueError(f"{value} sum to {sum(value.values()):g}, not 100 percent")
        if not value["train"]:
            raise ValueError(
                "train is 0; it must be above 0, or buffer chips could not be distinguished from training chips"
            )
        return value

    @model_validator(mode="after")
    def _regions_fit(self) -> Splits:
        names = [region.name for region in self.regions]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"region {', '.join(repeated)} occurs twice; each region needs its own name")
        for region in self.regions:
            if abs(self.block_km / region.block_km - self.parts_of(region.block_km)) > SUM_TOLERANCE:
                raise ValueError(
                    f"region {region.name}: block_km {region.block_km:g} does not divide {self.block_km:g}; "
                    f"use {self.block_km:g} / 2, / 3 and so on"
                )
        return self

    def parts_of(self, block_km: float) -> int:
        """How many blocks of a region fit along the side of a regular block."""
        return max(1, round(self.block_km / block_km))


class Recipe(_Strict):
    """Every choice that affects which chips are produced."""

    name: str = Field(min_length=1, description="name of the recipe, in the metadata of everything made with it")
    description: str = Field(default="", description="what the recipe is for")
    seed: int = Field(ge=0, strict=True, description="of every random draw")
    chip_size: int = Field(
        default=256,
        ge=16,
        le=4096,
        multiple_of=2,  # quality bands can have half the resolution
        strict=True,
        description="side length in pixels of a scene's finest grid",
    )
    tolerance: Tolerance = Tolerance.model_validate({})
    chip_landcover: ChipLandcover = ChipLandcover.model_validate({})
    tile_rules: tuple[TileRule, ...] = Field(min_length=1)
    splits: Splits = Splits()
    platforms: dict[str, SerializeAsAny[Options]] = Field(default_factory=dict)
    published: dict[str, Published] = Field(default_factory=dict)
    exclude: tuple[Exclusion, ...] = ()

    @field_validator("platforms", mode="before")
    @classmethod
    def _each_platform_reads_its_own(cls, value: Any) -> dict[str, Options]:
        if not isinstance(value, dict):
            raise ValueError("must be a table of platforms, each [platforms.KEY]")
        given = value
        unknown = sorted(set(given) - set(PLATFORMS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown platform; known: {', '.join(sorted(PLATFORMS))}")
        read: dict[str, Options] = {}
        for key, platform in sorted(PLATFORMS.items()):
            section = given.get(key, {})
            try:
                read[key] = section if isinstance(section, Options) else platform.rules.options.model_validate(section)
            except ValidationError as error:
                raise ValueError("; ".join(_problems(error, (key,)))) from error
        return read

    @field_validator("exclude", mode="before")
    @classmethod
    def _list_of_tables(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("must be a list of exclusions, each [[exclude]]")
        return value

    @field_validator("exclude")
    @classmethod
    def _each_excluded_once(cls, value: tuple[Exclusion, ...]) -> tuple[Exclusion, ...]:
        check_each_once(value)
        return tuple(sorted(value, key=lambda one: one.key))  # the order has no effect

    @field_validator("published")
    @classmethod
    def _platforms_exist(cls, value: dict[str, Published]) -> dict[str, Published]:
        unknown = sorted(set(value) - set(PLATFORMS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: unknown platform; known: {', '.join(sorted(PLATFORMS))}")
        return value

    @model_validator(mode="after")
    def _rules_have_names_of_their_own(self) -> Recipe:
        names = [rule.rule for rule in self.tile_rules]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"rule {', '.join(repeated)} occurs twice; each rule needs its own name")
        return self

    @model_validator(mode="after")
    def _chips_fit_in_blocks(self) -> Recipe:
        chip, distance = self.chip_size * COARSEST_PIXEL, self.splits.distance_km
        blocks = {"": self.splits.block_km, **{f"region {one.name}, ": one.block_km for one in self.splits.regions}}
        for where, side in blocks.items():
            if side <= chip + distance:
                raise ValueError(
                    f"splits: {where}block_km {side:g} is not larger than a MODIS chip ({chip:g} km) and distance_km "
                    f"({distance:g} km) together, so no chip would get a split. Make the blocks larger"
                )
        if self.splits.block_km > HALF_OF_EARTH / 3:
            raise ValueError(f"splits: block_km {self.splits.block_km:g} is too large for three blocks on Earth")
        return self

    def options(self, platform: str) -> Any:
        """The recipe fields of one platform, an instance of its `Options` class."""
        return self.platforms[platform]

    def excluded_scenes(self, platform: str) -> dict[str, str]:
        """Item id → reason of the excluded scenes of a platform."""
        return scenes_of(self.exclude, platform)

    def excluded_chips(self, platform: str) -> dict[str, dict[str, str]]:
        """Item id → chip id → reason of the excluded chips of a platform."""
        return chips_of(self.exclude, platform)

    @property
    def document(self) -> str:
        """The whole recipe as canonical JSON with defaults; `exclude` only if there are exclusions."""
        choices = self.model_dump(mode="json", by_alias=True, exclude=None if self.exclude else {"exclude"})
        return json.dumps(choices, sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change with any choice in the recipe (BLAKE2b of `document`)."""
        return hashlib.blake2b(self.document.encode(), digest_size=8).hexdigest()

    def stamp(self) -> dict[str, str]:
        """Provenance metadata written into every file."""
        return {
            "recipe_name": self.name,
            "recipe_hash": self.hash,
            "recipe": self.document,
            "software_version": software_version(),
        }


BuiltIn = Literal["clay_v1", "clay_v0_1"]
BUILT_IN: tuple[BuiltIn, ...] = ("clay_v1", "clay_v0_1")


def load_recipe(name_or_path: str | Path = "clay_v1") -> Recipe:
    """Load and check a recipe.

    Args:
        name_or_path: `clay_v1`, `clay_v0_1`, or the path of a TOML file.

    Raises:
        InputError: unknown recipe, invalid TOML or invalid value; names file, rule and field.

    Examples:
        >>> from clay_assets import load_recipe
        >>> recipe = load_recipe("clay_v1")
        >>> recipe.options("sentinel-2-l2a").years
        (2018, 2023)
        >>> len(recipe.hash)
        16
    """
    text, source = _text_of(name_or_path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {source}: not valid TOML: {error}.") from error
    content.setdefault("platforms", {})
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = _problems(error, (), content)
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"recipe {source}: {len(problems)} mistake(s):\n{listed}") from error


def _text_of(name_or_path: str | Path) -> tuple[str, str]:
    if name_or_path in BUILT_IN:
        file = resources.files("clay_assets.recipes") / f"{name_or_path}.toml"
        return file.read_text(encoding="utf-8"), str(name_or_path)
    path = Path(name_or_path).expanduser()
    try:
        # Windows editors write a byte-order mark, which TOML does not allow.
        return path.read_text(encoding="utf-8-sig"), str(path)
    except UnicodeDecodeError as error:
        raise InputError(f"recipe {path}: not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except OSError as error:
        raise InputError(
            f"CLAY_RECIPE={str(name_or_path)!r} is neither {' nor '.join(BUILT_IN)} nor a readable file ({error})."
        ) from error


# List in the recipe → what an entry is called in messages, and the fields that identify it.
_ENTRIES = {"tile_rules": ("tile rule", ("rule",)), "exclude": ("exclusion", ("scene", "chip"))}


def _problems(error: ValidationError, before: tuple[str, ...], content: Mapping[str, Any] | None = None) -> list[str]:
    """Each mistake as `place: what`, with list entries identified by number and name."""
    said = []
    found = error.errors()
    nested = {problem["loc"][:1] for problem in found if len(problem["loc"]) > 1}
    for problem in found:
        if problem["type"] == "too_short" and problem["loc"] in nested:
            continue  # pydantic drops invalid entries before it counts them
        place = [str(part) for part in (*before, *problem["loc"])]
        if content is not None and len(place) > 1 and place[0] in _ENTRIES and place[1].isdigit():
            place[:2] = [_entry(content[place[0]], place[0], int(place[1]))]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "no such field; check the spelling"
        said.append(f"{', '.join(place) or 'recipe'}: {message}")
    return said


def _entry(entries: Any, table: str, number: int) -> str:
    """A list entry identified by its number, from 1, and its name."""
    called, fields = _ENTRIES[table]
    entry = entries[number] if number < len(entries) else {}
    named = [entry[field] for field in fields if field in entry] if isinstance(entry, dict) else [entry]
    return f"{called} {number + 1} ({named[0] if named else 'unnamed'})"
