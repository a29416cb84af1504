"""Production-grade S3: a Ceph object gateway (RGW) with one monitor and one in-memory store.

The configuration follows Ceph's development cluster (`vstart.sh`) reduced to one of each, without keys between its
parts. S3 itself is strict: requests that are not signed with the keys of `S3Server.env` are rejected. Everything
listens on 127.0.0.1.
"""

from __future__ import annotations

import json
import secrets
import shutil
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clay_assets_tests.servers.daemon import (
    Daemon,
    ServerUnavailableError,
    WorkFolder,
    free_port,
    run_tool,
)

INSTALL = "scripts/install_test_servers.sh installs it as root"
PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
REGION = "us-east-1"
# By default the monitor waits a second before each of some thirty map changes during start-up; with these options it
# does not. A store that asks the monitor to place it in the cluster's map while starting can race with its own
# connection (as can the gateway's pools, created at the same time) and never come up, so it is placed explicitly, and
# waited for. The memory store grows with its content; the size is only the limit at which it reports being full.
CONFIGURATION = """\
[global]
fsid = {fsid}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_msgr2 = false
mon_host = v1:127.0.0.1:{mon_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_max_pg_per_osd = 1000
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_objectstore = memstore
memstore_device_bytes = 17179869184
run_dir = {folder}
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
keyring = {folder}/keyring
admin_socket =
log_file =
mon_cluster_log_file =
log_to_stderr = true
err_to_stderr = true

[client.rgw.a]
rgw_thread_pool_size = 32
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_dynamic_resharding = false
rgw_run_sync_thread = false
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
"""


def missing() -> str | None:
    """Return the reason why the server cannot run here, or None."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} is not installed ({INSTALL})"
    return None


@dataclass(frozen=True)
class S3Server:
    """A running S3 server: its address and credentials. Buckets are addressed by path.

    Attributes:
        endpoint_url: `http://127.0.0.1:PORT`.
        access_key: access key of its only user, who owns every bucket.
        secret_key: secret key of this user.
        configuration: configuration file of Ceph's tools, such as radosgw-admin.
    """

    endpoint_url: str
    access_key: str
    secret_key: str
    configuration: str

    @property
    def env(self) -> dict[str, str]:
        """The AWS SDK's variables, sufficient for boto3, obstore and `pyarrow.fs.FileSystem.from_uri`.

        `pyarrow.fs.S3FileSystem()` ignores their endpoint (apache/arrow issue 49643).

        Checksums only when required: RGW 16 does not support the trailing checksums that newer SDKs add to uploads.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    @property
    def gdal_env(self) -> dict[str, str]:
        """The same endpoint in GDAL's variables: GDAL 3.10 does not read `AWS_ENDPOINT_URL`."""
        return {
            "AWS_S3_ENDPOINT": self.endpoint_url.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }

    def client(self, **options: Any) -> Any:
        """Return a boto3 S3 client of the server's user; `options` are passed to `boto3.client`."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            **{
                "endpoint_url": self.endpoint_url,
                "aws_access_key_id": self.access_key,
                "aws_secret_access_key": self.secret_key,
                "region_name": REGION,
                "config": Config(
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": "path"},
                ),
                **options,
            },
        )

    def new_bucket(self, name: str, public_read: bool = False) -> str:
        """Create a bucket and return its name.

        Args:
            name: bucket name allowed by S3: lower-case letters, digits, hyphens.
            public_read: whether unsigned requests may list and read it.
        """
        client = self.client()
        client.create_bucket(Bucket=name)
        if public_read:
            allow = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
            where = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
            policy = {"Version": "2012-10-17", "Statement": [{**allow, "Resource": where}]}
            client.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
        return name


class S3Programs:
    """The processes of an S3 server, which starts without buckets.

    Attributes:
        server: the running server.
    """

    def __init__(self) -> None:
        """Start monitor, store and gateway in this order, and create the user."""
        if reason := missing():
            raise ServerUnavailableError(reason)
        port = free_port()
        self._folder = WorkFolder("clay-s3-")
        self.server = S3Server(
            f"http://127.0.0.1:{port}",
            secrets.token_hex(10).upper(),
            secrets.token_hex(20),
            str(self._folder.path / "ceph.conf"),
        )
        self._daemons: list[Daemon] = []
        try:
            self._start(port)
        except BaseException:
            self.stop()
            raise

    def _start(self, port: int) -> None:
        folder, fsid, store = self._folder.path, str(uuid.uuid4()), str(uuid.uuid4())
        mon_port = free_port()
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        path = Path(self.server.configuration)
        path.write_text(CONFIGURATION.format(fsid=fsid, mon_port=mon_port, port=port, folder=folder))
        conf = ["-c", str(path)]

        def start(name: str, *arguments: str) -> Daemon:
            daemon = Daemon(name, [name, *conf, *arguments, "-f"], folder / f"{name}.log")
            self._daemons.append(daemon)
            return daemon

        monmap = str(folder / "monmap")
        address = f"[v1:127.0.0.1:{mon_port}]"
        run_tool(["monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap], 90)
        run_tool(["ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", monmap], 90)
        mon = start("ceph-mon", "-i", "a")

        def ask_monitor(*words: str) -> None:
            # A daemon may answer before it knows its cluster, and reject requests; both can be repeated.
            ask = ["ceph", *conf, "--connect-timeout", "30", "osd", *words]
            mon.wait_until(lambda: run_tool(ask, 60) is not None, 180)

        ask_monitor("new", store)
        run_tool(["ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", store], 90)
        ask_monitor("crush", "add", "osd.0", "1.0", "root=default", "host=local")
        store_daemon = start("ceph-osd", "-i", "0")
        store_daemon.wait_until(lambda: self._store_is_up(conf), 120)
        gateway = start("radosgw", "-n", "client.rgw.a")
        gateway.wait_until(self._answers, 180)
        user = ["--uid=tests", "--display-name=tests"]
        keys = [f"--access-key={self.server.access_key}", f"--secret-key={self.server.secret_key}"]
        run_tool(["radosgw-admin", *conf, "user", "create", *user, *keys], 120)

    @staticmethod
    def _store_is_up(conf: list[str]) -> bool:
        state = json.loads(run_tool(["ceph", *conf, "--connect-timeout", "5", "osd", "stat", "-f", "json"], 30))
        return bool(state["num_up_osds"] == 1)

    def _answers(self) -> bool:
        with urllib.request.urlopen(self.server.endpoint_url, timeout=5) as answer:
            return bool(answer.status == 200)

    def stop(self) -> None:
        """Stop gateway, store and monitor in this order, waiting for each, and remove their files."""
        while self._daemons:
            self._daemons.pop().stop()
        self._folder.remove()
