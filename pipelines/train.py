"""Training and test scoring of one trial, in its folder ``<storage>/<sweep>/<trial hash>/``.

The folder holds ``journal.jsonl`` (see ``journal``), ``checkpoint.pt`` while it trains, ``model.pt`` (the best state)
when it is finished, after test scoring ``test_users.parquet``, the per-user test metrics, and in a sweep ``log.txt``.
"""

import functools
import os
import platform
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from pipelines import failures, journal, mapped, stream
from pipelines.capture import LOG, captured
from pipelines.cost import Cost, Meter
from pipelines.progress import validation_line
from pipelines.settings import ResourceSettings, Trial
from recloss import backbones, losses, sampling
from recloss.backbones import Backbone
from recloss.errors import InputError
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.losses import Loss
from recloss.native import kernel
from recloss.training import FitSettings, Positives, Validation, fit, load_checkpoint, save_atomically

if TYPE_CHECKING:
    from ray.data import DataIterator

CHECKPOINT, MODEL, TEST_USERS = "checkpoint.pt", "model.pt", "test_users.parquet"
Status = Literal["missing", "cut off", "finished", "failed"]


def status(folder: Path) -> Status:
    """What a trial's folder says about it. A diverged trial has failed for good; other failures may be tried again."""
    events = journal.read(folder)
    if journal.last(events, "finish") and (folder / MODEL).exists():
        return "finished"
    if failure := journal.last(events, "fail"):
        return "failed" if failure.get("kind") == "diverged" else "cut off"
    return "cut off" if events else "missing"


def reached(folder: Path) -> int:
    """Epoch of a trial's latest validation; 0 before the first."""
    latest = journal.last(journal.read(folder), "valid")
    return latest["epoch"] if latest else 0


class PausedError(Exception):
    """A trial ends at a validation, whose checkpoint is on disk: it was to train no further, or the sweep stops."""


def train_trial(
    trial: Trial,
    data: Path,
    folder: Path,
    resources: ResourceSettings,
    report: Callable[[Validation], None],
    *,
    until: int | None = None,
    stop: Path | None = None,
    micro_batch: int | None = None,
    pairs: "DataIterator | None" = None,
) -> None:
    """Train one trial in this process, resuming from its checkpoint; errors end in the journal, then are raised.

    With ``until`` it pauses at its validation of that epoch, with ``stop`` at the first one that finds this file, and
    at one that finds that another process has taken over; called again, it ends as if it never had. ``micro_batch`` is
    that of `recloss.training.fit`. With ``train.stream`` the training pairs come from ``pairs``, else from a stream
    that this process opens (and Ray must run).

    With an initialised ``torch.distributed`` every rank calls this; rank 0 alone writes to the folder.

    Raises:
        DivergedError: if the loss or the embeddings are not finite.
    """
    writes = not dist.is_initialized() or dist.get_rank() == 0
    torch.set_num_threads(max(1, int(resources.cpus)))
    meter, attempt, spent = Meter(resources.gpus), uuid.uuid4().hex, Cost()
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        spent = _open_journal(trial, folder, attempt, environment(resources, micro_batch))
    try:
        train, valid = training_splits(data, trial.data)
        backbone, loss = build(trial, train)
        train = train.to(next(backbone.parameters()).device)
        sampler = sampling.build_sampler(trial.sampler.name, trial.sampler.params, train, _pool(trial, data, train))
        streamed: AbstractContextManager[Positives | None] = nullcontext()
        if trial.train.stream:
            source = pairs or stream.dataset(trial, data, _next_epoch(folder))
            streamed = stream.reading(source, len(train), trial.train.batch_size)

        def on_validation(validation: Validation) -> None:
            cost = spent + meter.read_all()
            superseded = writes and journal.read(folder)[0]["attempt"] != attempt
            if writes and not superseded:
                journal.append(folder, _event(validation) | {"cost": cost.json()})
            report(validation)
            reached_it = until is not None and until <= validation.epoch < trial.train.epochs
            if _on_any_rank(superseded or reached_it or (stop is not None and stop.exists())):
                raise PausedError

        settings = fit_settings(trial)
        checkpoint = folder / CHECKPOINT
        with streamed as positives:
            result = fit(
                backbone, loss, train, valid, settings,
                sampler=sampler, positives=positives, micro_batch=micro_batch,
                checkpoint=checkpoint, on_validation=on_validation,
            )  # fmt: skip
    except PausedError:
        return
    except Exception as error:
        if not dist.is_initialized():  # else who started the ranks knows what happened to all of them
            failures.record(folder, error, trial, spent + meter.read())
        raise
    cost = spent + meter.read_all()
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
                "cost": cost.json(),
            },
        )
        checkpoint.unlink()


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
        streams["datasets"] = {"train": stream.dataset(trial, data, _next_epoch(folder))}
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
            report(_validation(event))


