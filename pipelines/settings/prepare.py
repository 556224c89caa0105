"""How a raw log becomes a prepared dataset."""

from typing import Any, Literal

from pydantic import Field

from pipelines.settings.base import Settings


class Columns(Settings):
    """Names of the columns of a CSV or Parquet log; ``rating`` and ``timestamp`` may be absent."""

    user: str = "user"
    item: str = "item"
    rating: str | None = None
    timestamp: str | None = None


class PrepareSettings(Settings):
    """How a raw log becomes a prepared dataset; recorded in its manifest."""

    format: Literal["movielens", "csv", "parquet", "auto"] = "auto"
    columns: Columns = Columns()
    min_rating: float | None = None
    """Interactions with a lower rating are dropped; needs a rating column."""
    k_core: int = Field(default=1, ge=1)
    """Every user and item keeps at least this many interactions (iterated to the fixed point); 1 keeps all."""
    split: Literal["iid"] = "iid"
    test_ratio: float = Field(default=0.2, gt=0, lt=1)
    """Per user, ceil(test_ratio * n) interactions are test ..."""
    valid_ratio: float = Field(default=0.1, gt=0, lt=1)
    """... and ceil(valid_ratio * rest) are validation."""
    split_seed: int = Field(default=0, ge=0)

    def content(self) -> dict[str, Any]:
        """What determines the prepared dataset: everything but how the format was named."""
        return self.model_dump(mode="json", exclude={"format"})
