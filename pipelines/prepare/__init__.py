"""Raw interaction logs to prepared datasets: read, clean, k-core, index, split, write, load."""

from pipelines.prepare.dataset import Prepared, load
from pipelines.prepare.run import prepare

__all__ = ["Prepared", "load", "prepare"]