def _worker(config: dict[str, Any]) -> None:
    from ray.train import get_dataset_shard

    trial = Trial.model_validate(config["trial"])
    resources = ResourceSettings.model_validate(config["resources"])
    data, folder, stop = Path(config["data"]), Path(config["folder"]), config["stop"] and Path(config["stop"])
    rank = dist.get_rank() if dist.is_initialized() else 0

    def report(validation: Validation) -> None:
        if rank == 0:
            print(validation_line(validation))

    with captured(folder / (f"log.{rank}.txt" if rank else LOG)):
        train_trial(
            trial, data, folder, resources, report,
            until=config["until"], stop=stop, micro_batch=config["micro_batch"],
            pairs=get_dataset_shard("train") if trial.train.stream else None,
        )  # fmt: skip


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
    test = mapped.interactions(data, trial.data, "test")
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


def check_fits(trial: Trial, n_users: int, n_items: int, *, pool: bool = False) -> None:
    """Refuse what cannot work on a catalogue of this size, or without a pool of false negatives, before training.

    Raises:
        InputError: if a cut-off or a hyper-parameter exceeds the catalogue, or the sampler needs a pool.
    """
    if sampling.get(trial.sampler.name).needs_pool and not pool:
        raise InputError(
            f"sampler {trial.sampler.name!r} needs data with a pool of false negatives; "
            "prepare it with noise: {kind: false_negative_pool}"
        )
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


def _pool(trial: Trial, data: Path, train: Interactions) -> Interactions | None:
    """The pool of false negatives that the sampler of a trial needs, on the device of ``train``."""
    if not sampling.get(trial.sampler.name).needs_pool:
        return None
    return mapped.interactions(data, trial.data, "pool").to(train.user.device)


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
        **trial.train.model_dump(exclude={"stream"}),
        metric=trial.protocol.metric,
        cutoffs=trial.protocol.cutoffs,
        seed=trial.seed,
    )


@functools.lru_cache(maxsize=4)
def training_splits(data: Path, fingerprint: str) -> tuple[Interactions, Interactions]:
    """Training and validation interactions, which all processes of a machine share; the test split stays on disk.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    return mapped.interactions(data, fingerprint, "train"), mapped.interactions(data, fingerprint, "valid")


def _open_journal(trial: Trial, folder: Path, attempt: str, environment: dict[str, str]) -> Cost:
    """Start the journal, or bring it to what the checkpoint knows: the two are written one after the other.

    Returns:
        What earlier attempts used.
    """
    before = journal.read(folder)
    started = journal.last(before, "start") or {}
    history = []
    if (folder / CHECKPOINT).exists():
        try:
            history = load_checkpoint(folder / CHECKPOINT)["progress"]["history"]
        except ValueError:  # damaged: what it held is trained again
            (folder / CHECKPOINT).unlink()
    costs = [event["cost"] for event in before if "cost" in event]
    failed = [{key: event[key] for key in ("time", "kind", "error")} for event in before if "kind" in event]
    start = {
        "event": "start",
        "time": started.get("time", time.time()),
        "trial": trial.model_dump(mode="json"),
        "environment": environment,
        "attempt": attempt,
        "cost": costs[-1] if costs else Cost().json(),
        "failures": started.get("failures", []) + failed,
    }
    journal.rewrite(folder, [start, *(_event(Validation(**validation)) for validation in history)])
    return Cost(**start["cost"])


def _on_any_rank(condition: bool) -> bool:
    """Whether a condition holds on any rank; every rank calls it."""
    if not dist.is_initialized():
        return condition
    found = torch.tensor(int(condition), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return bool(found)


def _next_epoch(folder: Path) -> int:
    """The epoch that a trial goes on with; a checkpoint that is damaged counts for none."""
    try:
        return load_checkpoint(folder / CHECKPOINT)["progress"]["epoch"] + 1
    except ValueError:
        return 1


def _event(validation: Validation) -> dict[str, Any]:
    metrics = {f"valid/{name}": value for name, value in validation.metrics.items()}
    metrics |= {"train/loss": validation.loss, "train/seconds": validation.seconds}
    return {"event": "valid", "time": validation.time, "epoch": validation.epoch, "metrics": metrics}


def _validation(event: dict[str, Any]) -> Validation:
    metrics = dict(event["metrics"])
    loss, seconds = metrics.pop("train/loss"), metrics.pop("train/seconds")
    valid = {name.removeprefix("valid/"): value for name, value in metrics.items()}
    return Validation(event["epoch"], loss, valid, seconds, event["time"])


def environment(resources: ResourceSettings, micro_batch: int | None) -> dict[str, str]:
    """What a result's last bits may depend on: recorded with each trial, not part of its identity."""
    pieces = {} if micro_batch is None else {"micro_batch": str(micro_batch)}
    return pieces | {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "kernel": kernel(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "workers": str(resources.workers),
        "host": platform.node(),
        "pid": str(os.getpid()),
    }


@functools.cache
def git_commit() -> str:
    """Commit of the checkout this code runs from; "unknown" outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
