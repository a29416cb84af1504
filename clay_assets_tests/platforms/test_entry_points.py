"""Platforms of other distributions: how they are found, what they may set, and how errors name them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import clay_assets.platforms
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.gathering import gather
from clay_assets_tests.platforms.distributions import distribution, python

LIST = "from clay_assets.platforms import PLATFORMS; print(*PLATFORMS)"
READ = (
    "from clay_assets.platforms import PLATFORMS\n"
    "from clay_assets.settings import read_settings\n"
    "print(read_settings().{})"
)


def module(key: object, more: str = "") -> str:
    """A platform like Sentinel-2, with another key."""
    return (
        "from dataclasses import replace\n"
        "from clay_assets.platforms.base import Files, SceneSource\n"
        "from clay_assets.platforms.sentinel_2_l2a import PLATFORM as SENTINEL_2\n"
        "from clay_assets.transport.access import Access, Keys, bearer\n"
        f"PLATFORM = replace(SENTINEL_2, key={key!r}{more})\n"
    )


def source(catalogue: str, default: str | None = "https://stac.example.org/v1") -> str:
    return f', scenes=SceneSource(catalogue={catalogue!r}, collection="c", sample="mgrs_sample", default={default!r})'


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """The error raised by gathering with a folder on the path."""
    before = set(sys.modules)

    def error(path: Path) -> str:
        monkeypatch.syspath_prepend(path)
        with pytest.raises(InputError) as raised:
            gather(clay_assets.platforms.__path__)
        return str(raised.value)

    yield error
    for name in set(sys.modules) - before:
        del sys.modules[name]


# --- what is found ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_module_and_an_object_are_platforms_after_ours(tmp_path: Path) -> None:
    text = module("theirs") + 'OTHER = replace(PLATFORM, key="aaa")\n'
    distribution(tmp_path, "their-platforms", {"theirs": text}, {"one": "theirs", "two": "theirs:OTHER"})
    done = python(LIST, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted([*PLATFORMS, "theirs", "aaa"])


@pytest.mark.slow
def test_without_distributions_there_are_ours(tmp_path: Path) -> None:
    assert python(LIST, tmp_path).stdout.split() == list(PLATFORMS)


@pytest.mark.slow
def test_a_platform_may_be_imported_before_ours(tmp_path: Path) -> None:
    """As in its own tests: it is still being imported when it imports our package."""
    distribution(tmp_path, "their-platforms", {"theirs": module("theirs")}, {"one": "theirs"})
    done = python(f"import theirs; {LIST}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "theirs" in done.stdout.split()


@pytest.mark.slow
def test_a_submodule_of_ours_loads_no_distribution(tmp_path: Path) -> None:
    distribution(tmp_path, "their-platforms", {"theirs": "raise RuntimeError"}, {"one": "theirs"})
    done = python("import clay_assets.platforms.base, clay_assets.platforms.quarters", tmp_path)
    assert done.returncode == 0, done.stderr


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "entry", "said"),
    [
        pytest.param(
            {"theirs": module("naip")},
            "theirs",
            r"platform naip is also in clay_assets \(module naip\)\. Uninstall one, or rename its key\.",
            id="a key of ours",
        ),
        pytest.param({}, "no_such", r"no_such cannot be loaded \(ModuleNotFoundError: .*no_such", id="no module"),
        pytest.param(
            {"theirs": ""}, "theirs:GONE", r"theirs:GONE cannot be loaded \(AttributeError: .*GONE", id="no object"
        ),
        pytest.param(
            {"theirs": "import no_such_library"},
            "theirs",
            r"cannot be loaded \(ModuleNotFoundError: .*no_such_library.*\)\. Repair or uninstall the distribution\.",
            id="a library is missing",
        ),
        pytest.param({"theirs": "1 / 0"}, "theirs", r"cannot be loaded \(ZeroDivisionError", id="it raises"),
        pytest.param({"theirs": "def"}, "theirs", r"cannot be loaded \(SyntaxError", id="no Python"),
        pytest.param({"theirs": ""}, "theirs", r"cannot be loaded \(.*no attribute 'PLATFORM'", id="without PLATFORM"),
        pytest.param(
            {"theirs": "PLATFORM = 3"},
            "theirs",
            r"theirs is of type int\. Name a Platform, or a module that has one as PLATFORM\.",
            id="another type",
        ),
        pytest.param({"theirs": module("a|b")}, "theirs", r"invalid platform key 'a\|b'\. Use lower-case", id="key"),
        pytest.param({"theirs": module("../up")}, "theirs", r"invalid platform key '\.\./up'", id="key is a path"),
        pytest.param({"theirs": module(3)}, "theirs", r"invalid platform key 3", id="key is no text"),
        pytest.param(
            {"theirs": module("theirs", source("stac_theirs", None))},
            "theirs",
            r"unknown setting stac_theirs\. Give its address as `default` of SceneSource\.",
            id="catalogue without address",
        ),
        pytest.param(
            {"theirs": module("theirs", source("stac_usgs"))},
            "theirs",
            r"setting stac_usgs has another default\. Leave `default` out, or rename it\.",
            id="a catalogue of ours",
        ),
        pytest.param(
            {"theirs": module("theirs", source("CLAY_STAC_THEIRS"))},
            "theirs",
            r"invalid setting 'CLAY_STAC_THEIRS'\. Name the catalogue in lower case",
            id="name of a setting",
        ),
    ],
)
def test_a_wrong_one_stops_loading_and_is_named(
    tmp_path: Path, refused: Callable[[Path], str], modules: Mapping[str, str], entry: str, said: str
) -> None:
    distribution(tmp_path, "their-platforms", modules, {"one": entry})
    message = refused(tmp_path)
    assert message.startswith("their-platforms (entry point one): ")
    assert re.search(said, message)


def test_a_key_of_two_distributions_names_both(tmp_path: Path, refused: Callable[[Path], str]) -> None:
    distribution(tmp_path, "first", {"one": module("twice")}, {"a": "one"})
    distribution(tmp_path, "second", {"two": module("twice")}, {"b": "two"})
    assert refused(tmp_path) == (
        "second (entry point b): platform twice is also in first (entry point a). Uninstall one, or rename its key."
    )


@pytest.mark.slow
def test_two_defaults_of_one_setting_are_an_error_and_one_for_two_is_none(
    tmp_path: Path, refused: Callable[[Path], str]
) -> None:
    first, second = (source("stac_theirs", f"https://{host}.example.org") for host in ("one", "two"))
    (tmp_path / "same").mkdir()
    distribution(tmp_path / "same", "first", {"one": module("one", first)}, {"a": "one"})
    distribution(tmp_path / "same", "second", {"two": module("two", source("stac_theirs", None))}, {"b": "two"})
    assert python(LIST, tmp_path / "same").returncode == 0
    distribution(tmp_path, "first", {"one": module("one", first)}, {"a": "one"})
    distribution(tmp_path, "second", {"two": module("two", second)}, {"b": "two"})
    assert "second (entry point b): setting stac_theirs has another default." in refused(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (f"from clay_assets.platforms import PLATFORMS\n{module('theirs')}", "partially initialized module 'theirs'"),
    ],
    ids=["it raises", "it imports all platforms"],
)
def test_definitions_do_not_load_without_a_platform_that_is_installed(tmp_path: Path, text: str, error: str) -> None:
    distribution(tmp_path, "their-platforms", {"theirs": text}, {"one": "theirs"})
    done = python("import clay_assets.definitions", tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        "clay_assets.errors.InputError: their-platforms (entry point one): theirs cannot be loaded ("
    )
    assert error in last


# --- settings of a platform -------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A platform with its own catalogue, token and keys."""
    access = (
        ', files=Files(access=(Access(headers=bearer("CLAY_THEIR_TOKEN"), hosts=("example.org",)),'
        ' Access(keys=Keys("CLAY_THEIR_KEY", "CLAY_THEIR_SECRET", "CLAY_THEIR_SESSION"), hosts=("their-bucket",))))'
    )
    text = module("theirs", source("stac_theirs") + access)
    return distribution(tmp_path, "their-platforms", {"theirs": text}, {"one": "theirs"})


