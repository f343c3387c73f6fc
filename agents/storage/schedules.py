"""Learning-rate schedules of stable-baselines3 as JSON."""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

_FIELDS: dict[type, tuple[str, ...]] = {
    ConstantSchedule: ("val",),
    FloatSchedule: ("value_schedule",),
    LinearSchedule: ("start", "end", "end_fraction"),
}
_KINDS = {kind.__name__: kind for kind in _FIELDS}
OBJECT = "object: "
"""Begins the text that stands for an object that is not stored."""


def schedule_to_json(rate: Any) -> Any:
    """A number as itself, a schedule of SB3 as ``{"LinearSchedule": {"start": ...}}``, any other function as text."""
    if type(rate) in _FIELDS:
        return {type(rate).__name__: {name: schedule_to_json(getattr(rate, name)) for name in _FIELDS[type(rate)]}}
    return f"{OBJECT}{rate!r}" if callable(rate) else rate


def schedule_from_json(data: Any) -> Any:
    """Inverse of `schedule_to_json`; text stays text.

    Raises:
        ValueError: for a schedule that does not exist.
    """
    if not isinstance(data, dict):
        return data
    ((kind, fields),) = data.items()
    if kind not in _KINDS:
        raise ValueError(f"learning_rate={data} is no schedule of stable-baselines3")
    return _KINDS[kind](**{name: schedule_from_json(value) for name, value in fields.items()})
