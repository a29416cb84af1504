"""The image and the compose file, as far as they can be read without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from dockerfile_parse import DockerfileParser

from clay_assets_tests.deploy.conftest import DEPLOY, ROOT, read_yaml, secrets_among

# Patterns start at the root and `*` stops at a slash, but for those that begin with `**/`.
MATCH: dict[bool, Callable[[str, str], bool]] = {
    False: lambda path, pattern: path.count("/") == pattern.count("/") and fnmatchcase(path, pattern),
    True: lambda path, pattern: fnmatchcase(PurePosixPath(path).name, pattern.removeprefix("**/")),
}
WHEEL = "dist/clay_assets-0.2.0-py3-none-any.whl"
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions() -> list[tuple[str, str]]:
    """(instruction, its words) of the Dockerfile, in order."""
    parsed = DockerfileParser(fileobj=(DEPLOY / "Dockerfile").open("rb"), env_replace=False).structure
    return [(step["instruction"], step["value"]) for step in parsed if step["instruction"] != "COMMENT"]


def test_the_dockerfile_has_no_fault_that_a_linter_knows() -> None:
    told = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_image_is_built_from_one_wheel_and_nothing_else_is_sent_to_its_builder() -> None:
    copied = [words.split()[:-1] for name, words in instructions() if name == "COPY" and "--from" not in words]
    sources = [source for words in copied for source in words]
    assert {"pyproject.toml", "constraints.txt", "dist/*.whl", "deploy/dagster.yaml"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources if source != "dist/*.whl")
    assert not any("clay_assets" in source for source in sources if source != "dist/*.whl")

    paths = tracked_and_others()
    sent = {path for path in paths if is_sent(path)}
    assert sent == {path for path in paths if any(MATCH[False](path, source) for source in sources)}
    assert {WHEEL, "deploy/ecs/dagster.yaml"} <= sent


def tracked_and_others() -> list[str]:
    """Files such as a checkout has, and such as must never get into an image."""
    there = [
        path.relative_to(ROOT).as_posix()
        for folder in ("clay_assets", "clay_assets_tests/deploy", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    alone = ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "Makefile", WHEEL]
    secret = ["deploy/.env", ".env", ".git/config", "data/chips/a.parquet", ".venv/bin/python"]
    return there + alone + secret + ["dist/clay_assets-0.2.0.tar.gz", "dist/other/a.whl"]


def is_sent(path: str) -> bool:
    """Whether a file gets to the builder: the last pattern decides that matches it, or a folder that it is in.

    https://docs.docker.com/build/concepts/context/#dockerignore-files
    """
    sent = True
    above = [path, *(folder.as_posix() for folder in PurePosixPath(path).parents)]
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line[:1] not in ("", "#") and any(MATCH[pattern[:3] == "**/"](one, pattern) for one in above):
            sent = line.startswith("!")
    return sent


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    steps = instructions()
    (user,) = [words for name, words in steps if name == "USER"]
    assert user == "1000:1000"
    assert [name for name, _ in steps].index("USER") > max(i for i, (name, _) in enumerate(steps) if name == "RUN")
    assert not secrets_among(word for name, words in steps if name in ("ENV", "ARG") for word in words.split())


def test_the_services_wait_for_one_another_and_say_how_they_are() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services: dict[str, Any] = compose["services"]
    assert set(services) == {"postgres", "code", "webserver", "daemon"}
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert service["restart"] == "unless-stopped"
        for other, awaited in service.get("depends_on", {}).items():
            assert awaited == {"condition": "service_healthy"}
            assert "healthcheck" in services[other]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
        for variable in service.get("environment", {}).values():
            assert not re.search("password|secret", variable, re.IGNORECASE) or variable.startswith("${")
    assert services["code"]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    assert (DEPLOY / services["code"]["build"]["context"] / "deploy/Dockerfile").exists()
    # One image, one environment; what the UI lets anybody do, only this machine may ask for.
    assert len({services[name]["image"] for name in ("code", "webserver", "daemon")}) == 1
    assert all(services[name]["env_file"] == ".env" for name in ("code", "webserver", "daemon"))
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
    assert not any("ports" in service for name, service in services.items() if name != "webserver")

    example = (DEPLOY / "env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?\}", (DEPLOY / "compose.yaml").read_text()))
    assert asked
    assert all(re.search(f"(?m)^{name}=", example) for name in asked)
    assert re.search(r"(?m)^DAGSTER_POSTGRES_HOST=postgres$", example)  # the service's name
    # The same programs, by the same words, as on ECS.
    on_ecs = {c["name"]: c["command"] for c in read_yaml(DEPLOY / "ecs/service.yaml")["containerDefinitions"]}
    assert on_ecs == {name: services[name]["command"] for name in on_ecs}
