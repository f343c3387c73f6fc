"""The questions that a combiner may ask about one update, beyond the Gramian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol

from torch import Tensor

from mtrl_transfer.gradients import TaskGradients


class Expansion(NamedTuple):
    """First order of the losses in the weights, about the end of one step `d = θ_1 − θ`.

    - `before`: `[T]`, losses at `θ`.
    - `losses`: `[T]`, losses at `θ_1`.
    - `slopes`: `[T receiver, T giver]`, `∂L_j/∂w_t` at `θ_1`.
    - `along`: `[T]`, `⟨d, ∇L_j(θ_1)⟩`.
    - `shares`: `[T giver]`, `⟨∂d/∂w_t, d⟩ / ‖d‖²`, the part of the step that a unit of each weight adds; 0 without a
      step.
    """

    before: Tensor
    losses: Tensor
    slopes: Tensor
    along: Tensor
    shares: Tensor


class Lookahead(Protocol):
    """Losses at the end of steps `θ_w = θ − η Σ_t w_t g_t`, on rows that are drawn when first needed.

    Candidates are `weights [K, T]`. Nothing here changes parameters, gradients or foreign random streams, and all
    products are float32.
    """

    def on(self, rows: int | None = None, held_out: bool = True) -> Lookahead:
        """Return the same lookahead on other rows.

        Args:
            rows: of each task; None: as many as the caller chose.
            held_out: rows that the gradients have not seen; False: the first of the gradients' own rows.
        """

    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses `[K, T]` at `θ_w`; `step_size=None` is the matched one (see `steps`)."""

    def row_losses(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses of single rows `[K, T, rows]` at `θ_w`."""

    def after_optimizer(self, weights: Tensor) -> Tensor:
        """Losses `[1 + K, T]`: at `θ`, and where the trunk's optimizer would go with each candidate's gradient."""

    def rows_after_optimizer(self, weights: Tensor) -> Tensor:
        """Losses of single rows `[1 + K, T, rows]`, as `after_optimizer`."""

    def after_horizon(self, weights: Tensor, steps: int) -> Tensor:
        """Losses of single rows `[1 + K, T, rows]`: at `θ`, and after steps of the optimizer, on fresh rows each."""

    def gradients_at(self, weights: Tensor, step_size: Tensor | float | None = None) -> TaskGradients:
        """Losses and task gradients at the end of one candidate's step, `weights [T]`; zeros: at `θ`."""

    def expand(self, weights: Tensor, step_size: Tensor | float | None = None) -> Expansion:
        """First order of the losses about the end of the step of `weights [T]`."""

    def expand_after_optimizer(self, weights: Tensor) -> Expansion:
        """First order of the losses about where the optimizer would go with `weights [T]`."""

    def held_out_gramian(self) -> Tensor:
        """Inner products `[T giver, T receiver]` of the task gradients with those at `θ` on the lookahead's rows."""

    def slopes_of_last_step(self, step_size: Tensor | None) -> Tensor | None:
        """Derivatives `[T receiver, T giver]` of this update's losses by the weights of the step before it.

        `−η ⟨g_t, h_j⟩`, with the task gradients `g_t` of the step before and this update's `h_j`. None if no step came
        before.

        Args:
            step_size: `η`; None: the derivative of the optimizer's step in place of `−η`.
        """

    def predictions(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """The network's predictions `[K, T, ...]` at `θ_w`."""

    def loss_of(self, predictions: Tensor) -> Tensor:
        """Losses `[T]` of predictions `[T, ...]`, differentiable twice."""


class FunctionLookahead:
    """A `Lookahead` made of functions; its rows are always the same.

    Args:
        losses: `losses(weights [K, T], step_size) -> [K, T]`.
        **answers: functions for other methods of `Lookahead`, by name; the rest raise ValueError.
    """

    def __init__(self, losses: Callable[..., Tensor], **answers: Callable[..., Any]) -> None:
        self.losses = losses
        for name, answer in answers.items():
            setattr(self, name, answer)

    def on(self, rows: int | None = None, held_out: bool = True) -> FunctionLookahead:
        """Return itself."""
        return self

    def __call__(self, weights: Tensor, step_size: Tensor | float | None = None) -> Tensor:
        """Losses `[K, T]`."""
        return self.losses(weights, step_size)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ValueError(
            "context.lookahead is a plain function, which gives losses of candidates and nothing else; this measure "
            "asks for more: see `make_context` or `FunctionLookahead`"
        )

    row_losses = after_optimizer = rows_after_optimizer = after_horizon = gradients_at = _refuse
    expand = expand_after_optimizer = held_out_gramian = slopes_of_last_step = predictions = loss_of = _refuse


@dataclass(kw_only=True)
class Context:
    """One update, as a combiner sees it. Nothing here may change parameters, gradients or foreign random streams.

    Attributes:
        losses: `[T]`, the tasks' losses on the rows that gave the gradients.
        scales: `[T]`, magnitude of each loss at this instant, for losses whose own value says little (the standard
            deviation over rows, for an actor). None: the absolute loss.
        signed: True if losses may be negative; ratios of losses then mean nothing.
        step_norm: `[]`, norm of the trunk's last real step; 0 before the first.
        lookahead: losses at the end of candidates' steps; a plain function `(weights, step_size) -> losses` is wrapped.
    """

    losses: Tensor
    scales: Tensor | None = None
    signed: bool = False
    step_norm: Tensor | None = None
    lookahead: Lookahead | None = None

    def __post_init__(self) -> None:
        if self.lookahead is not None and not hasattr(self.lookahead, "on"):
            self.lookahead = FunctionLookahead(self.lookahead)
