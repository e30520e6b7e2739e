"""`spectramind deploy`: work pools, deployments and automations on a Prefect server. Doing it again changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.orchestration import TELEMETRY_OFF
from settings import yaml_text
from spectramind.errors import InputError, SettingsError, SpectraMindError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ROOT = Path(__file__).parents[1]
DEPLOYMENTS, AUTOMATIONS = ROOT / "deployments" / "prefect.yaml", ROOT / "deployments" / "automations.yaml"
POOLS = ("cpu", "gpu")
NOTIFICATION = "send-notification"
"""The action that needs a block."""


def deploy(notify: str | None, dry_run: bool = False) -> None:
    """Register everything that `deployments/` describes; `notify` names a notification block as TYPE/NAME.

    Raises SettingsError if no server is named or none answers, or if the block does not exist; InputError outside a
    checkout of the repository; SpectraMindError if Prefect refuses a deployment.
    """
    os.environ.update(TELEMETRY_OFF)
    for path in (DEPLOYMENTS, AUTOMATIONS):
        if not path.is_file():
            raise InputError(path, "the deployments", "no such file", "Run it in a checkout of the repository.")
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise SettingsError(
            "PREFECT_API_URL is not set: give the server's address, for example http://127.0.0.1:4200/api "
            "(`spectramind ui` starts one and prints it)"
        )
    with get_client(sync_client=True) as client:
        if problem := client.api_healthcheck():
            raise SettingsError(
                f"no Prefect server answers at PREFECT_API_URL={url} ({type(problem).__name__}: {problem}); "
                "start one (`spectramind ui`) or correct the address"
            )
        automations = _automations(client, notify)
        if dry_run:
            names = ", ".join(automation["name"] for automation in automations)
            print(f"would register {DEPLOYMENTS}, the pools {', '.join(POOLS)} and the automations {names} at {url}")
            return
        for pool in POOLS:
            _ensure_pool(client, pool)
        _register_deployments(url)
        for automation in automations:
            _put_automation(client, automation)
    print(f"Registered at {url}. A worker runs them: prefect worker start --pool cpu")


def _ensure_pool(client: SyncPrefectClient, name: str) -> None:
    """A process pool, unless there is a pool of that name: a team may have made it one of another type."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    print(f"work pool   {name:<32}{pool.type}")


def _register_deployments(url: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(DEPLOYMENTS), "--all"]
    environment = {**os.environ, "PREFECT_API_URL": url}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SpectraMindError(f"Prefect refused {DEPLOYMENTS}: {(done.stdout + done.stderr).strip()[-2000:]}")
    for deployment in yaml_text.read(DEPLOYMENTS)["deployments"]:
        function = deployment["entrypoint"].rpartition(":")[2].replace("_", "-")
        schedule = next((f"{s['cron']} {s['timezone']}" for s in deployment.get("schedules", ())), "")
        print(f"deployment  {function + '/' + deployment['name']:<32}{deployment['work_pool']['name']:<5}{schedule}")


def _automations(client: SyncPrefectClient, notify: str | None) -> list[dict[str, Any]]:
    """The automations to register, with the block of `notify` in those that send something."""
    block = None if notify is None else _block(client, notify)
    automations = []
    for automation in yaml_text.read(AUTOMATIONS)["automations"]:
        sends = [action for action in automation["actions"] if action["type"] == NOTIFICATION]
        if sends and block is None:
            continue
        for action in sends:
            action["block_document_id"] = block
        automations.append(automation)
    return automations


def _block(client: SyncPrefectClient, notify: str) -> str:
    from prefect.exceptions import ObjectNotFound

    kind, _, name = notify.partition("/")
    try:
        return str(client.read_block_document_by_name(name, kind).id)
    except ObjectNotFound as error:
        raise SettingsError(
            f"--notify {notify}: the server has no such notification block; create one for mail or chat under Blocks "
            "in Prefect's UI and name it as TYPE/NAME, for example slack-webhook/team"
        ) from error


def _put_automation(client: SyncPrefectClient, described: dict[str, Any]) -> None:
    from prefect.events.schemas.automations import AutomationCore

    automation = AutomationCore.model_validate(described)
    present = client.read_automations_by_name(automation.name)
    if present:
        client.update_automation(present[0].id, automation)
    else:
        client.create_automation(automation)
    print(f"automation  {automation.name}")
