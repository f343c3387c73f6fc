"""Callbacks for multi-task training: evaluation, figures in TensorBoard, records of transference."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, Logger, TensorBoardOutputFormat
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer import Record, Recorder
from mtrl_transfer.agents.evaluation import Evaluation, check_evaluation_env, evaluate
from mtrl_transfer.agents.monitoring.features import covariance_similarities, rank_correlation
from mtrl_transfer.agents.monitoring.layout import TENSORBOARD_ONLY, scalar_layout
from mtrl_transfer.agents.monitoring.timing import counted
from mtrl_transfer.agents.storage.outage import Outage, Tell
from mtrl_transfer.agents.tasks import task_names_of
from mtrl_transfer.choices import check_whole
from mtrl_transfer.scales import divide
from mtrl_transfer.update import Update

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure


@contextlib.contextmanager
def logged_alone(logger: Logger, step: int) -> Iterator[None]:
    """Write the records of a ``with`` block at once; waiting records, such as ``train/`` tags, go into the next log."""
    parts = (logger.name_to_value, logger.name_to_count, logger.name_to_excluded)
    waiting = [dict(part) for part in parts]
    for part in parts:
        part.clear()
    yield
    logger.dump(step)
    for part, before in zip(parts, waiting, strict=True):
        part.update(before)


class MultiTaskEvalCallback(BaseCallback):
    """Evaluate every task regularly; keep the best agent by mean success, ties by mean return of the solvable tasks.

    Records ``success/<task>``, ``success/mean``, ``return/<task>`` and ``return/mean`` at the evaluation's step, and
    ``time/training_seconds``: the seconds of environments, updates and transference until then.

    Args:
        eval_env: environment other than the training's, see [mtrl_transfer.agents.evaluate][]. It is
            checked when training begins. A ``VecNormalize`` gets the training's statistics, as in SB3.
        eval_freq: vector steps between evaluations.
        n_eval_episodes: episodes per task.
        best_model_save_path: folder for ``best_model.zip``; None: it is not saved.
        verbose: 1 prints each result.
        tell: takes a line for the user if the best agent cannot be saved; training goes on.

    Attributes:
        last: latest [mtrl_transfer.agents.Evaluation][], None before the first.
        best_score: mean success and mean return of the best agent so far, None before the first evaluation.
        seconds: spent in evaluation so far.
    """

    def __init__(
        self,
        eval_env: VecEnv,
        eval_freq: int = 10_000,
        n_eval_episodes: int = 50,
        best_model_save_path: str | Path | None = None,
        verbose: int = 0,
        tell: Tell = warnings.warn,
    ) -> None:
        super().__init__(verbose)
        task_names_of(eval_env)
        check_whole("eval_freq", eval_freq)
        check_whole("n_eval_episodes", n_eval_episodes)
        self.eval_env, self.eval_freq, self.n_eval_episodes = eval_env, eval_freq, n_eval_episodes
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.last: Evaluation | None = None
        self.best_score: tuple[float, float] | None = None
        self.seconds = 0.0
        self._outage = Outage("best_model.zip", "the next that is better than the one there is tried", tell)

    def state_dict(self) -> dict[str, Any]:
        """State that later evaluations depend on."""
        success, mean_return = (None, None) if self.best_score is None else self.best_score
        return {"seconds": self.seconds, "best_mean_success": success, "best_mean_return": mean_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        success, mean_return = state["best_mean_success"], state["best_mean_return"]
        self.seconds, self.best_score = state["seconds"], None if success is None else (success, mean_return)

    def _init_callback(self) -> None:
        check_evaluation_env(self.model, self.eval_env)

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq == 0:
            self.evaluate()
        return True

    def evaluate(self) -> Evaluation:
        """Evaluate now, record and write the result."""
        start = time.perf_counter()
        self.last = evaluate(self.model, self.eval_env, self.n_eval_episodes)
        self.seconds += time.perf_counter() - start
        with logged_alone(self.logger, self.num_timesteps):
            self._record(self.last)
        if self.verbose:
            print(f"{self.num_timesteps} transitions: mean success {self.last.mean_success:.3f}")
        self._keep_best()
        return self.last

    def _record(self, evaluation: Evaluation) -> None:
        for name, success, value in zip(evaluation.task_names, evaluation.success, evaluation.returns, strict=True):
            self.logger.record(f"success/{name}", float(success), exclude="stdout")
            self.logger.record(f"return/{name}", float(value), exclude="stdout")
        self.logger.record("success/mean", evaluation.mean_success)
        self.logger.record("return/mean", float(evaluation.returns.mean()))
        self.logger.record("time/evaluation_seconds", self.seconds)
        parts = (self.model.timing[part] for part in ("environment", "update", "transference"))
        self.logger.record("time/training_seconds", sum(parts))

    def _keep_best(self) -> None:
        assert self.last is not None
        if self.best_score is not None and self.last.score <= self.best_score:
            return
        with self._outage.bridged():
            if self.best_model_save_path is not None:
                self.model.save(self.best_model_save_path / "best_model")
            self.best_score = self.last.score


class TransferenceFigures(BaseCallback):
    """Draw transference in TensorBoard, and arrange the scalars there.

    Every ``every`` vector steps, for critic and actor: pairwise transference and gradient cosine as heatmaps (means
    since the last figure), the covariance similarity of observations and trunk features, the share of updates in which
    each task was left out, predicted against realised improvement, and a histogram of chosen candidates (0 is the full
    set, ``t + 1`` leaves task ``t`` out in the default family). Figures without data (nothing measured, no
    choices) are not drawn.

    Args:
        every: vector steps between figures, at least 1.

    Attributes:
        seconds: seconds spent on figures so far; they are part of ``time/logging_seconds``.
    """

    def __init__(self, every: int) -> None:
        from mtrl_transfer.agents.monitoring import figures  # matplotlib takes long to import

        super().__init__()
        check_whole("every", every)
        self._figures = figures
        self.every = every
        self.seconds = 0.0
        self._steps: list[int] = []
        self._left_out: dict[str, list[np.ndarray]] = {}
        self._counted: dict[str, tuple[np.ndarray, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        """State that later figures depend on."""
        counted = {role: {"kept": kept, "n_updates": n_updates} for role, (kept, n_updates) in self._counted.items()}
        return {"seconds": self.seconds, "steps": self._steps, "left_out": self._left_out, "counted": counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
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
        with counted(self.model.timing, "logging"), logged_alone(self.logger, self.num_timesteps):
            self._draw_all()
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
        """Draw the similarity of the tasks' data, and record its correlation with measured transference."""
        if not pairwise:
            return
        generator = torch.Generator(self.model.device).manual_seed(self.num_timesteps)
        found, names = covariance_similarities(self.model, generator), self.model.task_names
        figure = self._figures.heatmap(found["inputs"], names, "Covariance similarity of observations", "", "")
        self._record("1_what_helps_what/input_similarity", figure)
        for role, transference in pairwise.items():
            figure = self._figures.heatmap(
                found[role], names, f"{role.capitalize()}: covariance similarity of features", "", ""
            )
            self._record(f"1_what_helps_what/{role}_feature_similarity", figure)
            for kind, similarity in (("input", found["inputs"]), ("feature", found[role])):
                tag = f"transference/{role}_{kind}_similarity_correlation"
                self.logger.record(tag, rank_correlation(similarity, transference), exclude="stdout")

    def _draw_maps(self, role: str, maps: dict[str, torch.Tensor]) -> None:
        names = self.model.task_names
        if "pairwise" in maps:
            title = f"{role.capitalize()}: who helps (blue) or harms (red) whom"
            figure = self._figures.heatmap(
                maps["pairwise"].numpy(), names, title, "this task's step ...", "... helps that task"
            )
            self._record(f"1_what_helps_what/{role}_transference", figure)
            title = f"{role.capitalize()}: cosine of task gradients"
            figure = self._figures.heatmap(maps["cosine"].numpy(), names, title, "", "")
            self._record(f"1_what_helps_what/{role}_gradient_cosine", figure)

    def _draw_left_out(self, role: str, update: Update[Any]) -> None:
        kept, n_updates = update.kept.cpu().numpy().copy(), int(update.n_combined)
        before, n_before = self._counted.get(role, (np.zeros_like(kept), 0))
        self._counted[role] = (kept, n_updates)
        shares = 1.0 - (kept - before) / max(n_updates - n_before, 1)
        history = self._left_out.setdefault(role, [])
        history.append(shares)
        if np.any(history):
            figure = self._figures.left_out_shares(
                self._steps, np.stack(history), self.model.task_names, f"{role.capitalize()} left out"
            )
            self._record(f"3_left_out/{role}", figure)

    def _draw_scatter(self, role: str, update: Update[Any]) -> None:
        pairs = update.measurement.pairs
        if pairs:
            predicted, realised = torch.stack(list(pairs)).cpu().numpy().swapaxes(0, 1)
            title = f"{role.capitalize()}: did predictions come true?"
            figure = self._figures.scatter(predicted, realised, self.model.task_names, title)
            self._record(f"2_predicted_realised/{role}", figure)

    def _record_choices(self, role: str, update: Update[Any]) -> None:
        if update.choices is not None:
            counts = update.choices.cpu()
            chosen = torch.arange(len(counts)).repeat_interleave(counts)
            update.choices.zero_()
            if len(chosen):
                self.logger.record(f"choices/{role}", chosen, exclude=TENSORBOARD_ONLY)


