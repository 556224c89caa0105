"""Training and test scoring of one trial, in its folder ``<storage>/<sweep>/<trial hash>/``.

The folder holds ``journal.jsonl`` (see ``journal``), ``checkpoint.pt`` while it trains, ``model.pt`` (the best state)
when it is finished, and after test scoring ``test_users.parquet``, the per-user test metrics.
"""

import functools
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from pipelines import journal
from pipelines.prepare import load
from pipelines.settings import ResourceSettings, Trial
from recloss import backbones, losses
from recloss.backbones import Backbone
from recloss.errors import InputError
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.losses import Loss
from recloss.native import kernel
from recloss.sampling import build_sampler
from recloss.training import DivergedError, FitSettings, Validation, fit, load_checkpoint, save_atomically

CHECKPOINT, MODEL, TEST_USERS = "checkpoint.pt", "model.pt", "test_users.parquet"
Status = Literal["missing", "cut off", "finished", "failed"]


def status(folder: Path) -> Status:
    """What a trial's folder says about it. A diverged trial has failed for good; other failures may be tried again."""
    events = journal.read(folder)
    if journal.last(events, "finish") and (folder / MODEL).exists():
        return "finished"
    if failure := journal.last(events, "fail"):
        return "failed" if failure["diverged"] else "cut off"
    return "cut off" if events else "missing"


def train_trial(
    trial: Trial, data: Path, folder: Path, resources: ResourceSettings, report: Callable[[Validation], None]
) -> None:
    """Train one trial in this process, resuming from its checkpoint; errors end in the journal, then are raised.

    With an initialised ``torch.distributed`` every rank calls this; rank 0 alone writes to the folder.

    Raises:
        DivergedError: if the loss or the embeddings are not finite.
    """
    writes = not dist.is_initialized() or dist.get_rank() == 0
    torch.set_num_threads(max(1, int(resources.cpus)))
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        _open_journal(trial, folder, resources)
    try:
        train, valid = training_splits(data, trial.data)
        backbone, loss = build(trial, train)
        train = train.to(next(backbone.parameters()).device)
        sampler = build_sampler(trial.sampler.name, trial.sampler.params, train)

        def on_validation(validation: Validation) -> None:
            if writes:
                journal.append(folder, _event(validation))
            report(validation)

        settings = fit_settings(trial)
        checkpoint = folder / CHECKPOINT
        result = fit(
            backbone, loss, train, valid, settings,
            sampler=sampler, checkpoint=checkpoint, on_validation=on_validation,
        )  # fmt: skip
    except Exception as error:
        if writes:
            diverged = isinstance(error, DivergedError)
            message = f"{type(error).__name__}: {error}"
            journal.append(folder, {"event": "fail", "time": time.time(), "error": message, "diverged": diverged})
        raise
    if writes:
        save_atomically(folder / MODEL, {"backbone": backbone.state_dict(), "loss": loss.state_dict()})
        last = result.history[-1]
        journal.append(
            folder,
            {
                "event": "finish",
                "time": time.time(),
                "best_epoch": result.best_epoch,
                "best": result.best,
                "epochs": last.epoch,
                "seconds": last.seconds,
            },
        )
        checkpoint.unlink()


