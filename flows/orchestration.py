"""How Prefect runs here: its home inside the store, quiet terminal, no telemetry.

Prefect reads its settings once, when it is imported; `configure` therefore comes before any import of a flow.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.store_layout import StoreLayout

TELEMETRY_OFF = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}

QUIET_SERVER = {
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_API_REQUEST_TIMEOUT": "180",  # a request waits until a temporary server is up
    "PREFECT_CLI_PROMPT": "false",
}


def prefect_environment(store: Path) -> dict[str, str]:
    """Environment of a Prefect process whose runs and results live in `store`."""
    return {**TELEMETRY_OFF, **QUIET_SERVER, "PREFECT_HOME": str(StoreLayout(store).prefect_home.resolve())}


def make_home(store: Path) -> None:
    """Create what Prefect expects to be there, readable by this user alone."""
    StoreLayout(store).task_results.mkdir(parents=True, exist_ok=True)
    StoreLayout(store).prefect_home.chmod(0o700)


def configure(store: Path) -> None:
    """Prepare this process for Prefect; start a server unless the user's settings of Prefect name one.

    What the user's environment already sets stays, telemetry aside.
    """
    os.environ.update(TELEMETRY_OFF)
    for name, value in prefect_environment(store).items():
        os.environ.setdefault(name, value)
    make_home(store)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        from flows.temporary_server import start_server

        os.environ["PREFECT_API_URL"] = start_server()
        refresh_global_settings_context()
