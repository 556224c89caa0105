"""What sharing the negatives of a batch costs in quality: Recall@20 on Health, three seeds; writes docs/results.

    RECLOSS_DATA=... python benchmarks/shared_negatives.py

MF with SL (tau 0.2, lr 0.1, N = 1,024) is trained for 40 epochs, without selection, with `uniform` negatives for each
positive and with `shared` ones for a batch, and scored on the test split.
"""

import os
import statistics
from pathlib import Path

import torch
from common import machine
from data_sets import load

from recloss.backbones import build as build_backbone
from recloss.evaluation import evaluate
from recloss.losses import SL
from recloss.sampling import build_sampler
from recloss.training import FitSettings, fit

PAGE = Path(__file__).parents[1] / "docs" / "results" / "shared_negatives.md"
SEEDS, EPOCHS = (0, 1, 2), 40


def trained(sampler: str, seed: int) -> tuple[float, float]:
    """Test Recall@20, and seconds per epoch."""
    data = load("health")
    backbone = build_backbone("mf", {}, data.train, seed)
    settings = FitSettings(lr=0.1, epochs=EPOCHS, negatives=1024, valid_every=EPOCHS, seed=seed)
    result = fit(backbone, SL(tau=0.2), data.train, data.test, settings, sampler=build_sampler(sampler, {}, data.train))
    recall = evaluate(backbone, "cosine", data.test, [data.train], [20]).mean()["recall_20"]
    return recall, result.history[-1].seconds / EPOCHS


def main() -> None:
    assert "RECLOSS_DATA" in os.environ, "RECLOSS_DATA must name the folder of the real data sets"
    title = __doc__.partition("\n")[0].split("; writes")[0]
    lines = [f"{title}.", "", "| negatives | Recall@20 | s / epoch |", "|---|---|---|"]
    for sampler in ("uniform", "shared"):
        runs = [trained(sampler, seed) for seed in SEEDS]
        recall, seconds = ([run[i] for run in runs] for i in (0, 1))
        mean, deviation = statistics.mean(recall), statistics.stdev(recall)
        lines.append(f"| `{sampler}` | {mean:.4f} ± {deviation:.4f} | {statistics.median(seconds):.2f} |")
        print(lines[-1], flush=True)
    found = machine()
    about = __doc__.split("\n\n")[2].strip().replace("\n", " ")
    PAGE.write_text(
        "# Shared negatives\n\nWritten by `python benchmarks/shared_negatives.py`. "
        + "\n".join(lines)
        + f"\n\n{about} Mean ± standard deviation (n - 1) over seeds {', '.join(map(str, SEEDS))}. {found['CPU']}; "
        f"{torch.get_num_threads()} threads; native kernels {found['native kernels']}.\n"
    )


if __name__ == "__main__":
    main()