def train_trial_distributed(
    trial: Trial, data: Path, folder: Path, resources: ResourceSettings, report: Callable[[Validation], None]
) -> None:
    """Train one trial on ``resources.workers`` Ray Train workers; each loads the data from storage all can reach."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder.mkdir(parents=True, exist_ok=True)
    per_worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "trial": trial.model_dump(mode="json"),
            "data": str(data),
            "folder": str(folder),
            "resources": resources.model_dump(),
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",  # a fresh name: the trial's own checkpoint is what it resumes from
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=1),
        ),
    )
    trainer.fit()
    for event in journal.read(folder):
        if event["event"] == "valid":
            report(_validation(event))


def _worker(config: dict[str, Any]) -> None:
    trial, resources = (
        Trial.model_validate(config["trial"]),
        ResourceSettings.model_validate(config["resources"]),
    )
    train_trial(trial, Path(config["data"]), Path(config["folder"]), resources, lambda validation: None)


def score_test(trial: Trial, data: Path, folder: Path) -> dict[str, float]:
    """Score a finished trial's model on the test split, once; write per-user metrics and the journal's "test" event."""
    done = journal.last(journal.read(folder), "test")
    if done and (folder / TEST_USERS).exists():
        return done["metrics"]
    train, valid = training_splits(data, trial.data)
    backbone, loss = build(trial, train)
    state = load_checkpoint(folder / MODEL)
    backbone.load_state_dict(state["backbone"])
    hidden = [train, valid] if trial.protocol.mask_valid else [train]
    user, item = load(data).test
    test = Interactions(torch.tensor(user), torch.tensor(item), train.n_users, train.n_items)
    device = next(backbone.parameters()).device
    relevant, hidden = test.to(device), [interactions.to(device) for interactions in hidden]
    result = evaluate(backbone, loss.similarity, relevant, hidden, trial.protocol.cutoffs)
    columns = {"user": result.users.to(torch.int32)} | result.values
    temporary = folder / (TEST_USERS + ".tmp")
    pq.write_table(pa.table({name: column.cpu().numpy() for name, column in columns.items()}), temporary)
    os.replace(temporary, folder / TEST_USERS)
    metrics = {f"test/{name}": value for name, value in result.mean().items()}
    journal.append(folder, {"event": "test", "time": time.time(), "metrics": metrics})
    return metrics


def check_fits(trial: Trial, n_users: int, n_items: int) -> None:
    """Refuse what cannot work on a catalogue of this size, before anything is trained.

    Raises:
        InputError: if a cut-off or a hyper-parameter exceeds the catalogue.
    """
    if max(trial.protocol.cutoffs) > n_items:
        raise InputError(
            f"protocol.cutoffs: K = {max(trial.protocol.cutoffs)} is larger than the catalogue ({n_items} items)"
        )
    try:
        with torch.device("meta"):
            losses.build(
                trial.loss.name, trial.loss.params, n_users=n_users, n_items=n_items, n_pairs=1, n_negatives=1, seed=0
            )
    except ValueError as error:
        raise InputError(f"loss {trial.loss.name!r}: {error}") from None


def build(trial: Trial, train: Interactions) -> tuple[Backbone, Loss]:
    """Backbone and loss of a trial on this process's device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.build(trial.backbone.name, trial.backbone.params, train, trial.seed)
    sizes = {
        "n_users": train.n_users,
        "n_items": train.n_items,
        "n_pairs": len(train),
        "n_negatives": trial.train.negatives,
    }
    loss = losses.build(trial.loss.name, trial.loss.params, **sizes, seed=trial.seed)
    return backbone.to(device), loss.to(device)


def fit_settings(trial: Trial) -> FitSettings:
    """The library's settings of a trial."""
    return FitSettings(
        lr=trial.optim.lr,
        weight_decay=trial.optim.weight_decay,
        **trial.train.model_dump(),
        metric=trial.protocol.metric,
        cutoffs=trial.protocol.cutoffs,
        seed=trial.seed,
    )


@functools.lru_cache(maxsize=4)
def training_splits(data: Path, fingerprint: str) -> tuple[Interactions, Interactions]:
    """Training and validation interactions, read once per process and data set; the test split stays on disk.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    prepared = load(data)
    if prepared.fingerprint != fingerprint:
        raise InputError(f"{data}: holds the data set {prepared.fingerprint[:12]}, not {fingerprint[:12]} of the sweep")
    sizes = prepared.n_users, prepared.n_items
    train, valid = (
        Interactions(torch.tensor(user), torch.tensor(item), *sizes) for user, item in (prepared.train, prepared.valid)
    )
    return train, valid


def _open_journal(trial: Trial, folder: Path, resources: ResourceSettings) -> None:
    """Start the journal, or bring it to what the checkpoint knows: the two are written one after the other."""
    started = journal.last(journal.read(folder), "start")
    history = []
    if (folder / CHECKPOINT).exists():
        try:
            history = load_checkpoint(folder / CHECKPOINT)["progress"]["history"]
        except ValueError:  # damaged: what it held is trained again
            (folder / CHECKPOINT).unlink()
    start = {
        "event": "start",
        "time": started["time"] if started else time.time(),
        "trial": trial.model_dump(mode="json"),
        "environment": environment(resources),
    }
    journal.rewrite(folder, [start, *(_event(Validation(**validation)) for validation in history)])


def _event(validation: Validation) -> dict[str, Any]:
    metrics = {f"valid/{name}": value for name, value in validation.metrics.items()}
    metrics |= {"train/loss": validation.loss, "train/seconds": validation.seconds}
    return {"event": "valid", "time": validation.time, "epoch": validation.epoch, "metrics": metrics}


def _validation(event: dict[str, Any]) -> Validation:
    metrics = dict(event["metrics"])
    loss, seconds = metrics.pop("train/loss"), metrics.pop("train/seconds")
    valid = {name.removeprefix("valid/"): value for name, value in metrics.items()}
    return Validation(event["epoch"], loss, valid, seconds, event["time"])


def environment(resources: ResourceSettings) -> dict[str, str]:
    """What a result's last bits may depend on: recorded with each trial, not part of its identity."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "kernel": kernel(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "workers": str(resources.workers),
    }


@functools.cache
def git_commit() -> str:
    """Commit of the checkout this code runs from; "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
