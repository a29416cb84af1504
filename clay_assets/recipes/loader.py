"""Recipes: what is sampled, as TOML, checked when it is loaded.

A recipe holds every choice that decides which chips come out. Where files lie and how fast they are read are
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
    """`tiles` random ones of the `from_highest` MGRS tiles with the highest share of a class."""

    rule: str = Field(min_length=1, description="name of the rule; part of its random draw")
    land_cover: str = Field(alias="class", description=f"one of {', '.join(RULE_CLASSES)}")
    tiles: Annotated[int, Field(ge=1, strict=True, description="tiles drawn")]
    from_highest: Annotated[int, Field(ge=1, strict=True, description="size of the pool drawn from")]

    @field_validator("land_cover")
    @classmethod
    def _class_exists(cls, value: str) -> str:
        if value not in RULE_CLASSES:
            raise ValueError(f"{value!r} is no class; there are {', '.join(RULE_CLASSES)}")
        return value

    @model_validator(mode="after")
    def _fits_its_pool(self) -> TileRule:
        if self.tiles > self.from_highest:
            raise ValueError(f"tiles {self.tiles} is more than from_highest {self.from_highest}")
        return self


class Tolerance(_Strict):
    """Which share of failures a run may end well with; those within it are reported and set aside."""

    failed_requests: float = Field(default=0.01, ge=0, le=1, description="share of the searches of a cell")
    failed_scenes: float = Field(default=0.01, ge=0, le=1, description="share of the scenes of a cell")
    published: float = Field(default=0.1, ge=0, description="share by which counts may differ from published ones")


class ChipLandcover(_Strict):
    """Which chips have land cover in the merged index, and when a check warns of it."""

    min_valid_share: float = Field(
        default=0.5, ge=0, le=1, description="share of a chip's area that WorldCover has to cover"
    )
    max_difference: float = Field(
        default=0.1, ge=0, le=1, description="by which a class's share of the chips may differ from the sampled tiles'"
    )


class Published(_Strict):
    """How many there were in a published set, as its documentation says; none: it does not say."""

    locations: int | None = Field(default=None, ge=0, description="sampled places, such as tiles")
    requests: int | None = Field(default=None, ge=0, description="searches, each for one scene")
    chips: int | None = Field(default=None, ge=0, description="chips")


# The largest chips are those of MODIS, whose pixels are 500 m (the Clay model documentation, "Training Data").
COARSEST_PIXEL = 0.5  # km
HALF_OF_EARTH = 20_000  # km, from pole to pole
SPLIT_NAMES = ("train", "validate", "test")
SUM_TOLERANCE = 1e-6  # percent


class SplitRegion(_Strict):
    """A part of the world with smaller blocks, and a draw of its own, since there are platforms that lie only there."""

    name: str = Field(min_length=1, description="name of the region; part of its random draw")
    block_km: float = Field(gt=0, allow_inf_nan=False, description="side of its blocks; a whole part of the others'")
    outline: tuple[tuple[float, float], ...] = Field(
        min_length=3, description="[longitude, latitude] of its corners, roughly; it may not cross ±180"
    )

    @field_validator("outline")
    @classmethod
    def _on_earth(cls, value: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for longitude, latitude in value:
            if not (abs(longitude) <= 180 and abs(latitude) <= 90):  # NaN too
                raise ValueError(
                    f"[{longitude}, {latitude}] is not a longitude (−180 to 180) and a latitude (−90 to 90)"
                )
        return value


class Splits(_Strict):
    """How chips are split for training, validation and test: by blocks on the ground."""

    shares: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = Field(
        default={"train": 90.0, "validate": 5.0, "test": 5.0}, description="percent of the land"
    )
    distance_km: float = Field(
        default=5, ge=0, allow_inf_nan=False, description="chips of different splits are at least so far apart"
    )
    block_km: float = Field(default=800, gt=0, allow_inf_nan=False, description="side of a block on the ground")
    regions: tuple[SplitRegion, ...] = ()

    @field_validator("shares")
    @classmethod
    def _all_of_the_land(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(SPLIT_NAMES))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such split; there are {', '.join(SPLIT_NAMES)}")
        missing = [name for name in SPLIT_NAMES if name not in value]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing; say 0 for a split that should have nothing")
        if not abs(sum(value.values()) - 100) <= SUM_TOLERANCE:
            raise ValueError(f"{value} sum to {sum(value.values()):g}, not to 100 percent")
        if not value["train"]:
            raise ValueError("train is 0; chips between blocks could not be told from those to train on")
        return value

    @model_validator(mode="after")
    def _regions_fit(self) -> Splits:
        names = [region.name for region in self.regions]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"region {', '.join(repeated)} occurs twice; each region needs a name of its own")
        for region in self.regions:
            if abs(self.block_km / region.block_km - self.parts_of(region.block_km)) > SUM_TOLERANCE:
                raise ValueError(
                    f"region {region.name}: block_km {region.block_km:g} is not a whole part of {self.block_km:g}; "
                    f"take {self.block_km:g} / 2, / 3 and so on"
                )
        return self

    def parts_of(self, block_km: float) -> int:
        """How many blocks of a region lie along the side of a block elsewhere."""
        return max(1, round(self.block_km / block_km))


class Recipe(_Strict):
    """Everything that decides which chips come out."""

    name: str = Field(min_length=1, description="name of the recipe, in the metadata of everything made with it")
    description: str = Field(default="", description="what the recipe is for")
    seed: int = Field(ge=0, strict=True, description="of every random draw")
    chip_size: int = Field(
        default=256,
        ge=16,
        le=4096,
        multiple_of=2,  # a quality band may be at half the resolution
        strict=True,
        description="pixels on a side, on the finest grid of a scene",
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
            raise ValueError("is no table of platforms, each [platforms.KEY]")
        given = value
        unknown = sorted(set(given) - set(PLATFORMS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such platform; there are {', '.join(sorted(PLATFORMS))}")
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
            raise ValueError("is not a list of exclusions, each [[exclude]]")
        return value

    @field_validator("exclude")
    @classmethod
    def _each_excluded_once(cls, value: tuple[Exclusion, ...]) -> tuple[Exclusion, ...]:
        check_each_once(value)
        return tuple(sorted(value, key=lambda one: one.key))  # their order decides nothing

    @field_validator("published")
    @classmethod
    def _platforms_exist(cls, value: dict[str, Published]) -> dict[str, Published]:
        unknown = sorted(set(value) - set(PLATFORMS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such platform; there are {', '.join(sorted(PLATFORMS))}")
        return value

    @model_validator(mode="after")
    def _rules_have_names_of_their_own(self) -> Recipe:
        names = [rule.rule for rule in self.tile_rules]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"rule {', '.join(repeated)} occurs twice; each rule needs a name of its own")
        return self

    @model_validator(mode="after")
    def _chips_fit_in_blocks(self) -> Recipe:
        chip, distance = self.chip_size * COARSEST_PIXEL, self.splits.distance_km
        blocks = {"": self.splits.block_km, **{f"region {one.name}, ": one.block_km for one in self.splits.regions}}
        for where, side in blocks.items():
            if side <= chip + distance:
                raise ValueError(
                    f"splits: {where}block_km {side:g} is not larger than a MODIS chip ({chip:g} km) and distance_km "
                    f"({distance:g} km) together, so that no chip would have a split. Make the blocks larger"
                )
        if self.splits.block_km > HALF_OF_EARTH / 3:
            raise ValueError(f"splits: block_km {self.splits.block_km:g}: blocks are too large to be three on Earth")
        return self

    def options(self, platform: str) -> Any:
        """The recipe fields of one platform, of the platform's own `Options` class."""
        return self.platforms[platform]

    def excluded_scenes(self, platform: str) -> dict[str, str]:
        """Item id → reason of the scenes of a platform that are never picked."""
        return scenes_of(self.exclude, platform)

    def excluded_chips(self, platform: str) -> dict[str, dict[str, str]]:
        """Item id → chip id → reason of the chips of a platform that are never indexed."""
        return chips_of(self.exclude, platform)

    @property
    def document(self) -> str:
        """The whole recipe as canonical JSON, defaults included; exclusions where there are any."""
        choices = self.model_dump(mode="json", by_alias=True, exclude=None if self.exclude else {"exclude"})
        return json.dumps(choices, sort_keys=True, separators=(",", ":"))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change with any choice in the recipe (BLAKE2b of `document`)."""
        return hashlib.blake2b(self.document.encode(), digest_size=8).hexdigest()

    def stamp(self) -> dict[str, str]:
        """The entries about its origin that every written file carries."""
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
        InputError: no such recipe, not TOML, or a wrong value; names file, rule and field.
    """
    text, source = _text_of(name_or_path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {source}: is not valid TOML: {error}.") from error
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
        # Editors on Windows begin UTF-8 with a byte-order mark, which TOML does not know.
        return path.read_text(encoding="utf-8-sig"), str(path)
    except UnicodeDecodeError as error:
        raise InputError(
            f"recipe {path}: is not valid TOML: it is not UTF-8 text ({error.reason}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(
            f"CLAY_RECIPE={str(name_or_path)!r} is neither {' nor '.join(BUILT_IN)} nor a readable file ({error})."
        ) from error


# Table of the recipe that is a list → what an entry of it is called, and the fields that name it.
_ENTRIES = {"tile_rules": ("tile rule", ("rule",)), "exclude": ("exclusion", ("scene", "chip"))}


def _problems(error: ValidationError, before: tuple[str, ...], content: Mapping[str, Any] | None = None) -> list[str]:
    """Each mistake as `place: what`, with rules called by their names."""
    said = []
    found = error.errors()
    nested = {problem["loc"][:1] for problem in found if len(problem["loc"]) > 1}
    for problem in found:
        if problem["type"] == "too_short" and problem["loc"] in nested:
            continue  # pydantic leaves wrong entries out before it counts them
        place = [str(part) for part in (*before, *problem["loc"])]
        if content is not None and len(place) > 1 and place[0] in _ENTRIES and place[1].isdigit():
            place[:2] = [_entry(content[place[0]], place[0], int(place[1]))]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "no such field; check the spelling"
        said.append(f"{', '.join(place) or 'recipe'}: {message}")
    return said


def _entry(entries: Any, table: str, number: int) -> str:
    """An entry of a list of the recipe by its number, from 1, and its name."""
    called, fields = _ENTRIES[table]
    entry = entries[number] if number < len(entries) else {}
    named = [entry[field] for field in fields if field in entry] if isinstance(entry, dict) else [entry]
    return f"{called} {number + 1} ({named[0] if named else 'unnamed'})"
