"""How a raw log becomes a prepared dataset."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from pipelines.settings.base import Settings


class Columns(Settings):
    """Names of the columns of a CSV or Parquet log; ``rating`` and ``timestamp`` may be absent."""

    user: str = "user"
    item: str = "item"
    rating: str | None = None
    timestamp: str | None = None


class KCore(Settings):
    """Interactions that every user and every item must have; one number stands for both."""

    users: int = Field(default=1, ge=1)
    items: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _both(cls, raw: Any) -> Any:
        return raw if isinstance(raw, Mapping | KCore) else {"users": raw, "items": raw}

    @model_serializer
    def _short(self) -> int | dict[str, int]:
        return self.users if self.users == self.items else {"users": self.users, "items": self.items}


class Noise(Settings):
    """Noise that is put into the training split on purpose, for studies of robustness."""

    kind: Literal["false_positives", "false_negative_pool"]
    """``false_positives``: per user ceil(ratio * n) items outside train, valid and test are added to the n training
    items. ``false_negative_pool``: int(ratio * n) of all n training pairs, drawn once, are false negatives."""
    ratio: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    keep_as_positive: bool = False
    """The pairs of the pool stay in train too (false_negative_pool)."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.keep_as_positive and self.kind != "false_negative_pool":
            raise ValueError(f"keep_as_positive has no effect with kind {self.kind!r}, only with 'false_negative_pool'")
        return self


EFFECTIVE = {
    "iid": {"test_ratio", "valid_ratio", "rounding"},
    "temporal": {"test_ratio", "gap_ratio", "valid_ratio", "rounding"},
    "leave_last": {"test_last", "valid_last"},
    "popularity": {"test_ratio", "valid_ratio", "rounding"},
    "given": {"valid_ratio", "rounding", "ids"},
}
"""Settings that not every split reads, by split."""
_SOMETIMES = set().union(*EFFECTIVE.values())
OF_TASK: dict[str, dict[str, Any]] = {"sequence": {"keep": "all", "split": "leave_last"}}
"""Defaults that differ in a task from those of pairs, by task."""


WHOLE = {
    "rank": {"test_ratio", "valid_ratio", "split_seed"},
    "link": {"split_seed", "negatives", "negatives_per_edge"},
}
"""Settings that have an effect on data that is no log of interactions, by task."""


