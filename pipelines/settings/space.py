"""The axes of a search: what the dotted settings of a sweep file, a loss's or a backbone's space leave open."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from pipelines.settings.base import Settings, parse
from recloss.errors import InputError

PLAIN_LISTS = frozenset({"protocol.cutoffs"})
"""Settings whose value is a list; it is no axis."""


class Axis(Settings):
    """What every axis may say."""

    when: dict[str, Any] = Field(default_factory=dict)
    """Other settings of the space and the value (or list of values) under which this axis exists; elsewhere its
    setting keeps its default."""

    @property
    def _condition(self) -> str:
        """As in a sweep file."""
        return ", ".join(f"{key}: {value}" for key, value in self.when.items())

    def exists(self, point: Mapping[str, Any]) -> bool:
        """Whether a point with these values of earlier axes has this axis."""
        return all(key in point and point[key] in as_list(value) for key, value in self.when.items())


class Choices(Axis):
    """A list of values; a fixed setting is a list of one."""

    choices: list[Any] = Field(min_length=1)

    @property
    def open(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.choices) > 1

    @property
    def shown(self) -> str:
        """As in a sweep file."""
        values = f"[{', '.join(map(str, self.choices))}]"
        return f"{{choices: {values}, when: {{{self._condition}}}}}" if self.when else values


class Range(Axis):
    """All numbers from ``low`` to ``high``, both included; whole numbers where both are written without a point."""

    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly in the logarithm."""
    open: ClassVar[bool] = True

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, got low: {self.low}")
        return self

    @property
    def shown(self) -> str:
        """As in a sweep file."""
        log, when = ", log: true" if self.log else "", f", when: {{{self._condition}}}" if self.when else ""
        return f"{{low: {self.low}, high: {self.high}{log}{when}}}"

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def as_list(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def parse_axes(dotted: Mapping[str, Any], where: str) -> dict[str, Choices | Range]:
    """The axes of dotted settings: a list of choices, ``{choices: [...]}``, ``{low: ..., high: ...}`` or a fixed value.

    They come in the order given, but an axis with a condition after those it names.

    Raises:
        InputError: naming the axis and what is wrong with it.
    """
    axes = {key: _parse_axis(key, value, f"{where}: {key}") for key, value in dotted.items()}
    for key, axis in axes.items():
        for other, wanted in axis.when.items():
            _check_condition(f"{where}: {key}: when", axes, other, as_list(wanted))
    ordered: dict[str, Choices | Range] = {}
    while ready := {k: a for k, a in axes.items() if k not in ordered and a.when.keys() <= ordered.keys()}:
        first = next(iter(ready))
        ordered[first] = ready[first]
    if circle := sorted(axes.keys() - ordered.keys()):
        raise InputError(f"{where}: the conditions of {', '.join(circle)} wait for each other")
    return ordered


def _parse_axis(key: str, value: Any, where: str) -> Choices | Range:
    if isinstance(value, Mapping):
        if "choices" in value:
            return parse(Choices, value, where)
        if "low" in value or "high" in value:
            return parse(Range, value, where)
        raise InputError(f"{where}: expected {{choices: [...]}} or {{low: ..., high: ...}}, got {sorted(value)}")
    if isinstance(value, list) and key not in PLAIN_LISTS:
        return parse(Choices, {"choices": value}, where)
    return Choices(choices=[value])


def _check_condition(where: str, axes: Mapping[str, Choices | Range], other: str, wanted: list[Any]) -> None:
    if other not in axes:
        raise InputError(f"{where}: {other!r} is not a setting of this space; give it as a list of choices")
    axis = axes[other]
    if isinstance(axis, Range):
        raise InputError(f"{where}: {other!r} is a range; a condition needs a list of choices")
    if len(axis.choices) > 1:
        for value in wanted:
            if value not in axis.choices:
                raise InputError(f"{where}: {other} never is {value!r} (it is {', '.join(map(str, axis.choices))})")
