"""What a deployment's form holds, the settings that follow from it, and what `deploy` registers on a real server."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from flows.accelerator import on_this_machine
from settings.resolve import resolve
from spectramind.errors import SettingsError

ROOT = Path(__file__).parents[2]


def test_the_form_has_types_defaults_and_help(prefect_server: None) -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.deployed import train_v50
    from settings.groups import presets

    schema = parameter_schema(train_v50)
    assert schema.required == ["data_root"]
    assert schema.properties["data_root"]["format"] == "path"
    assert set(schema.properties["model"]["enum"]) == {"default", *presets("model")}
    assert schema.properties["train_device"]["enum"] == ["auto", "cpu", "gpu"]
    assert schema.properties["runtime_seed"]["type"] == "integer"
    assert all(field["description"] for field in schema.properties.values())


def test_a_form_left_alone_says_nothing_and_overrides_come_last(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.deployed import settings_of, train_v50

    untouched = {
        name: field.default
        for name, field in inspect.signature(train_v50).parameters.items()
        if field.default is not field.empty
    }
    monkeypatch.setenv("SPECTRAMIND__RUNTIME__SEED", "7")
    monkeypatch.setenv("SPECTRAMIND__OUTPUTS__STORE", "/worker/store")
    worker = ("data.root=/d", "runtime.seed=7", "outputs.store=/worker/store")
    assert settings_of({**untouched, "data_root": Path("/d")}) == resolve(worker)
    filled = {**untouched, "data_root": Path("/d"), "model": "small", "overrides": ["model.kind=analytic"]}
    assert settings_of(filled) == resolve([*worker, "model=small", "model.kind=analytic"])


def test_an_unknown_override_is_refused_by_name(prefect_server: None) -> None:
    from flows.deployed import settings_of

    with pytest.raises(SettingsError, match=r"train\.devise"):
        settings_of({"overrides": ["train.devise=gpu"]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_or_replaced_with_a_warning() -> None:
    warnings: list[str] = []
    with pytest.raises(SettingsError, match="finds no GPU"):
        on_this_machine(resolve(["train.device=gpu"]), warnings.append)
    assert warnings == []
    settings = on_this_machine(resolve(["train.device=gpu", "runtime.without_gpu=cpu"]), warnings.append)
    assert settings == resolve(["train.device=cpu", "runtime.without_gpu=cpu"])
    assert len(warnings) == 1


def test_deploy_twice_registers_everything_once(prefect_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    from prefect.blocks.notifications import SlackWebhook
    from prefect.client.orchestration import get_client

    from flows.deploy import deploy

    SlackWebhook(url="https://hooks.example.org/team").save("team", _sync=True)
    with pytest.raises(SettingsError, match="slack-webhook/nobody"):
        deploy("slack-webhook/nobody")
    deploy("slack-webhook/team")
    deploy("slack-webhook/team")
    assert "ablate/nightly" in capsys.readouterr().out
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments()
        flows = {flow.id: flow.name for flow in client.read_flows()}
        automations = [client.read_automations_by_name(f"spectramind-{name}-runs") for name in ("silent", "failed")]
        pools = {pool.name: pool.type for pool in client.read_work_pools()}
    described = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
    names = sorted(f"{flows[deployment.flow_id]}/{deployment.name}" for deployment in deployments)
    assert len(names) == len(described)
    assert {"train-v50/cpu", "train-v50/gpu", "spectramind-v50/local", "submit/local"} <= set(names)
    assert [len(found) for found in automations] == [1, 1]
    assert {name: pools[name] for name in ("cpu", "gpu")} == {"cpu": "process", "gpu": "process"}
    nightly = next(deployment for deployment in deployments if deployment.name == "nightly")
    assert (nightly.schedules[0].schedule.cron, nightly.schedules[0].schedule.timezone) == ("0 2 * * *", "UTC")
    assert nightly.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert nightly.global_concurrency_limit.limit == 1


def test_deploy_names_the_server_that_does_not_answer(prefect_server: None) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.deploy import deploy

    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(SettingsError, match=r"no Prefect server answers at PREFECT_API_URL=http://127\.0\.0\.1:9/api"),
    ):
        deploy(None)


def test_the_kubernetes_pool_is_one_that_prefect_takes_and_fills(prefect_server: None) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.utilities.templating import apply_values, find_placeholders

    template = json.loads((ROOT / "infra/kubernetes/work-pool.json").read_text())
    # Prefect refuses a placeholder that is no variable; nor is there a variable without a use.
    WorkPoolCreate(name="cluster", type="kubernetes", base_job_template=template)
    variables = template["variables"]["properties"]
    assert {found.name for found in find_placeholders(template["job_configuration"])} == set(variables)
    given = {"name": "a-run", "env": {}, "labels": {}, "command": "prefect flow-run execute"}
    assert {name for name, described in variables.items() if "default" not in described} == set(given)
    defaults = {name: described["default"] for name, described in variables.items() if "default" in described}
    manifest = apply_values(template["job_configuration"]["job_manifest"], defaults | given)
    (job,) = yaml.safe_load_all((ROOT / "infra/kubernetes/job.yaml").read_text())
    ours, theirs = (found["spec"]["template"]["spec"] for found in (manifest, job))
    assert ours["volumes"] == theirs["volumes"]
    for name in ("image", "volumeMounts", "envFrom", "securityContext"):
        assert ours["containers"][0][name] == theirs["containers"][0][name]


def test_the_image_holds_what_a_deployment_names() -> None:
    """A run in a container finds its flow below the folder that `deploy` was called in: the image's own."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    described = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
    assert {re.split("[/:]", deployment["entrypoint"])[0] for deployment in described} | {"deployments"} <= kept
