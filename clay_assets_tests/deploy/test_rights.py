"""The IAM policies: what they name against what the code reads, and the runs' own one on a real S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from pyarrow import fs

from clay_assets.platforms import PLATFORMS
from clay_assets.settings import Settings
from clay_assets.storage.stores import S3Store
from clay_assets_tests.deploy.conftest import DEPLOY, FILLED_IN, filled
from clay_assets_tests.servers.daemon import run_tool
from clay_assets_tests.servers.s3 import S3Server

POLICIES = ("run", "dagster", "execution")
# Actions for which the Service Authorization Reference of AWS names no resource, so that only `*` can stand.
WITHOUT_RESOURCE = {
    "ec2:DescribeNetworkInterfaces",
    "ecr:GetAuthorizationToken",
    "ecs:DescribeTaskDefinition",
    "ecs:RegisterTaskDefinition",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}
LANDSAT = "usgs-landsat"  # items of the USGS name it, the code does not: s3://usgs-landsat/collection02/…


def statements(policy: str) -> list[dict[str, Any]]:
    document = json.loads(filled(DEPLOY / f"iam/{policy}.json"))
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    return found


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_allows_single_actions_on_named_resources(policy: str) -> None:
    for statement in statements(policy):
        actions, resources = listed(statement["Action"]), listed(statement["Resource"])
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in actions)
        if "*" in resources:
            assert resources == ["*"]
            assert set(actions) <= WITHOUT_RESOURCE
        else:
            assert not set(actions) & WITHOUT_RESOURCE
            # Account and bucket are never left open, and a key only after a folder, or in a source's bucket.
            assert all("*" not in resource.split("/")[0].rsplit(":", 1)[0] for resource in resources)
        if "iam:PassRole" in actions:
            assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}


def test_runs_may_read_just_the_buckets_that_the_code_reads_with_credentials() -> None:
    allowed: dict[str, set[str]] = {}
    for statement in statements("run"):
        for resource in listed(statement["Resource"]):
            bucket = resource.removeprefix("arn:aws:s3:::").partition("/")[0]
            allowed.setdefault(bucket, set()).update(listed(statement["Action"]))
    own = allowed.pop(FILLED_IN["BUCKET"])
    assert own == {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListBucket"}
    assert all(actions == {"s3:GetObject"} for actions in allowed.values())

    paid, copied, anonymous = set[str](), set[str](), set[str]()
    for platform in PLATFORMS.values():
        imagery = platform.rules.options.model_fields["imagery"].annotation
        for access in platform.files.access:
            buckets = {host for host in access.hosts if "." not in host}
            if access.requester_pays:
                paid |= buckets or {LANDSAT}
            elif access.unsigned:
                # Read without credentials; but copied within S3 by our own request.
                (copied if "copy" in getattr(imagery, "__args__", ()) else anonymous).update(buckets)
    assert set(allowed) == paid | copied
    assert anonymous  # so that this says something
    sources = [str(field.default) for name, field in Settings.model_fields.items() if name != "storage"]
    public = {source.removeprefix("s3://").partition("/")[0] for source in sources if source.startswith("s3://")}
    assert public == {"esa-worldcover"}  # listed and read without credentials
    assert not public & set(allowed)


@pytest.fixture
def as_run(s3_server: S3Server) -> Iterator[Callable[[str], tuple[Any, dict[str, str]]]]:
    """Return a function that makes a user with the policy of runs on one bucket: its client and its environment."""
    command = ["radosgw-admin", "-c", s3_server.configuration]
    run_tool([*command, "caps", "add", "--uid=tests", "--caps=user-policy=*"], 40)
    keys = {"AWS_ACCESS_KEY_ID": "RUNOFTHEPIPELINE", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}

    def make(bucket: str) -> tuple[Any, dict[str, str]]:
        user = ["--uid=run", "--display-name=run", f"--access-key={keys['AWS_ACCESS_KEY_ID']}"]
        run_tool([*command, "user", "create", *user, f"--secret-key={keys['AWS_SECRET_ACCESS_KEY']}"], 40)
        policy = filled(DEPLOY / "iam/run.json").replace(FILLED_IN["BUCKET"], bucket)
        iam = boto3.client(
            "iam",
            endpoint_url=s3_server.endpoint_url,
            aws_access_key_id=s3_server.access_key,
            aws_secret_access_key=s3_server.secret_key,
            region_name="us-east-1",
        )
        iam.put_user_policy(UserName="run", PolicyName="run", PolicyDocument=policy)
        client = s3_server.client(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"], aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"]
        )
        return client, {**s3_server.env, **keys}

    yield make
    run_tool([*command, "user", "rm", "--uid=run"], 40)


def test_the_policy_of_runs_lets_them_work_and_do_no_more(
    s3_server: S3Server, as_run: Callable[[str], tuple[Any, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = s3_server.client()
    bucket = s3_server.new_bucket("clay-rights")
    for source, key in (
        (LANDSAT, "collection02/a.TIF"),
        (LANDSAT, "other/a.TIF"),
        ("sentinel-cogs", "a.tif"),
        ("nz-imagery", "a.tiff"),
    ):
        s3_server.new_bucket(source)  # again is no error to its owner
        owner.put_object(Bucket=source, Key=key, Body=b"pixels")
    owner.put_object(Bucket=bucket, Key="other/a", Body=b"not ours")
    client, environment = as_run(bucket)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    # All that the pipeline does in its prefix, by its own code.
    store = S3Store(bucket, "clay")  # with the keys of the environment
    store.write("chips/a.parquet", b"rows")
    assert store.read("chips/a.parquet") == b"rows"
    assert store.list("chips") == {"chips/a.parquet": 4}
    assert store.size("chips/b.parquet") is None  # absent, not forbidden
    with pytest.raises(FileNotFoundError):
        store.read("chips/b.parquet")
    assert [found.path for found in store.filesystem().get_file_info(fs.FileSelector("chips"))] == ["chips/a.parquet"]
    upload = {"Bucket": bucket, "Key": "clay/big"}
    begun = client.create_multipart_upload(**upload)["UploadId"]
    client.upload_part(**upload, UploadId=begun, PartNumber=1, Body=b"part")
    client.abort_multipart_upload(**upload, UploadId=begun)
    client.delete_object(Bucket=bucket, Key="clay/chips/a.parquet")  # of several at once RGW asks for another right
    client.put_object(Bucket=bucket, Key="dagster-logs/storage/a.err", Body=b"log")
    client.get_object(Bucket=LANDSAT, Key="collection02/a.TIF", RequestPayer="requester")
    client.copy({"Bucket": "sentinel-cogs", "Key": "a.tif"}, bucket, "clay/imagery/a.tif")
    assert store.read("imagery/a.tif") == b"pixels"

    # And no more.
    for forbidden, arguments in (
        (client.put_object, {"Bucket": bucket, "Key": "other/b"}),
        (client.get_object, {"Bucket": bucket, "Key": "other/a"}),
        (client.delete_object, {"Bucket": bucket, "Key": "dagster-logs/storage/a.err"}),
        (client.list_objects_v2, {"Bucket": bucket, "Prefix": "other/"}),
        (client.get_object, {"Bucket": LANDSAT, "Key": "other/a.TIF"}),
        (client.put_object, {"Bucket": LANDSAT, "Key": "collection02/b.TIF"}),
        (client.get_object, {"Bucket": "nz-imagery", "Key": "a.tiff"}),
        (client.delete_bucket, {"Bucket": bucket}),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            forbidden(**arguments)
