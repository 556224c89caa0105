"""Evidence as the stores give it, made up: a sweep with searches, confirmations, histories and diagnostics."""

import math

import numpy as np
import pytest

from pipelines.report.figures import Evidence
from pipelines.settings import PrepareSettings, SweepSettings, make_trial, parse
from pipelines.tracking import Results, Selection, TrialRun

CUTOFFS = [5, 10, 20, 50]
THRESHOLD_LOSSES = ("talos", "slatk", "aatp", "sogslatk", "songatk")


class Sweep:
    """Collects what a sweep would have left; `evidence` is what its figures are drawn from."""

    def __init__(self, data=("ml-100k",), backbones=("mf",), losses=("bpr", "sl", "talos"), **settings):
        raw = {
            "name": "made-up",
            "data": [{"name": name, "path": "p"} for name in data],
            "backbones": dict.fromkeys(backbones),
            "losses": dict.fromkeys(losses),
            "confirm_seeds": [1, 2, 3],
        }
        self.settings = parse(SweepSettings, raw | settings, "test").model_dump(mode="json")
        self.fingerprints = {name: f"{number:064x}" for number, name in enumerate(data)}
        self.trials, self.selections, self.manifests = [], {}, {}
        self.histories, self.diagnostics = {}, {}

    def trial(
        self, data, backbone, loss, *, seed=0, stage="grid", status="FINISHED", metrics=None, cost=None, **dotted
    ):
        dotted = {"protocol.cutoffs": CUTOFFS, **{key.replace("__", "."): value for key, value in dotted.items()}}
        made = make_trial(self.fingerprints[data], backbone, loss, dotted, task=self.settings["task"], seed=seed)
        run = TrialRun(
            hash=made.hash,
            data=data,
            fingerprint=made.data,
            backbone=backbone,
            loss=loss,
            seed=seed,
            stages=(stage,),
            status=status,
            params={key: str(value) for key, value in made.flat().items()},
            metrics=metrics or {},
            start=0.0,
            end=1.0,
            error=None,
            cost={"seconds": cost, "cpu_seconds": cost, "gpu_seconds": 0.0, "peak_memory": 1e9} if cost else {},
        )
        self.trials.append(run)
        return run

    def select(self, run):
        chosen = Selection((run.hash,), "valid/ndcg_20", run.metrics["best"], run.configuration)
        self.selections[run.data, run.backbone, run.loss] = chosen

    def manifest(self, data, *, items=1000, **settings):
        self.manifests[self.fingerprints[data]] = {
            "sources": [{"name": "u.data", "bytes": 1, "sha256": "0" * 64}],
            "settings": PrepareSettings.model_validate(settings).content(),
            "sizes": {"users": 900, "items": items, "train": 50_000},
            "fingerprint": self.fingerprints[data],
        }

    def evidence(self):
        results = Results("made-up", self.settings, tuple(self.trials), self.selections, self.manifests)
        return Evidence(results, histories=self.histories, diagnostics=self.diagnostics)


def diagnosis(rng, *, threshold=True, shift=0.02, concentration=0.2):
    """As `pipelines.train.diagnostics.diagnose` tells it, of normal scores."""
    positive, negative = rng.normal(0.55, 0.15, 2000).clip(-1, 1), rng.normal(0.0, 0.2, 40_000).clip(-1, 1)
    edges = np.linspace(min(positive.min(), negative.min()), max(positive.max(), negative.max()), 61)
    scores = {"edges": edges.tolist(), "quantile_levels": [0.0, 0.5, 1.0]}
    for kind, values in (("positive", positive), ("negative", negative)):
        quantiles = np.quantile(values, [0, 0.5, 1]).tolist()
        scores[kind] = {"counts": np.histogram(values, edges)[0].tolist(), "quantiles": quantiles}
    gradient = {"top": 0.05, "positive": concentration / 2, "negative": concentration}
    found = {"pairs": 2000, "negatives": 40_000, "scores": scores, "gradient": gradient}
    if threshold:
        exact = rng.normal(0.45, 0.08, 943)
        estimated = exact + rng.normal(shift, 0.03, 943)
        edges = np.linspace(min(exact.min(), estimated.min()), max(exact.max(), estimated.max()), 41)
        joint = np.histogram2d(estimated, exact, [edges, edges])[0].astype(int)
        found["threshold"] = {
            "k": 20,
            "users": 943,
            "edges": edges.tolist(),
            "joint": joint.tolist(),
            "correlation": float(np.corrcoef(exact, estimated)[0, 1]),
            "mean_absolute_error": float(np.abs(estimated - exact).mean()),
            "mean_error": float((estimated - exact).mean()),
        }
    return found


