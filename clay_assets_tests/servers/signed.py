"""An environment that leads to a `BlobService`, and how to see that none of its signatures is shown."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clay_assets.transport.signing import shared_signer
from clay_assets_tests.servers.blobs import TOKENS, BlobService
from clay_assets_tests.servers.process import ServerProcess


@contextmanager
def signed_blobs(
    folder: Path, servers: ServerProcess, patch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[BlobService]:
    """The service and the storage, which the environment leads to; no token is held.

    At the end no signature may be in any log record of the test, those of libraries at DEBUG included.
    """
    folder.mkdir(exist_ok=True)
    service = servers.blob_service(folder)
    for name in ("HTTP_PROXY", "all_proxy", "ALL_PROXY", "PC_SDK_SUBSCRIPTION_KEY"):
        patch.delenv(name, raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        patch.setenv(name, "127.0.0.1,localhost")
    patch.setenv("http_proxy", service.url)
    patch.setenv("PC_SDK_SAS_URL", service.url + TOKENS.rstrip("/"))
    caplog.set_level("DEBUG")
    shared_signer()._tokens.clear()  # of the test before
    yield service
    assert_unsigned(service, caplog.text)
    service.stop()


def assert_unsigned(blobs: BlobService, *texts: object) -> None:
    """None of some texts holds a signature; of an exception the whole traceback is searched."""
    for text in texts:
        shown = "".join(traceback.format_exception(text)) if isinstance(text, BaseException) else str(text)
        assert not [signature for signature in blobs.signatures if signature in shown]
        assert "sig=" not in shown
