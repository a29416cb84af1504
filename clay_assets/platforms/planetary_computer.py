"""Shared by the platforms of Microsoft's Planetary Computer: files are read with signed URLs.

Items keep unsigned hrefs, since a signature expires within the hour; see `clay_assets.transport.signing`.
"""

from __future__ import annotations

from clay_assets.transport.access import Access
from clay_assets.transport.signing import BLOB_HOST, shared_signer


def signed(account: str) -> Access:
    """Access to the files of a storage account, such as `naipeuwest`."""
    return Access(signer=shared_signer(), hosts=(f"{account}{BLOB_HOST}",))