class PrepareSettings(Settings):
    """How a raw log becomes a prepared dataset; recorded in its manifest."""

    task: Literal["pairs", "sequence", "rank", "link"] = "pairs"
    """What is prepared. ``sequence``: each user's items in the order of time, an item may come again. ``rank``: judged
    documents of queries. ``link``: a graph."""
    format: str = "auto"
    """A format of the log (``recloss prepare --help`` lists them); ``auto`` recognises what it safely can."""
    columns: Columns = Columns()
    timestamp_unit: Literal["auto", "s", "ms"] = "auto"
    on_bad_row: Literal["error", "skip"] = "error"
    """The first malformed row ends the preparation, or malformed rows are left out, counted and sampled."""
    min_rating: float | None = None
    """Interactions with a lower rating are dropped; needs a rating column."""
    keep: Literal["any", "first", "last", "all"] = "any"
    """Which of repeated (user, item) pairs stays; ``first`` and ``last`` need a timestamp column. ``all`` is the
    default of sequences, and theirs alone."""
    k_core: KCore = KCore()
    """Every user and item keeps at least this many interactions (iterated to the fixed point); 1 keeps all."""
    split: Literal["iid", "temporal", "leave_last", "popularity", "given"] = "iid"
    """``iid``: per user, at random. ``temporal``: one cut in time for all. ``leave_last``: the last ones of each
    user (the default of sequences, and the only one). ``popularity``: test items are drawn uniformly (PSL).
    ``given``: the log's own train and test files."""
    test_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Part of the interactions that is test (iid: of each user's) ..."""
    valid_ratio: float = Field(default=0.1, gt=0, lt=1)
    """... and part of each user's others that is validation."""
    rounding: Literal["ceil", "int"] = "ceil"
    """Per user: ceil(test_ratio * n) test and ceil(valid_ratio * rest) validation interactions; or
    int((1 - test_ratio) * n) that are not test, of them max(int(valid_ratio * rest), 1) validation (SL@K, PSL)."""
    gap_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Part of all interactions, before the test ones in time, that is left out (temporal)."""
    test_last: int = Field(default=1, ge=1)
    """Interactions of each user that are test ..."""
    valid_last: int = Field(default=1, ge=1)
    """... and before them, validation (leave_last)."""
    split_seed: int = Field(default=0, ge=0)
    ids: Literal["listed", "occurring", "range"] = "listed"
    """The catalogue of a given split: the ids of its list files and all that occur; only those that occur; or every
    integer from 0 to the largest."""
    noise: Noise | None = None
    hash_ids: bool = False
    """User ids are replaced by their HMAC-SHA256 with the key in the environment variable RECLOSS_HASH_KEY."""
    negatives: Literal["random", "hard"] = "random"
    """What an edge of validation or test is ranked against (link): pairs with one of its nodes and another one that is
    not linked with it, drawn uniformly, or those that most resemble edges (as HeaRT's)."""
    negatives_per_edge: int = Field(default=500, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_task(cls, raw: Any) -> Any:
        return {**OF_TASK.get(str(raw.get("task")), {}), **raw} if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _fit_the_task(self) -> Self:
        if self.task != "sequence":
            if self.keep == "all":
                raise ValueError("keep 'all' can be used with task 'sequence' alone; accepted here: any, first, last")
            return self
        if self.split != "leave_last":
            raise ValueError(
                f"split {self.split!r} cannot be used with task 'sequence'; accepted: leave_last, which takes the last "
                "interactions of each user for validation and test"
            )
        if self.noise:
            raise ValueError("noise cannot be used with task 'sequence': what is added has no place in a sequence")
        if self.split_seed:
            raise ValueError("split_seed has no effect with task 'sequence': its split draws nothing")
        return self

    @model_validator(mode="after")
    def _have_effect_in_task(self) -> Self:
        for name, field in type(self).model_fields.items():
            fitting = [task for task, names in WHOLE.items() if name in names]
            logs = name not in ("negatives", "negatives_per_edge")
            effective = self.task in fitting if self.task in WHOLE else logs
            if name == "task" or effective or getattr(self, name) == field.default:
                continue
            accepted = [*(["pairs", "sequence"] if logs else []), *fitting]
            raise ValueError(f"{name} has no effect with task {self.task!r}, only with {', '.join(accepted)}")
        return self

    @model_validator(mode="after")
    def _have_effect(self) -> Self:
        for name in sorted(_SOMETIMES - EFFECTIVE[self.split]):
            if getattr(self, name) != type(self).model_fields[name].default:
                splits = ", ".join(split for split, names in EFFECTIVE.items() if name in names)
                raise ValueError(f"{name} has no effect with split {self.split!r}, only with {splits}")
        if self.split == "temporal" and self.test_ratio + self.gap_ratio >= 1:
            raise ValueError("test_ratio and gap_ratio must leave something for training: their sum must be below 1")
        if self.split == "given":
            for name in ("min_rating", "keep", "k_core"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} cannot be used with split 'given', which is taken as it is")
        return self

    @model_serializer(mode="wrap")
    def _effective(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        if self.task in WHOLE:
            return {name: value for name, value in handler(self).items() if name in WHOLE[self.task] | {"task"}}
        without = (_SOMETIMES - EFFECTIVE[self.split]) | WHOLE["link"] - {"split_seed"}
        without |= {"task"} if self.task == "pairs" else set()
        return {name: value for name, value in handler(self).items() if name not in without}

    def content(self) -> dict[str, Any]:
        """What determines the prepared dataset: all that has an effect, but not how the format was named.

        Without ``task`` it means pairs, as in manifests from before there were other tasks.
        """
        return self.model_dump(mode="json", exclude={"format"})

    def equal(self, recorded: Mapping[str, Any]) -> bool:
        """Whether the settings in a manifest, which may lack some that are newer than it, mean the same."""
        try:
            return type(self).model_validate(recorded).content() == self.content()
        except ValidationError:
            return False


class EngineSettings(Settings):
    """Where a preparation runs and what it may use; no part of its result."""

    engine: Literal["auto", "local", "ray"] = "auto"
    """Threads of this process, or Ray Data; ``auto`` goes by the size of the log."""
    workers: int | None = Field(default=None, ge=1)
    """Threads, or CPUs of a Ray that is started for it; by default all there are."""
    memory: ByteSize | None = None
    """Object store of a Ray that is started for it, such as 4GB; what does not fit is spilled to disk."""