def realistic(data=("ml-100k", "health"), backbones=("mf", "lightgcn"), losses=("bpr", "sl", "psl", "slatk", "talos")):
    """A sweep that has every figure, if it has two data sets at least."""
    sweep = Sweep(data, backbones, losses)
    rng = np.random.default_rng(0)
    for d, name in enumerate(data):
        noise = {"noise": {"kind": "false_positives", "ratio": 0.1 * d}} if d else {}
        sweep.manifest(name, items=1000 * 4**d, **noise)
        for b, backbone in enumerate(backbones):
            for number, loss in enumerate(losses):
                level = 0.25 + 0.012 * math.sin(3 * number + d) + 0.006 * number + 0.01 * b - 0.05 * d
                cell(sweep, rng, name, backbone, loss, level, seconds=0.5 * (1 + number % 5) * 3**d * (b + 1))
    return sweep


def cell(sweep, rng, data, backbone, loss, level, *, seconds):
    """Search over temperatures (and K), selection of the best, three confirmations with all that is known of them."""
    epochs = list(range(5, 65, 5))
    runs = []
    tempered = loss not in ("bpr", "bce", "mse", "ccl", "drrl", "guidedrec", "lambdarank", "lambdaloss", "llpauc",
                            "lambdalossatk", "rsatk", "song", "songatk", "aatp", "bsl")  # fmt: skip
    points = (
        [{"loss__tau": tau} for tau in (0.05, 0.1, 0.2, 0.4)] if tempered else [{"optim__lr": x} for x in (0.1, 0.01)]
    )
    if loss == "talos":
        points += [{"loss__tau": 0.1, "loss__k": k} for k in (5, 50)]
    for point in points:
        best = level - 0.03 * abs(math.log(point.get("loss__tau", 0.12) / 0.12)) + rng.normal(0, 0.002)
        metrics = {"best": best, "seconds": seconds * 60, "epochs": 60.0, "best_epoch": 40.0}
        run = sweep.trial(data, backbone, loss, metrics=metrics, cost=seconds * 66, **point)
        runs.append((best, run, point))
        k = point.get("loss__k", 20)
        if loss == "talos" and point["loss__tau"] == 0.1:
            sweep.histories[run.hash] = {
                f"valid/ndcg_{c}": {40: best * (0.8 + c / 200) - 0.01 * abs(math.log(c / k))} for c in CUTOFFS
            }
    _, chosen, point = max(runs, key=lambda one: one[0])
    sweep.select(chosen)
    for seed in (1, 2, 3):
        metrics = {"best": level, "seconds": seconds * 60, "epochs": 60.0, "best_epoch": 40.0}
        for c in CUTOFFS:
            metrics[f"test/ndcg_{c}"] = level * (0.8 + c / 200) + rng.normal(0, 0.001)
        run = sweep.trial(data, backbone, loss, seed=seed, stage="confirm", metrics=metrics, cost=seconds * 66, **point)
        rate = 8 + 3 * (len(loss) % 5)
        history = {e: level * (1 - math.exp(-e / rate)) + float(rng.normal(0, 0.003)) for e in epochs[: 12 - seed]}
        sweep.histories[run.hash] = {"valid/ndcg_20": history}
        if loss in THRESHOLD_LOSSES:
            rise = {epoch: 0.4 * (1 - math.exp(-epoch / 20)) + float(rng.normal(0, 0.002)) for epoch in history}
            sweep.histories[run.hash]["train/threshold"] = rise
        concentration = min(0.95, 0.1 + 0.06 * (len(loss) % 9) * (1 + 0.3 * seed / 3))
        sweep.diagnostics[run.hash] = diagnosis(rng, threshold=loss in THRESHOLD_LOSSES, concentration=concentration)


@pytest.fixture
def sweep():
    return Sweep()


@pytest.fixture(name="new_sweep")
def give_sweep():
    return Sweep


@pytest.fixture(name="diagnosis")
def give_diagnosis():
    return diagnosis


@pytest.fixture(scope="session", name="realistic")
def give_realistic():
    return realistic
