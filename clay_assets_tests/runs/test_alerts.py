"""What is sent when a partition is left failed: to real servers, from the history of a real Dagster instance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType, SensorInstigatorData
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from clay_assets.definitions import build_definitions
from clay_assets.orchestration.resources import ClayResource
from clay_assets.runs import alerts
from clay_assets.runs.automation import RETRY_OF, RETRY_SENSOR
from clay_assets.runs.messages import Email, Message, NotSentError
from clay_assets.runs.messages import Webhook as WebhookChannel
from clay_assets_tests.runs.history import cell, made, run_of
from clay_assets_tests.servers.daemon import free_port
from clay_assets_tests.servers.mail import NOBODY, PASSWORD, USER, MailServer, mail_server
from clay_assets_tests.servers.tls import make_certificate
from clay_assets_tests.servers.webhook import Webhook

FAILURE = dg.DagsterRunStatus.FAILURE
MESSAGE = Message("naip|2021 failed at chip_index", ("x.tif: <!channel> & so on.", "Run 1."))
Tick = Callable[..., str]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        yield server


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def tick(instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture) -> Tick:
    """Evaluate the sensor as the daemon does, with the cursor of the tick before; what it says."""
    cursor: str | None = None

    def evaluate(**settings: Any) -> str:
        nonlocal cursor
        resources = {"clay": ClayResource(overrides=settings)}
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources) as context:
            context.log.addHandler(caplog.handler)
            outcome = alerts.alert_on_failed_partitions.evaluate_tick(context)
        assert not outcome.run_requests
        cursor = outcome.cursor or cursor
        return outcome.skip_message or ""

    return evaluate


def start_retries(instance: dg.DagsterInstance) -> None:
    """Turn the sensor that retries on, as the UI does."""
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="clay_assets.definitions"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), RETRY_SENSOR)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData())
    instance.add_instigator_state(state)


def retry(instance: dg.DagsterInstance, partition: str, assets: list[str], of: str) -> str:
    return run_of(instance, partition, assets, FAILURE, **{RETRY_OF.replace("/", "__"): of})


@pytest.mark.slow
def test_the_message_names_partition_assets_error_and_run(
    instance: dg.DagsterInstance, tick: Tick, webhook: Webhook, mail: MailServer, tmp_path: Path
) -> None:
    job = build_definitions(storage=str(tmp_path / "clay")).resolve_job_def("cell")
    run = job.execute_in_process(instance=instance, partition_key="modis|2021", raise_on_error=False)
    missing = f"{tmp_path}/clay/scenes/scene_requests/modis.parquet: file not found. Materialise scene_requests first."
    settings = {
        "alert_webhook": webhook.url,
        "alert_email": "on-call@example.org, eo@example.org",
        "alert_smtp": f"smtp://127.0.0.1:{mail.port}",
        "alert_from": "clay@example.org",
    }
    assert tick(**settings, dagster_url="https://dagster.example.org/") == "2 sent, 1 left failed."
    lines = [
        missing,
        "Not materialised: scene_picks, scene_imagery, chip_index, chip_landcover, cog_headers.",
        f"https://dagster.example.org/runs/{run.run_id}",
    ]
    ((path, kind, body),) = webhook.seen
    assert path.endswith(Webhook.SECRET)
    assert kind == "application/json"
    assert body == {"text": "\n".join(["*modis|2021 failed at scene_picks*", *lines])}  # Slack's form, and no more
    ((recipients, message),) = mail.mails
    assert recipients == ["on-call@example.org", "eo@example.org"]
    assert message["subject"] == "clay_assets: modis|2021 failed at scene_picks"
    assert message["from"] == "clay@example.org"
    assert message.get_content().replace("\r", "").rstrip().split("\n") == [
        "modis|2021 failed at scene_picks",
        "",
        *lines,
    ]


@pytest.mark.slow
def test_a_partition_is_reported_once_and_not_before_its_retry_failed(
    instance: dg.DagsterInstance, tick: Tick, webhook: Webhook
) -> None:
    url = webhook.url
    start_retries(instance)
    assets = ["scene_imagery", "chip_index"]
    first = run_of(instance, "naip|2021", assets, FAILURE)
    run_of(instance, "linz|2021", ["chip_index"], FAILURE, dagster__will_retry="true")
    run_of(instance, "linz|2023", ["chip_index"], dg.DagsterRunStatus.CANCELED)
    run_of(instance, "modis|2021", ["chip_index"], dg.DagsterRunStatus.STARTED)
    assert tick(alert_webhook=url) == "0 sent, 0 left failed."
    second = retry(instance, "naip|2021", assets, first)
    run_of(instance, "linz|2021", ["chip_index"], FAILURE, dagster__retry_number="1")
    assert tick(alert_webhook=url) == "2 sent, 2 left failed."
    assert sorted(text.split("\n")[0] for text in webhook.texts) == [
        "*linz|2021 failed at chip_index*",
        "*naip|2021 failed at scene_imagery*",
    ]
    (of_naip,) = [text for text in webhook.texts if "naip" in text]
    assert of_naip.split("\n")[1:] == [
        "the run ended without an error message: killed, or never started",
        "Not materialised: scene_imagery, chip_index.",
        f"Run {second}.",
    ]
    assert tick(alert_webhook=url) == "0 sent, 2 left failed."
    # Somebody tries by hand, which fails again, and is retried, which fails too: one alert was enough.
    again = run_of(instance, "naip|2021", assets, FAILURE)
    assert tick(alert_webhook=url) == "0 sent, 1 left failed."
    retry(instance, "naip|2021", assets, again)
    assert tick(alert_webhook=url) == "0 sent, 2 left failed."
    # It recovers. A later failure is news.
    for asset in assets:
        made(instance, asset, cell("naip", 2021))
    assert tick(alert_webhook=url) == "0 sent, 1 left failed."
    retry(instance, "naip|2021", assets, run_of(instance, "naip|2021", assets, FAILURE))
    assert tick(alert_webhook=url) == "1 sent, 2 left failed."
    assert len(webhook.seen) == 3


@pytest.mark.slow
def test_without_the_sensor_that_retries_the_first_failure_is_reported(
    instance: dg.DagsterInstance, tick: Tick, webhook: Webhook
) -> None:
    run_of(instance, "naip|2021", ["chip_index"], FAILURE)
    run_of(instance, "naip", ["scene_requests"], FAILURE)
    assert tick() == alerts.UNSET
    assert tick(alert_webhook=webhook.url) == "2 sent, 2 left failed."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "answer", "headers", "said"),
    [
        pytest.param(500, "<p>down", {}, "it answered 500 (<p>down). Check its address.", id="out of order"),
        pytest.param(404, "no_service", {}, "it answered 404 (no_service). Check its address.", id="taken back"),
        pytest.param(302, "", {"Location": "http://127.0.0.1:9/"}, "it answered 302 (Found)", id="sent elsewhere"),
        pytest.param(None, "", {}, "no answer (ConnectionError)", id="hung up"),
    ],
)
def test_a_webhook_that_fails_ends_nothing_is_logged_without_its_secret_and_gets_the_message_later(
    instance: dg.DagsterInstance,
    tick: Tick,
    webhook: Webhook,
    mail: MailServer,
    caplog: pytest.LogCaptureFixture,
    status: int | None,
    answer: str,
    headers: dict[str, str],
    said: str,
) -> None:
    webhook.status, webhook.answer, webhook.headers = status, answer, headers
    for year in (2021, 2022):
        run_of(instance, f"naip|{year}", ["chip_index"], FAILURE)
    settings = {
        "alert_webhook": webhook.url,
        "alert_email": "eo@example.org",
        "alert_smtp": f"smtp://127.0.0.1:{mail.port}",
    }
    with caplog.at_level(logging.DEBUG):
        told = tick(**settings)
    assert told.startswith(f"2 sent, 2 left failed. CLAY_ALERT_WEBHOOK: {said}")  # the e-mails
    assert len(webhook.seen) == 1  # not asked again within a tick
    assert any(said in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert Webhook.SECRET not in told + caplog.text
    webhook.status, webhook.headers = 200, {}
    assert tick(**settings) == "2 sent, 2 left failed."
    assert len(webhook.seen) == 1 + 2
    assert len(mail.mails) == 2  # each once
    assert tick(**settings) == "0 sent, 2 left failed."


@pytest.mark.slow
def test_many_failures_are_spread_over_ticks(
    instance: dg.DagsterInstance, tick: Tick, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MOST", 2)
    for year in (2020, 2021, 2022):
        run_of(instance, f"naip|{year}", ["chip_index"], FAILURE)
    assert [tick(alert_webhook=webhook.url).split(",")[0] for _ in range(3)] == ["2 sent", "1 sent", "0 sent"]
    assert len({text.split("\n")[0] for text in webhook.texts}) == 3


def test_markup_in_an_error_is_text_and_the_address_is_not_logged(
    webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        WebhookChannel(webhook.url).send(MESSAGE)
    assert Webhook.SECRET not in caplog.text
    assert "Starting new HTTP connection" in caplog.text  # what urllib3 logs besides
    assert webhook.texts == ["*naip|2021 failed at chip_index*\nx.tif: &lt;!channel&gt; &amp; so on.\nRun 1."]


@pytest.mark.parametrize("url", ["hooks.example.org/hunter2", "ftp://hooks.example.org/hunter2", "http://[/hunter2"])
def test_a_wrong_address_of_a_webhook_is_told_without_its_secret(url: str) -> None:
    with pytest.raises(NotSentError, match="no answer") as raised:
        WebhookChannel(url).send(MESSAGE)
    assert "hunter2" not in str(raised.value)


@pytest.mark.slow
def test_a_password_only_goes_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with mail_server(certificate) as server:
        to = f"127.0.0.1:{server.port}"
        Email("eo@example.org", "clay@example.org", f"smtp://{USER}:p%40ss%2Fword@{to}").send(MESSAGE)
        assert server.logins == [(USER, PASSWORD)]
        assert [recipients for recipients, _ in server.mails] == [["eo@example.org"]]
        with pytest.raises(NotSentError, match="SMTPAuthenticationError") as raised:
            Email("eo@example.org", "clay@example.org", f"smtp://{USER}:hunter2@{to}").send(MESSAGE)
        assert "hunter2" not in str(raised.value)
    with mail_server() as server, pytest.raises(NotSentError, match="STARTTLS"):
        Email("a@b.c", "clay@example.org", f"smtp://{USER}:hunter2@127.0.0.1:{server.port}").send(MESSAGE)
    assert not server.mails


@pytest.mark.parametrize(
    ("server", "to", "said"),
    [
        ("mail.example.org:25", "eo@example.org", "ValueError: an address such as smtp://"),
        ("smtp://127.0.0.1:port", "eo@example.org", "ValueError"),
        ("smtp://127.0.0.1:{free}", "eo@example.org", "ConnectionRefusedError"),
        ("smtp://127.0.0.1:{port}", NOBODY, "SMTPRecipientsRefused"),
        ("smtp://127.0.0.1:{port}", f"eo@example.org, {NOBODY}", f"the server refused {NOBODY}"),
        ("smtp://127.0.0.1:{port}", "eo@example.org\nBcc: all@example.org", "ValueError"),
    ],
)
def test_an_e_mail_that_is_not_sent_says_why(mail: MailServer, server: str, to: str, said: str) -> None:
    channel = Email(to, "clay@example.org", server.format(port=mail.port, free=free_port()))
    with pytest.raises(NotSentError, match=said):
        channel.send(MESSAGE)


def test_secrets_are_not_shown_with_the_settings() -> None:
    secret = {"alert_webhook": "https://hooks.example.org/hunter2", "alert_smtp": "smtp://clay:hunter2@example.org"}
    assert "hunter2" not in repr(ClayResource(overrides=secret).settings)
