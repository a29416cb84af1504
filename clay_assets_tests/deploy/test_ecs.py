"""ECS and Dagster+: their files against Dagster's own schemas and AWS's own model of its API. Nothing is sent."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from botocore.session import Session
from botocore.validate import ParamValidator
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster._grpc.types import ExecuteRunArgs
from dagster_aws.ecs import EcsRunLauncher
from dagster_aws.ecs.container_context import EcsContainerContext
from dagster_aws.ecs.tasks import DagsterEcsTaskDefinitionConfig

from clay_assets.orchestration.partitions import cells
from clay_assets.settings import Settings
from clay_assets_tests.deploy.conftest import (
    DEPLOY,
    FILLED_IN,
    PASSWORD,
    ROOT,
    filled,
    names_asked_for,
    read_yaml,
    secrets_among,
)

# "Task CPU and memory" in the developer guide of Amazon ECS: CPU units → least and most MiB, whole GiB between.
FARGATE = {1024: (2048, 8192), 2048: (4096, 16384), 4096: (8192, 30720), 8192: (16384, 61440)}
FARGATE_DISK = range(21, 201)  # GiB
OVERRIDES = 8192  # characters that RunTask takes for overrides, as JSON
TAG = re.compile(r"[\w\s+\-=.:/@]*")  # what ECS takes as a tag's value


def complaints(operation: str, request: dict[str, Any]) -> str:
    """What AWS's model of the ECS API finds wrong in a request."""
    shape = Session().get_service_model("ecs").operation_model(operation).input_shape
    return str(ParamValidator().validate(request, shape).generate_report())


def fits_fargate(cpu: str, memory: str) -> bool:
    least, most = FARGATE[int(cpu)]
    return least <= int(memory) <= most and int(memory) % 1024 == 0


@pytest.mark.slow
def test_a_run_on_ecs_is_a_task_that_ecs_takes(environment: pytest.MonkeyPatch) -> None:
    ref = InstanceRef.from_dir(str(DEPLOY / "ecs"))
    launcher = ref.run_launcher
    assert isinstance(launcher, EcsRunLauncher)
    origin = RepositoryPythonOrigin(
        "/opt/venv/bin/python", ModuleCodePointer("clay_assets.definitions", "defs"), FILLED_IN["IMAGE"]
    ).get_job_origin("cell")
    tags = {
        **cells.get_tags_for_partition_key("landsat-c2l2-sr|2020"),
        "dagster/backfill": "abcdefgh",
        "ecs/memory": "30720",
    }
    run = DagsterRun("cell", tags=tags)
    context = EcsContainerContext.create_for_run(run, launcher)

    task: dict[str, Any] = launcher.task_definition_dict
    definition = DagsterEcsTaskDefinitionConfig(
        "run_clay",
        FILLED_IN["IMAGE"],
        launcher.get_container_name(context),
        None,
        None,
        launcher._secrets(context),  # type: ignore[no-untyped-call]
        launcher._environment(context),  # type: ignore[no-untyped-call]
        context.execution_role_arn,
        context.task_role_arn,
        [],
        task["requires_compatibilities"],
        context.run_resources["cpu"],
        context.run_resources["memory"],
        context.run_resources["ephemeral_storage"],
        context.runtime_platform,
        linux_parameters=launcher.linux_parameters,
    ).task_definition_dict()
    assert complaints("RegisterTaskDefinition", definition) == ""
    assert fits_fargate(definition["cpu"], definition["memory"])
    assert definition["ephemeralStorage"]["sizeInGiB"] in FARGATE_DISK
    assert definition["taskRoleArn"] == "arn:aws:iam::123456789012:role/clay-run"
    container = definition["containerDefinitions"][0]
    assert container["secrets"] == [{"name": "DAGSTER_POSTGRES_PASSWORD", "valueFrom": FILLED_IN["DB_SECRET_ARN"]}]
    given = {variable["name"]: variable["value"] for variable in container["environment"]}
    assert given["CLAY_STORAGE"] == "s3://clay-123456789012/clay"
    assert not secrets_among(given)
    # A run opens the instance too: all but the launcher's own variables must reach it.
    needed = names_asked_for({k: v for k, v in read_yaml(DEPLOY / "ecs/dagster.yaml").items() if k != "run_launcher"})
    assert needed <= {*given, *(secret["name"] for secret in container["secrets"])}

    command = ExecuteRunArgs(origin, run.run_id, ref).get_command_args()
    sizes = launcher.get_cpu_and_memory_overrides(context, run)
    request = {
        "taskDefinition": definition["family"],
        "overrides": {
            "containerOverrides": [{"name": container["name"], "command": command}],
            **sizes,
            **launcher._get_task_overrides(context, run),
        },
        "tags": launcher.build_ecs_tags_for_run_task(run, context),
    }
    assert complaints("RunTask", request) == ""
    assert len(json.dumps(request["overrides"])) < OVERRIDES
    assert (sizes["cpu"], sizes["memory"]) == ("4096", "30720")  # the tag of this run
    assert {tag["key"] for tag in request["tags"]} >= {"dagster/partition/platform", "dagster/partition/year"}
    assert all(TAG.fullmatch(tag["value"]) for tag in request["tags"])
    for said in (definition, request):
        assert PASSWORD not in json.dumps(said)
        assert "S3NTINEL" not in json.dumps(said)


