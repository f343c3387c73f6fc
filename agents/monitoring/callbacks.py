"""Callbacks for multi-task training."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.evaluation import Evaluation, evaluate
from mtrl_transfer.agents.storage.outage import Outage, Tell


class MultiTaskEvalCallback(BaseCallback):
    """Evaluate every task now and then; keep the best agent by mean success.

    Records ``success/<task>``, ``success/mean``, ``return/<task>`` and ``return/mean``, at the evaluation's own step.
    Beside them, ``time/training_seconds``: what environments, updates and transference have taken until then.

    Args:
        eval_env: environment apart from the training's, see :func:`mtrl_transfer.agents.evaluation.evaluate`.
        eval_freq: vector steps between evaluations.
        n_episodes: episodes per task.
        best_model_save_path: folder for ``best_model.zip``; None: it is not saved.
        verbose: 1 prints each result.
        tell: takes a line for the user where the best agent cannot be saved; training goes on.

    Attributes:
        last: latest :class:`Evaluation`, None before the first.
        best_mean_success: of the best agent that is kept, None before the first.
        seconds: spent in evaluation so far.
    """

    def __init__(
        self,
        eval_env: VecEnv,
        eval_freq: int = 10_000,
        n_episodes: int = 50,
        best_model_save_path: str | Path | None = None,
        verbose: int = 0,
        tell: Tell = warnings.warn,
    ) -> None:
        super().__init__(verbose)
        if eval_freq < 1:
            raise ValueError(f"eval_freq={eval_freq} must be at least 1 vector step")
        self.eval_env, self.eval_freq, self.n_episodes = eval_env, eval_freq, n_episodes
        self.best_model_save_path = None if best_model_save_path is None else Path(best_model_save_path)
        self.last: Evaluation | None = None
        self.best_mean_success: float | None = None
        self.seconds = 0.0
        self._outage = Outage("best_model.zip", "the next that is better than the one there is tried", tell)

    def state_dict(self) -> dict[str, Any]:
        """What the next evaluations go on from."""
        return {"seconds": self.seconds, "best_mean_success": self.best_mean_success}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.seconds, self.best_mean_success = state["seconds"], state["best_mean_success"]

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq == 0:
            self.evaluate()
        return True

    def evaluate(self) -> Evaluation:
        """Evaluate now, record and write the result."""
        start = time.perf_counter()
        self.last = evaluate(self.model, self.eval_env, self.n_episodes)
        self.seconds += time.perf_counter() - start
        for name, success, value in zip(self.last.task_names, self.last.success, self.last.returns, strict=True):
            self.logger.record(f"success/{name}", float(success), exclude="stdout")
            self.logger.record(f"return/{name}", float(value), exclude="stdout")
        self.logger.record("success/mean", self.last.mean_success)
        self.logger.record("return/mean", float(self.last.returns.mean()))
        self.logger.record("time/evaluation_seconds", self.seconds)
        parts = (self.model.timing[part] for part in ("environment", "update", "transference"))
        self.logger.record("time/training_seconds", sum(parts))
        self.logger.dump(self.num_timesteps)
        if self.verbose:
            print(f"{self.num_timesteps} transitions: mean success {self.last.mean_success:.3f}")
        self._keep_best()
        return self.last

    def _keep_best(self) -> None:
        assert self.last is not None
        if self.best_mean_success is not None and self.last.mean_success <= self.best_mean_success:
            return
        with self._outage.bridged():
            if self.best_model_save_path is not None:
                self.model.save(self.best_model_save_path / "best_model")
            self.best_mean_success = self.last.mean_success