class RecordTransference(BaseCallback):
    """Append a record of both networks to a file regularly; read it with ``mtrl_transfer.Recording``.

    A record's step is in transitions. Pairwise transference is the mean over all measurements since the last record:
    those of affinity where it is measured, `one_step` then being that of the others. Gramian and decision are the
    latest. When a run is continued, records beyond the agent's count are dropped, because they will be written again.

    Args:
        path: the file.
        every: updates between records, at least 1.
        tell: takes a line for the user if the file cannot be written; training goes on, and records wait.
    """

    def __init__(self, path: str | Path, every: int, tell: Tell = warnings.warn) -> None:
        super().__init__()
        check_whole("every", every)
        self.path, self.every = Path(path), every
        self._recorder: Recorder | None = None
        self._outage = Outage(path, "records wait in memory", tell)

    def _on_training_start(self) -> None:
        self._recorder = Recorder(self.path, self.model.task_names)
        self._recorder.drop_after(self.num_timesteps)
        self._last = self.model._n_updates

    def _on_rollout_start(self) -> None:
        self._record_if_due()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._record_if_due()
        self.flush()

    def flush(self) -> None:
        """Write records that wait because they could not be written."""
        if self._recorder is not None:
            with self._outage.bridged():
                self._recorder.flush()

    def _record_if_due(self) -> None:
        now, recorder = self.model._n_updates, self._recorder
        if recorder is not None and now // self.every > self._last // self.every:
            with counted(self.model.timing, "logging"):
                affinity = self.model.measuring.affinity_every is not None
                records = {role: _record(update, affinity) for role, update in self.model.updates.items()}
                with self._outage.bridged():
                    recorder.record(self.model.num_timesteps, records)
            self._last = now


def _record(update: Update[Any], affinity: bool) -> Record:
    history = update.measurement.history
    measurements, means = history.count("decrease" if affinity else "pairwise"), history.flush()
    one_step = means.get("pairwise")
    decrease = divide(means["decrease"], means["scale"]) if "decrease" in means else None
    return Record(
        weights=update.weights,
        gramian=update.gramian,
        decision=update.combiner.last,
        pairwise=decrease if affinity else one_step,
        measurements=measurements,
        one_step=one_step,
    )
