"""The base of every model of settings, and reading them from YAML and mappings."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from recloss.errors import InputError, choices


class Settings(BaseModel):
    """Base of every model: unknown keys are refused, values never change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


M = TypeVar("M", bound=Settings)


def parse(model: type[M], raw: Any, where: str) -> M:
    """Validate ``raw``; the first violation becomes one line that starts with ``where``.

    Raises:
        InputError: naming the offending key and what is accepted.
    """
    if not isinstance(raw, Mapping):
        raise InputError(f"{where}: expected a mapping of settings, got {type(raw).__name__}")
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        location = first["loc"]
        if first["type"] == "extra_forbidden":
            *owner, unknown = location
            location = tuple(owner)
            message = choices("setting", str(unknown), _model_at(model, location).model_fields)
        else:
            message = f"{first['msg'].removeprefix('Value error, ')}"
            if first["type"] != "value_error" and first["type"] != "missing":
                message += f", got {first['input']!r}"
        key = ".".join(str(part) for part in location)
        raise InputError(f"{where}: {key + ': ' if key else ''}{message}") from None


def _model_at(model: type[Settings], location: Sequence[Any]) -> type[Settings]:
    """The model of the settings at ``location``."""
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else model
        nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_settings(a)]
        model = nested[0] if nested else model
    return model


def _is_settings(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Settings)


def read_yaml(path: Path) -> Any:
    """Parse a YAML file safely.

    Raises:
        InputError: naming the file and line.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None


def read(model: type[M], path: Path) -> M:
    """Read and validate a YAML file."""
    return parse(model, read_yaml(path), str(path))
