"""Links from an asset in the UI to the code of its body: to the file on this machine, or to the repository that the
package was installed from.

Dagster's `with_source_code_references` would point to the wrapper that `stage_asset` puts around a body, and it reads
every source file when definitions load.
"""

from __future__ import annotations

import json
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import dagster as dg

import clay_assets

PACKAGE = Path(clay_assets.__file__).resolve().parent
HOSTS: tuple[Literal["github", "gitlab"], ...] = ("github", "gitlab")  # whose addresses Dagster can make


@dataclass(frozen=True)
class Repository:
    """Where the code of an installed package can be read.

    Attributes:
        url: of the repository, without credentials.
        commit: that was installed.
        host: what kind of host it is.
    """

    url: str
    commit: str
    host: Literal["github", "gitlab"]


def code_reference(body: Callable[..., Any]) -> dict[str, Any]:
    """The file and line of a function, as metadata of its asset; nothing where nobody could open the file."""
    if PACKAGE.is_relative_to(sysconfig.get_path("purelib")) and repository() is None:
        return {}  # an installed copy, as in a container: no editor of whoever looks at the UI can open it
    path = Path(body.__code__.co_filename).resolve()
    label = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
    with _beta():
        place = dg.LocalFileCodeReference(file_path=str(path), line_number=body.__code__.co_firstlineno, label=label)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def linked_to_repository(assets: Sequence[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """The assets with references to the commit that was installed, if the package was installed from git."""
    found = repository()
    if found is None:
        return assets
    with _beta():
        linked = dg.link_code_references_to_git(
            assets,
            git_url=found.url,
            git_branch=found.commit,
            file_path_mapping=dg.AnchorBasedFilePathMapping(PACKAGE, PACKAGE.name),
            platform=found.host,
        )
    return cast("Sequence[dg.AssetsDefinition]", linked)


@cache
def repository() -> Repository | None:
    """The repository that the package was installed from, as pip and uv record it (PEP 610); None if from elsewhere."""
    try:
        origin = json.loads(distribution("clay_assets").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return None
    address = urlsplit(origin.get("url", ""))
    host = next((host for host in HOSTS if host in (address.hostname or "")), None)
    commit = origin.get("vcs_info", {}).get("commit_id")
    if host is None or commit is None:
        return None
    return Repository(f"https://{address.hostname}{address.path.removesuffix('.git')}", commit, host)


@contextmanager
def _beta() -> Iterator[None]:
    """Code references are beta in Dagster 1.13; nobody who starts it needs to be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
