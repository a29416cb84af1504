"""A web page, or a message, in place of a file: a host with a login answers 200 with its form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.scenes.copies import copy_scene
from clay_assets.sources.downloads import fetch, is_web_page, local_copy, read_bytes, size_of
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import LocalStore
from clay_assets.transport.access import Access, bearer
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.rasters import raster

LOGIN = b"<!DOCTYPE html>\n<html><head><title>Earthdata Login</title></head><body>" + 300 * b"Sign in. "
PAGES = [
    LOGIN,
    b"\n\n  <html>",
    b"\xef\xbb\xbf<!doctype HTML PUBLIC>",
    b'<?xml version="1.0"?>\n<!-- a\ncomment -->\n<html xmlns="x">',
]
Proxy = Callable[[str], FaultProxy]


@pytest.fixture
def web(tmp_path: Path, file_server: Callable[[Path], FileServer], fault_proxy: Proxy) -> FaultProxy:
    """A host with a raster, `a.tif`."""
    (tmp_path / "web").mkdir()
    raster(tmp_path / "web" / "a.tif", np.ones((64, 64), np.uint16))
    return fault_proxy(file_server(tmp_path / "web").url)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_recognized(page: bytes) -> None:
    assert is_web_page(page)


@pytest.mark.parametrize("content", [b"", b"II*\x00", b'<?xml version="1.0"?><kml>', b"{}", b"<Error>", b"<htmlish>"])
def test_other_files_are_no_page(content: bytes) -> None:
    assert not is_web_page(content)


@pytest.mark.parametrize(
    "words", [b"Sign in", b"Please log in", b"<input type='password'>", b"<a href='/oauth/authorize'>", b"LOGIN"]
)
def test_a_login_page_in_place_of_a_raster(web: FaultProxy, words: bytes) -> None:
    web.answer(200, times=None, body=PAGES[1] + 200 * b" " + words)
    href = f"{web.url}/a.tif"
    with (
        pytest.raises(
            InputError, match=rf"^{href}: the server sent its login page instead .*\. Check that the file"
        ) as said,
        open_raster(href),
    ):
        pass
    assert "Run again" not in str(said.value)


def test_a_login_page_that_a_redirect_leads_to(web: FaultProxy) -> None:
    web.answer(302, times=None, headers={"Location": f"{web.url}/login"}, path=r"a\.tif$")
    web.answer(200, times=None, body=b"<html><script src='app.js'></script></html>")
    with pytest.raises(InputError, match="the server sent its login page"), open_raster(f"{web.url}/a.tif"):
        pass


def test_another_page_in_place_of_a_raster_may_pass(web: FaultProxy, tmp_path: Path) -> None:
    web.answer(200, times=None, body=b"<html><body>Back at noon</body></html>")
    wanted = r"a\.tif: could not be read \(the server sent a web page instead\)\. Run again; .* requires a login"
    with pytest.raises(SourceError, match=wanted), open_raster(f"{web.url}/a.tif"):
        pass
    web.clear()
    web.answer(200, times=1, body=b"<html><body>Back at noon</body></html>")
    fetch(f"{web.url}/a.tif", tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == (tmp_path / "web" / "a.tif").read_bytes()


def test_a_page_in_spite_of_a_token_names_its_variable(web: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "secret")
    web.answer(200, times=None, body=LOGIN)
    with (
        pytest.raises(InputError, match=r"the server sent its login page .*Check the token in A_TOKEN"),
        open_raster(f"{web.url}/a.tif", Access(headers=bearer("A_TOKEN"))),
    ):
        pass


def test_a_file_that_comes_after_the_page_is_read(web: FaultProxy) -> None:
    web.answer(200, times=None, body=LOGIN)
    with pytest.raises(InputError, match="login page"), open_raster(f"{web.url}/a.tif"):
        pass
    web.clear()
    with open_raster(f"{web.url}/a.tif") as source:
        assert source.read(1).all()


def test_a_message_in_place_of_a_raster(web: FaultProxy) -> None:
    web.answer(200, times=None, body=b'{"message": "quota exceeded"}')
    with (
        pytest.raises(
            SourceError, match=r"a\.tif: could not be read \(the server sent .*quota exceeded.*check the address"
        ),
        open_raster(f"{web.url}/a.tif"),
    ):
        pass


def test_a_raster_that_is_damaged_on_its_way_may_be_read_another_time(web: FaultProxy) -> None:
    web.answer(200, times=None, body=bytes(range(256)))
    with pytest.raises(SourceError, match=r"a\.tif: could not be read .*Run again"), open_raster(f"{web.url}/a.tif"):
        pass


def test_a_page_is_never_copied_or_kept(web: FaultProxy, tmp_path: Path) -> None:
    web.answer(200, times=None, body=LOGIN)
    store, platform = LocalStore(tmp_path / "store"), PLATFORMS["naip"]
    href = f"{web.url}/a.tif"
    item = {"id": "a", "properties": {}, "assets": {"image": {"href": href}}}
    with pytest.raises(InputError, match=r"a\.tif: the server sent its login page instead of the file"):
        copy_scene(platform, platform.rules.options(imagery="copy"), store, item)
    with pytest.raises(InputError, match="login page"), local_copy(href, store, "source"):
        pass
    assert store.list("") == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_a_web_host_says_nothing_of_aws(web: FaultProxy, tmp_path: Path, status: int) -> None:
    web.answer(status, times=None)
    href = f"{web.url}/a.tif"

    def opened(href: str, access: Access | None) -> None:
        with open_raster(href, access):
            pass

    for access in (None, Access(requester_pays=True), Access(unsigned=True)):
        for read in (opened, read_bytes, size_of, lambda href, access: fetch(href, tmp_path / "a", access)):
            with pytest.raises(InputError, match=rf"^{href}: access refused .*Check that the file is public") as said:
                read(href, access)
            assert "AWS" not in str(said.value)
