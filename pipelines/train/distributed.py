"""Data-parallel training of one trial on Ray Train."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipelines.settings import ResourceSettings, Trial
from pipelines.train import failures, journal, stream, validations
from pipelines.train.capture import LOG, captured
from pipelines.train.folder import next_epoch
from pipelines.train.trial import train_trial
from recloss.training import Validation


def train_trial_distributed(
    trial: Trial,
    data: Path,
    folder: Path,
    resources: ResourceSettings,
    report: Callable[[Validation], None],
    *,
    until: int | None = None,
    stop: Path | None = None,
    micro_batch: int | None = None,
) -> None:
    """`train_trial` on ``resources.workers`` Ray Train workers; each loads the data from storage all can reach."""
    from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder.mkdir(parents=True, exist_ok=True)
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    streams: dict[str, Any] = {}
    if trial.train.stream:  # every worker reads the whole stream and takes the rows of its users
        streams["datasets"] = {"train": stream.dataset(trial, data, next_epoch(folder))}
        streams["dataset_config"] = DataConfig(datasets_to_split=[])
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "trial": trial.model_dump(mode="json"),
            "data": str(data),
            "folder": str(folder),
            "resources": resources.model_dump(),
            "until": until,
            "stop": stop and str(stop),
            "micro_batch": micro_batch,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",  # a fresh name: the trial's own checkpoint is what it resumes from
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=0),  # an attempt; who calls this makes others
        ),
        **streams,
    )
    try:
        trainer.fit()
    except Exception as error:
        failures.record(folder, error, trial)
        raise
    finally:
        shutil.rmtree(folder / "ray", ignore_errors=True)
    for event in journal.read(folder):
        if event["event"] == "valid":
            report(validations.from_event(event))


def _worker(config: dict[str, Any]) -> None:
    from ray.train import get_dataset_shard

    trial = Trial.model_validate(config["trial"])
    resources = ResourceSettings.model_validate(config["resources"])
    data, folder, stop = Path(config["data"]), Path(config["folder"]), config["stop"] and Path(config["stop"])
    rank = dist.get_rank() if dist.is_initialized() else 0

    def report(validation: Validation) -> None:
        if rank == 0:
            print(validations.line(validation))

    with captured(folder / (f"log.{rank}.txt" if rank else LOG)):
        train_trial(
            trial, data, folder, resources, report,
            until=config["until"], stop=stop, micro_batch=config["micro_batch"],
            pairs=get_dataset_shard("train") if trial.train.stream else None,
        )  # fmt: skip
