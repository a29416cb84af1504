"""What the tests of `deploy/` share: its files, and an environment in which they are complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PASSWORD = "p@ss/w:rd%S3NTINEL"
# What `deploy/README.md` has the shell fill in.
FILLED_IN = {
    "ACCOUNT": "123456789012",
    "REGION": "us-west-2",
    "BUCKET": "clay-123456789012",
    "IMAGE": "123456789012.dkr.ecr.us-west-2.amazonaws.com/clay_assets:1",
    "DB_HOST": "clay-dagster.abcdefghijkl.us-west-2.rds.amazonaws.com",
    "DB_SECRET_ARN": "arn:aws:secretsmanager:us-west-2:123456789012:secret:clay/postgres-AbCdEf",
}


def read_yaml(path: Path) -> Any:
    """A YAML document, with the shell's variables filled in."""
    return yaml.safe_load(filled(path))


def filled(path: Path) -> str:
    """A text with the shell's variables filled in; one that we do not know is an error."""
    text = re.sub(r"(?m)^\s*#.*$", "", path.read_text())
    return re.sub(r"\$\{(\w+)\}", lambda found: FILLED_IN[found[1]], text)


def names_asked_for(document: Any) -> set[str]:
    """The environment variables that a configuration takes values from, written `{env: NAME}`."""
    if isinstance(document, dict):
        if set(document) == {"env"}:
            return {document["env"]}
        return set().union(*(names_asked_for(value) for value in document.values()))
    return set().union(*(names_asked_for(value) for value in document)) if isinstance(document, list) else set()


def secrets_among(variables: Iterable[str]) -> list[str]:
    """Names that sound like a secret's and are not those of its address."""
    return [name for name in variables if re.search("PASSWORD|SECRET|TOKEN|_KEY", name) and not name.endswith("_ARN")]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a service's task, as ECS would set them."""
    container = read_yaml(DEPLOY / "ecs/service.yaml")["containerDefinitions"][0]
    for variable in container["environment"]:
        if variable["name"] != "DAGSTER_HOME":
            monkeypatch.setenv(variable["name"], variable["value"])
    monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", PASSWORD)
    return monkeypatch
