"""What libraries find in the environment when they are imported: no telemetry, no unpickling, one thread per worker.

Import this before NumPy, Prefect, MLflow or Great Expectations.
"""

from __future__ import annotations

import os

from flows.orchestration import TELEMETRY_OFF

SAFE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}

# Work is spread over processes; threads inside each would compete for the same cores and make sums depend on timing.
# Dask sets these names in this process, too, while it starts workers, and Numba fails if its own ever changes.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}


def prepare() -> None:
    """Switch telemetry and unpickling off; set thread counts that the user has not set."""
    os.environ.update({**TELEMETRY_OFF, **SAFE})
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
