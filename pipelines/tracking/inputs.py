"""Prepared datasets as MLflow shows them: the inputs of a sweep's run and of its trials."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.store import redact

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST_LENGTH = 36
"""MLflow takes no more; the fingerprint as a whole is in the profile."""


def dataset_input(name: str, path: Path, manifest: dict[str, Any]) -> "DatasetInput":
    """A prepared dataset as the input of a run.

    Args:
        name: of the data set in the sweep.
        path: of its folder; credentials in it are not recorded.
        manifest: its own.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    fingerprint, sizes = manifest["fingerprint"], manifest.get("sizes", {})
    dataset = Dataset(
        name=name,
        digest=fingerprint[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": redact(str(path))}),
        profile=json.dumps({"fingerprint": fingerprint, **sizes}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "train, valid, test")])
