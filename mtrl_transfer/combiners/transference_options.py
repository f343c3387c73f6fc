"""Which options of the `Transference` combiner exist, and go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtrl_transfer import leads, measures, scales
from mtrl_transfer.choices import check_choice
from mtrl_transfer.proposals import Listed

if TYPE_CHECKING:
    from mtrl_transfer.combiners.transference import Transference

LOOKAHEAD_BATCHES = ("held_out", "same")
CONTINUOUS = "continuous"


def check_options(options: Transference) -> None:
    """Raise `ValueError` for an option out of range, or one that does not go with another."""
    check_choice("measure", options.measure, measures.MEASURES)
    check_choice("scale", options.scale, ("auto", *scales.SCALES))
    check_choice("lookahead_batch", options.lookahead_batch, LOOKAHEAD_BATCHES)
    if options.inner is not None:
        check_choice("inner", options.inner, ("pcgrad",))
    if isinstance(options.step_size, str):
        check_choice("step_size", options.step_size, ("matched", "optimizer"))
    elif not options.step_size > 0:
        raise ValueError(f"step_size={options.step_size} must be positive, or 'matched' or 'optimizer'")
    for name in ("every", "lookahead_rows", "max_norm_factor", "max_absence"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    if not 0 <= options.smoothing < 1:
        raise ValueError(f"smoothing={options.smoothing} must be at least 0 and below 1")
    if options.confidence is not None and not options.confidence >= 0:
        raise ValueError(f"confidence={options.confidence} must be at least 0")
    _check_together(options)


def _check_together(options: Transference) -> None:
    if options.confidence is not None and not options.smoothing:
        raise ValueError(f"confidence={options.confidence} is of a running mean; that needs smoothing, e.g. 0.95")
    if options.confidence is not None and leads.updates_averaged(options.smoothing) < leads.LEAST:
        raise ValueError(
            f"smoothing={options.smoothing} averages {leads.updates_averaged(options.smoothing):.1f} updates; "
            f"confidence needs at least {leads.LEAST}: smoothing=0.82 or more"
        )
    if options.step_size == "optimizer" and options.measure != "exact":
        raise ValueError(f"step_size='optimizer' is not linear in the weights; measure={options.measure!r} needs that")
    if is_named(options.candidates, CONTINUOUS) and options.measure == "exact":
        raise ValueError("candidates='continuous' needs measure='basis' or 'first_order'")
    if is_named(options.candidates, CONTINUOUS) and (options.inner or options.smoothing):
        raise ValueError("candidates='continuous' is searched; that needs inner=None and smoothing=0")
    if options.max_absence is not None and options.max_absence < options.every:
        raise ValueError(f"max_absence={options.max_absence} cannot be kept: a choice stands for every={options.every}")


def is_named(candidates: Listed, name: str) -> bool:
    """Whether the candidates are the one family of that name (they may also be a list, or a tensor)."""
    return isinstance(candidates, str) and candidates == name
