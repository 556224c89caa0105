"""Files of a training run, written whole or not at all."""

import os
from pathlib import Path
from typing import Any

import torch


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain Python values; ``path`` holds either the old or the new state, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep it full
        raise


def load_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read what ``save_atomically`` wrote; nothing but tensors and plain values is ever unpickled.

    With ``mmap`` the tensors are read from the file when they are needed.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for a damaged file
        raise ValueError(f"{path}: the checkpoint is damaged ({error})".splitlines()[0]) from error
