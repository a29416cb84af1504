"""The documentation site: built strictly, with a page for each platform, and nothing fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import BaseModel

from clay_assets.platforms import PLATFORMS
from clay_assets.recipes.loader import Recipe
from clay_assets.settings import Settings
from clay_assets_tests.conftest import REPOSITORY

LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}


class Loaded(HTMLParser):
    """Collects the addresses that a browser fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if value and name == LOADED.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    proxy = "http://127.0.0.1:9"  # nothing listens there
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "http_proxy": proxy, "https_proxy": proxy, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        parser = Loaded()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found, page
        outside = [address for address in parser.found if re.match(r"(?:\w+:)?//", address)]
        assert not outside, page
    assert len(pages) > len(PLATFORMS) + 10


@pytest.mark.slow
def test_no_style_fetches_anything_from_elsewhere(site: Path) -> None:
    for style in site.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import\s+)[\"']?((?:\w+:)?//[^\"')]+)", style.read_text(encoding="utf-8"))
        assert not addresses, style


@pytest.mark.slow
@pytest.mark.parametrize("key", PLATFORMS)
def test_a_platform_has_a_page_of_all_that_it_says(site: Path, key: str) -> None:
    platform = PLATFORMS[key]
    text = _text(site / "platforms" / f"{key}.html")
    for band in platform.model_input.bands:
        assert re.search(rf"\b{re.escape(band.name)}\s+{band.wavelength:g}\s+{re.escape(band.asset)}", text), band
    for field in platform.rules.options.model_fields:
        assert field in text
    for declared in platform.rules.properties:
        assert all(name in text for name in declared.names)
    assert platform.licence
    assert platform.licence.replace("`", "") in text
    assert f"[platforms.{key}]" in text


@pytest.mark.slow
def test_settings_and_fields_of_recipes_are_listed(site: Path) -> None:
    operate, recipes = _text(site / "operate.html"), _text(site / "recipes.html")
    for name in Settings.model_fields:
        assert f"CLAY_{name.upper()}" in operate
    for name in Recipe.model_fields:
        assert name in recipes


def test_make_docs_is_strict() -> None:
    commands = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "mkdocs build --strict\n" in commands  # with --quiet, MkDocs counts no warnings


def test_the_site_names_no_platform_in_code() -> None:
    files = [REPOSITORY / "mkdocs.yml", *(REPOSITORY / "scripts").glob("*.py")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    assert not [key for key in PLATFORMS if re.search(rf"\b{re.escape(key)}\b", text)]


def test_fields_of_a_recipe_have_a_meaning() -> None:
    models: tuple[type[BaseModel], ...] = (Recipe, *(platform.rules.options for platform in PLATFORMS.values()))
    for model in models:
        for name, field in model.model_json_schema()["properties"].items():
            section = "$ref" in str(field)
            assert section or field.get("description"), f"{model.__name__}.{name}"


def _text(page: Path) -> str:
    """The text of a page without its tags, spaces as one."""
    text = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
    for entity, character in (("&amp;", "&"), ("&quot;", '"'), ("&gt;", ">"), ("&lt;", "<"), ("&#39;", "'")):
        text = text.replace(entity, character)
    return re.sub(r"\s+", " ", text).replace(" .", ".").replace(" ,", ",")
