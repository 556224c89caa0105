"""Results as a tracking store returns them, made up."""

import dataclasses

import pytest

from pipelines.settings import PrepareSettings, SweepSettings, make_trial, parse
from pipelines.tracking import Results, Selection, TrialRun

FINGERPRINT = "0123456789abcdef" * 4


class Fabric:
    """Collects trials and selections; `results` is what a report would read."""

    def __init__(self):
        self.raw = {
            "name": "duel",
            "data": [{"name": "ml-100k", "path": "p"}],
            "backbones": {"mf": None},
            "losses": {"bpr": None, "talos": None},
            "confirm_seeds": [1, 2, 3],
        }
        self.trials = []
        self.selections = {}
        self.manifests = {}

    def trial(self, loss, *, seed=0, stage="grid", scores=None, status="FINISHED", error=None, **where):
        data, backbone = where.get("data", "ml-100k"), where.get("backbone", "mf")
        dotted = {key.replace("__", "."): value for key, value in where.items() if "__" in key}
        made = make_trial(where.get("fingerprint", FINGERPRINT), backbone, loss, dotted, seed=seed)
        self.trials.append(
            TrialRun(
                hash=made.hash,
                data=data,
                fingerprint=made.data,
                backbone=backbone,
                loss=loss,
                seed=seed,
                stages=(stage,),
                status=status,
                params={key: str(value) for key, value in made.flat().items()},
                metrics={"seconds": 2.0, **(scores or {})} if status == "FINISHED" else {},
                start=float(len(self.trials)),
                end=None,
                error=error,
            )
        )
        return self.trials[-1]

    def cell(self, loss, ndcg, *, seeds=(1, 2, 3), **where):
        """A cell with one grid trial, selected, and confirmed with these test NDCGs."""
        grid = self.trial(loss, **where)
        self.select(grid)
        for seed, value in zip(seeds, ndcg, strict=True):
            scores = {"test/ndcg_20": value, "test/recall_20": value / 2}
            self.trial(loss, seed=seed, stage="confirm", scores=scores, **where)

    def select(self, grid, value=0.5):
        chosen = Selection((grid.hash,), "valid/ndcg_20", value, grid.configuration)
        self.selections[grid.data, grid.backbone, grid.loss] = chosen

    def results(self, **settings):
        resolved = parse(SweepSettings, self.raw | settings, "test").model_dump(mode="json")
        return Results("duel", resolved, tuple(self.trials), self.selections, self.manifests)

    def manifest(self, fingerprint, *, sha256="0" * 64, **settings):
        """The record of how this content was prepared."""
        self.manifests[fingerprint] = {
            "sources": [{"name": "u.data", "bytes": 1, "sha256": sha256}],
            "settings": PrepareSettings.model_validate(settings).content(),
            "sizes": {"users": 5, "items": 6, "train": 7},
            "fingerprint": fingerprint,
        }

    def rename(self, **changes):
        """Change every trial, as a store written by someone else could hold it."""
        self.trials = [dataclasses.replace(trial, **changes) for trial in self.trials]


@pytest.fixture
def fabric():
    return Fabric()
