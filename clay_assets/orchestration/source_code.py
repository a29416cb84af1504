"""Links from an asset in the UI to its code: to the file on this machine, or to the repository that the package was
installed from.

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
HOSTS: tuple[Literal["github", "gitlab"], ...] = ("github", "gitlab")  # for which Dagster can build addresses


@dataclass(frozen=True)
class Repository:
    """The repository of an installed package.

    Attributes:
        url: address of the repository, without credentials.
        commit: the installed commit.
        host: kind of host.
    """

    url: str
    commit: str
    host: Literal["github", "gitlab"]


def code_reference(body: Callable[..., Any]) -> dict[str, Any]:
    """The file and line of a function as asset metadata; empty if an editor could not open the file."""
    if PACKAGE.is_relative_to(sysconfig.get_path("purelib")) and repository() is None:
        return {}  # an installed copy, such as in a container, which UI users cannot open in an editor
    path = Path(body.__code__.co_filename).resolve()
    label = path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name
    with _beta():
        place = dg.LocalFileCodeReference(file_path=str(path), line_number=body.__code__.co_firstlineno, label=label)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def linked_to_repository(assets: Sequence[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """Add references to the installed commit to the assets, if the package was installed from git."""
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
    """The repository that the package was installed from, as recorded by pip and uv (PEP 610); None if it was not."""
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
    """Suppress the warning that code references are beta in Dagster 1.13."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
