"""Figures and the layout of scalars in TensorBoard, for someone who has never seen the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as MatplotlibFigure
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, TensorBoardOutputFormat

from mtrl_transfer.agents.monitoring.figures import heatmap, left_out_shares, scatter
from mtrl_transfer.agents.monitoring.similarity import covariance_similarities, rank_correlation
from mtrl_transfer.agents.monitoring.timing import counted
from mtrl_transfer.update import Update

TENSORBOARD_ONLY = ("stdout", "log", "json", "csv")


LAYOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "1 success": {
        "mean success (evaluation, training)": ("success/mean", "train_success/mean"),
        "success by task (evaluation)": ("success/{task}",),
        "success by task (training)": ("train_success/{task}",),
        "mean return": ("return/mean", "train_return/mean"),
        "return by task (evaluation)": ("return/{task}",),
    },
    "2 learning health": {
        "critic loss": ("critic_loss/{task}",),
        "Q": ("q/{task}",),
        "policy entropy": ("entropy/{task}",),
        "temperature α": ("alpha/{task}",),
        "norm of the critic's task gradients": ("grad_norm_critic/{task}",),
        "norm of the actor's task gradients": ("grad_norm_actor/{task}",),
        "spread of the critic's features": ("feature_spread_critic/{task}",),
        "spread of the actor's features": ("feature_spread_actor/{task}",),
    },
    "3 transference": {
        "predicted against realised improvement (correlation)": (
            "transference/critic_correlation",
            "transference/actor_correlation",
            "transference/critic_correlation_first_order",
            "transference/actor_correlation_first_order",
        ),
        "exact and first order choose alike (share)": ("transference/critic_agreement", "transference/actor_agreement"),
        "likeness of data and transference (rank correlation)": (
            "transference/critic_input_similarity_correlation",
            "transference/critic_feature_similarity_correlation",
            "transference/actor_input_similarity_correlation",
            "transference/actor_feature_similarity_correlation",
        ),
        "kept by the critic (share of updates)": ("kept_critic/{task}",),
        "kept by the actor (share of updates)": ("kept_actor/{task}",),
        "what a task gives all others, critic": ("given_critic/{task}",),
        "what a task gives all others, actor": ("given_actor/{task}",),
    },
    "4 cost": {
        "seconds so far": (
            "time/environment_seconds",
            "time/update_seconds",
            "time/transference_seconds",
            "time/evaluation_seconds",
            "time/logging_seconds",
        ),
        "share of logging and figures in the time of training": ("time/logging_share",),
        "transitions per second": ("time/fps",),
        "updates per second": ("time/updates_per_second",),
    },
}
"""Categories, their charts and the charts' tags: success first, then learning health, transference and cost."""