def test_the_task_of_the_service_has_what_its_containers_ask_for(environment: pytest.MonkeyPatch) -> None:
    task = read_yaml(DEPLOY / "ecs/service.yaml")
    assert complaints("RegisterTaskDefinition", task) == ""
    assert fits_fargate(task["cpu"], task["memory"])
    instance = read_yaml(DEPLOY / "ecs/dagster.yaml")
    launcher = instance["run_launcher"]["config"]
    needed = {"DAGSTER_CODE_HOST", *names_asked_for(instance), *launcher["env_vars"]}
    for container in task["containerDefinitions"]:
        plain = {variable["name"]: variable["value"] for variable in container["environment"]}
        secret = {variable["name"]: variable["valueFrom"] for variable in container["secrets"]}
        assert needed <= {*plain, *secret}
        assert plain["DAGSTER_CURRENT_IMAGE"] == container["image"]
        assert not secrets_among(plain)
        assert all(address.startswith("arn:aws:secretsmanager:") for address in secret.values())
        assert {name for name in plain if name.startswith("CLAY_")} <= set(clay_variables())

    # Roles, log group and prefixes are those that the policies speak of.
    dagster, run = (json.loads(filled(DEPLOY / f"iam/{name}.json"))["Statement"] for name in ("dagster", "run"))
    passed = next(statement["Resource"] for statement in dagster if statement["Action"] == "iam:PassRole")
    assert {plain["DAGSTER_ECS_RUN_ROLE_ARN"], plain["DAGSTER_ECS_EXECUTION_ROLE_ARN"]} == set(passed)
    assert task["executionRoleArn"] in passed
    assert task["taskRoleArn"].endswith(":role/clay-dagster")
    shown = next(statement["Resource"] for statement in dagster if statement["Action"] == "logs:GetLogEvents")
    assert f":log-group:{plain['DAGSTER_ECS_LOG_GROUP']}:" in shown
    for written in (plain["CLAY_STORAGE"], f"s3://{plain['DAGSTER_LOGS_BUCKET']}/{plain['DAGSTER_LOGS_PREFIX']}"):
        key = f"{written.removeprefix('s3://')}/a/b.parquet"
        assert any(
            "s3:PutObject" in statement["Action"] and fnmatch(f"arn:aws:s3:::{key}", statement["Resource"])
            for statement in run
        )


def test_the_workspace_leads_to_the_code_server(environment: pytest.MonkeyPatch) -> None:
    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    assert (origin.location_name, origin.host, origin.port) == ("clay_assets", "localhost", 4000)  # type: ignore[attr-defined]
    started = [
        read_yaml(DEPLOY / "ecs/service.yaml")["containerDefinitions"][0]["command"],
        yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["code"]["command"],
        json.loads(re.findall(r"(?m)^CMD (.*)$", (DEPLOY / "Dockerfile").read_text())[0]),
    ]
    assert started[0] == started[1] == started[2]
    assert started[0][started[0].index("--port") + 1] == str(origin.port)  # type: ignore[attr-defined]


def test_dagster_cloud_yaml_is_what_the_ecs_agent_takes() -> None:
    (location,) = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())["locations"]
    context = EcsContainerContext.create_from_config(location["container_context"])
    given = context.get_environment_dict()
    assert {name for name in given if name.startswith("CLAY_")} <= set(clay_variables())
    assert not secrets_among(given)
    assert all(secret["valueFrom"].startswith("arn:aws:secretsmanager:") for secret in context.secrets)
    for sizes in (context.server_resources, context.run_resources):
        assert fits_fargate(sizes["cpu"], sizes["memory"])
    # The same size of run as without Dagster+.
    own = read_yaml(DEPLOY / "ecs/dagster.yaml")["run_launcher"]["config"]["run_resources"]
    assert context.run_resources == own
    assert location["build"]["registry"] == FILLED_IN["IMAGE"].partition(":")[0]


def clay_variables() -> list[str]:
    """Every variable that the package reads."""
    return [f"CLAY_{name.upper()}" for name in Settings.model_fields]
