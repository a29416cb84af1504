"""An environment that points to a `BlobService`, and checks that none of its signatures is shown."""

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
    """The service and the storage that the environment points to; no tokens are cached.

    At the end no signature may be in any log record of the test, including DEBUG records of libraries.
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
    shared_signer()._tokens.clear()  # from the previous test
    yield service
    assert_unsigned(service, caplog.text)
    service.stop()


def assert_unsigned(blobs: BlobService, *texts: object) -> None:
    """Check that no text contains a signature; for exceptions the whole traceback is searched."""
    for text in texts:
        shown = "".join(traceback.format_exception(text)) if isinstance(text, BaseException) else str(text)
        assert not [signature for signature in blobs.signatures if signature in shown]
        assert "sig=" not in shown