def scalar_layout(task_names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's *Custom Scalars*: :data:`LAYOUT` with a line for each task.

    Args:
        task_names: in order.

    Returns:
        Category -> chart -> ``["Multiline", tags]``, as ``SummaryWriter.add_custom_scalars`` takes it.
    """

    def lines(tag: str) -> list[str]:
        return [tag.format(task=name) for name in task_names] if "{task}" in tag else [tag]

    return {
        category: {
            title: ["Multiline", [line for tag in tags for line in lines(tag)]] for title, tags in charts.items()
        }
        for category, charts in LAYOUT.items()
    }


class TransferenceFigures(BaseCallback):
    """Shows in TensorBoard what helps what, and arranges the scalars there.

    Every ``every`` vector steps, for critic and actor: pairwise transference and gradient cosine as heatmaps (means
    since the last figure), beside them the covariance similarity of observations and trunk features, the share of
    updates in which each task was left out, predicted against realised improvement, and a histogram of chosen
    candidates (0 is the full set, ``t + 1`` leaves task ``t`` out in the default family). What was not measured
    (``measure_every=None``) or not chosen is not shown.

    Args:
        every: vector steps between figures, at least 1.

    Attributes:
        seconds: spent on figures so far; they are part of ``time/logging_seconds``.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every={every} must be at least 1 vector step")
        self.every = every
        self.seconds = 0.0
        self._steps: list[int] = []
        self._left_out: dict[str, list[np.ndarray]] = {}
        self._counted: dict[str, tuple[np.ndarray, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        """What the next figures go on from."""
        counted = {role: {"kept": kept, "n_updates": n_updates} for role, (kept, n_updates) in self._counted.items()}
        return {"seconds": self.seconds, "steps": self._steps, "left_out": self._left_out, "counted": counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.seconds, self._steps, self._left_out = state["seconds"], state["steps"], state["left_out"]
        self._counted = {role: (one["kept"], one["n_updates"]) for role, one in state["counted"].items()}

    def _on_training_start(self) -> None:
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.writer.add_custom_scalars(scalar_layout(self.model.task_names))

    def _on_step(self) -> bool:
        if self.n_calls % self.every == 0 and self.model._n_updates > 0:
            self.draw()
        return True

    def draw(self) -> None:
        """Record the figures now."""
        before = self.model.timing["logging"]
        with counted(self.model.timing, "logging"):
            self._draw_all()
            self.logger.dump(self.num_timesteps)
        self.seconds += self.model.timing["logging"] - before

    def _draw_all(self) -> None:
        self._steps.append(self.num_timesteps)
        measured = {role: update.measurement.maps.flush() for role, update in self.model.updates.items()}
        self._draw_similarities({role: maps["pairwise"].numpy() for role, maps in measured.items() if maps})
        for role, update in self.model.updates.items():
            self._draw_maps(role, measured[role])
            self._draw_left_out(role, update)
            self._draw_scatter(role, update)
            self._record_choices(role, update)
        self.logger.record("time/figures_seconds", self.seconds)

    def _record(self, tag: str, figure: MatplotlibFigure) -> None:
        self.logger.record(tag, Figure(figure, close=True), exclude=TENSORBOARD_ONLY)

    def _draw_similarities(self, pairwise: dict[str, np.ndarray]) -> None:
        """How alike the tasks' data are, beside what was measured of their transference, and whether the two agree."""
        if not pairwise:
            return
        generator = torch.Generator(self.model.device).manual_seed(self.num_timesteps)
        found, names = covariance_similarities(self.model, generator), self.model.task_names
        figure = heatmap(found["inputs"], names, "Covariance similarity of observations", "", "")
        self._record("1_what_helps_what/input_similarity", figure)
        for role, transference in pairwise.items():
            figure = heatmap(found[role], names, f"{role.capitalize()}: covariance similarity of features", "", "")
            self._record(f"1_what_helps_what/{role}_feature_similarity", figure)
            for kind, similarity in (("input", found["inputs"]), ("feature", found[role])):
                tag = f"transference/{role}_{kind}_similarity_correlation"
                self.logger.record(tag, rank_correlation(similarity, transference), exclude="stdout")

    def _draw_maps(self, role: str, maps: dict[str, torch.Tensor]) -> None:
        names = self.model.task_names
        if "pairwise" in maps:
            title = f"{role.capitalize()}: who helps (blue) or harms (red) whom"
            figure = heatmap(maps["pairwise"].numpy(), names, title, "this task's step ...", "... helps that task")
            self._record(f"1_what_helps_what/{role}_transference", figure)
            title = f"{role.capitalize()}: cosine of task gradients"
            figure = heatmap(maps["cosine"].numpy(), names, title, "", "")
            self._record(f"1_what_helps_what/{role}_gradient_cosine", figure)

    def _draw_left_out(self, role: str, update: Update[Any]) -> None:
        kept, n_updates = update.kept.cpu().numpy().copy(), int(update.n_combined)
        before, n_before = self._counted.get(role, (np.zeros_like(kept), 0))
        self._counted[role] = (kept, n_updates)
        shares = 1.0 - (kept - before) / max(n_updates - n_before, 1)
        history = self._left_out.setdefault(role, [])
        history.append(shares)
        if np.any(history):
            figure = left_out_shares(
                self._steps, np.stack(history), self.model.task_names, f"{role.capitalize()} left out"
            )
            self._record(f"3_left_out/{role}", figure)

    def _draw_scatter(self, role: str, update: Update[Any]) -> None:
        pairs = update.measurement.pairs
        if pairs:
            predicted, realised = torch.stack(list(pairs)).cpu().numpy().swapaxes(0, 1)
            title = f"{role.capitalize()}: did predictions come true?"
            figure = scatter(predicted, realised, self.model.task_names, title)
            self._record(f"2_predicted_realised/{role}", figure)

    def _record_choices(self, role: str, update: Update[Any]) -> None:
        if update.choices is not None:
            counts = update.choices.cpu()
            chosen = torch.arange(len(counts)).repeat_interleave(counts)
            update.choices.zero_()
            if len(chosen):
                self.logger.record(f"choices/{role}", chosen, exclude=TENSORBOARD_ONLY)
