"""The Dagster UI on a finished chain, and a browser that looks at it and keeps what it saw."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Browser, BrowserContext, FloatRect, Locator, Page, ViewportSize, expect, sync_playwright

from clay_assets.definitions import build_definitions
from clay_assets.demo.planet import Planet
from clay_assets_tests.chain import Chain, overrides
from clay_assets_tests.conftest import REPOSITORY, SCREENSHOT, not_run
from clay_assets_tests.servers.dagster import DagsterServers

PATIENCE = 60_000  # milliseconds for anything to appear; the machine has other things to do
A_RUN = 180_000  # for a run, its start and the daemon's turn included
WINDOW: ViewportSize = {"width": 1080, "height": 900}  # a picture of it can be read in the documentation too
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no page waits for another host
]
# Without them, a dialogue covers the page.
DAGSTER_YAML = "telemetry: {enabled: false}\nnux: {enabled: false}\n"

expect.set_options(timeout=PATIENCE)


# The browser has no graphics card: it would draw sixty frames of each spinner and slide per second on the CPU.
WITHOUT_MOTION = """addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = '*, *::before, *::after { animation: none !important; transition: none !important }';
  document.head.append(style);
})"""
# What a click on a link of the UI does. Loading it anew takes a second or two of the CPU, each time.
FOLLOW = """path => {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}"""


@dataclass
class Ui:
    """A page of the UI.

    Attributes:
        page: of the browser.
        chain: what the UI shows a copy of.
        copied: the copy, on the instance of the UI.
        keep: takes a screenshot with this name, of the page or of a part of it.
    """

    page: Page
    chain: Chain
    copied: Chain
    keep: Callable[..., None]

    def goto(self, path: str) -> None:
        """Follow a link within the UI."""
        self.page.evaluate(FOLLOW, path)

    def asset(self, name: str, view: str = "Overview") -> None:
        """Go to an asset, and there to a tab."""
        self.goto(f"/assets/{name}")
        self.tab(view)

    def tab(self, view: str) -> None:
        """Choose a tab of an asset's page."""
        self.page.get_by_role("tab", name=view, exact=True).click()

    def text(self, text: str) -> Locator:
        """Where exactly this is written. The UI has hidden copies of some words, to measure them."""
        return self.page.get_by_text(text, exact=True).filter(visible=True)

    def value(self, key: str) -> Locator:
        """The value of a metadata key: what stands beside it, or the dialogue that it is behind."""
        row = self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=key, exact=True)).last
        row.scroll_into_view_if_needed()
        behind = row.get_by_text(re.compile(r"^\[Show .*\]$"))
        if not behind.count():
            return row
        behind.click()
        return self.page.get_by_role("dialog")

    def close(self) -> None:
        """Close the dialogue."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_have_count(0)

    def launched(self) -> str:
        """Follow a run that was just launched to its page, and tell where that is."""
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url("**/runs/*")
        return self.page.url


@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """Path of Debian's Chromium; looked for before anything is built for it to look at."""
    path = shutil.which("chromium")
    if path is None:
        not_run("the UI in a browser", "there is no chromium (scripts/install_test_servers.sh installs it as root)")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A running browser, for one module: while Playwright runs, this thread can run no other event loop."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def copied(built: Chain, planet: Planet, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A copy of `built`: what is clicked or damaged here changes nothing there."""
    home = tmp_path_factory.mktemp("ui") / "dagster_home"
    shutil.copytree(Path(built.storage).parent, home)
    (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    storage = str(home / Path(built.storage).name)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Chain(build_definitions(**overrides(planet, recipe, storage)), instance, storage)


@pytest.fixture(scope="module")
def servers(copied: Chain, planet: Planet, recipe: Path) -> Iterator[DagsterServers]:
    """Dagster on the copy."""
    home = Path(copied.storage).parent
    running = DagsterServers(home, {**planet.environment(), "CLAY_RECIPE": str(recipe), "CLAY_STORAGE": copied.storage})
    yield running
    running.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the browser showed when a test failed, and close it, as the next test needs it as it was."""
    report = yield
    ui = getattr(item, "funcargs", {}).get("ui")
    if report.when == "call" and report.failed and isinstance(ui, Ui):
        ui.keep(f"failed_{item.name}")
        ui.page.close()
        report.user_properties = item.user_properties
    return report


@pytest.fixture(scope="module")
def context(browser: Browser, servers: DagsterServers) -> Iterator[BrowserContext]:
    """One browser profile, in which the navigation is hidden, as the pages need its room."""
    with browser.new_context(base_url=servers.url, viewport=WINDOW) as context:
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WITHOUT_MOTION)
        page = context.new_page()
        page.goto("/automation")
        page.get_by_role("button", name="Hide navigation").click()
        yield context


@pytest.fixture
def ui(context: BrowserContext, built: Chain, copied: Chain, record_property: Callable[[str, object], None]) -> Ui:
    """Its page."""
    folder = Path(os.environ.get("CLAY_ARTIFACTS", REPOSITORY / "artifacts")) / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    if not context.pages:
        context.new_page().goto("/automation")
    (page,) = context.pages
    page.set_viewport_size(WINDOW)

    def keep(name: str, part: FloatRect | None = None) -> None:
        path = folder / f"{name}.png"
        page.screenshot(path=path, clip=part, animations="disabled")
        record_property(SCREENSHOT, str(path))

    return Ui(page, built, copied, keep)