@pytest.mark.slow
def test_its_catalogue_is_a_setting_with_a_default(installed: Path) -> None:
    code = (
        "import os\n"
        "from clay_assets.definitions import build_definitions\n"
        "from clay_assets.platforms import platform_of\n"
        "def opened(name, value, **overrides):\n"
        "    os.environ[name] = value\n"
        "    clay = build_definitions(**overrides).resources['clay']\n"
        "    print(clay.catalogue(platform_of('theirs')).url)\n"
        "    del os.environ[name]\n"
        "opened('CLAY_STAC_THEIRS', '')\n"
        "opened('CLAY_STAC_THEIRS', 'http://127.0.0.1:1')\n"
        "opened('clay_stac_theirs', 'http://127.0.0.1:2')\n"
        "opened('CLAY_STAC_THEIRS', 'http://127.0.0.1:1', stac_theirs='http://127.0.0.1:3')\n"
    )
    done = python(code, installed)
    addresses = ["https://stac.example.org/v1", *(f"http://127.0.0.1:{port}" for port in (1, 2, 3))]
    assert done.stdout.split() == addresses, done.stderr


@pytest.mark.slow
def test_its_secrets_are_known_under_exactly_their_names(installed: Path) -> None:
    names = ("CLAY_THEIR_TOKEN", "CLAY_THEIR_KEY", "CLAY_THEIR_SECRET", "CLAY_THEIR_SESSION")
    done = python(READ.format("storage"), installed, **dict.fromkeys(names, "secret"))
    assert done.stdout.strip() == "data", done.stderr
    done = python(READ.format("storage"), installed, clay_their_token="secret")  # not read by anything
    assert "clay_their_token: unknown setting. Did you mean CLAY_THEIR_TOKEN?" in done.stderr


@pytest.mark.slow
def test_a_typo_in_one_of_them_is_named_with_it(installed: Path) -> None:
    done = python(READ.format("storage"), installed, CLAY_STAC_THEIR="x", CLAY_THEIR_TOKN="x")
    assert "CLAY_STAC_THEIR: unknown setting. Did you mean CLAY_STAC_THEIRS?" in done.stderr
    assert "CLAY_THEIR_TOKN: unknown setting. Did you mean CLAY_THEIR_TOKEN?" in done.stderr


@pytest.mark.slow
def test_without_the_distribution_they_are_unknown(tmp_path: Path) -> None:
    done = python(READ.format("storage"), tmp_path, CLAY_STAC_THEIRS="/data/theirs")
    assert done.returncode == 1
    assert "CLAY_STAC_THEIRS: unknown setting. Remove it, or see docs/operate.md" in done.stderr
