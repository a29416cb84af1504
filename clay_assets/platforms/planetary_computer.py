"""What platforms of Microsoft's Planetary Computer share: files that are read with a signature.

Items keep unsigned hrefs, since a signature expires within the hour; see `clay_assets.transport.signing`.
"""

from __future__ import annotations

from clay_assets.transport.access import Access
from clay_assets.transport.signing import BLOB_HOST, shared_signer


def signed(account: str) -> Access:
    """How the files of one storage account are accessed, such as `naipeuwest`."""
    return Access(signer=shared_signer(), hosts=(f"{account}{BLOB_HOST}",))
