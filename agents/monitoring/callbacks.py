"""Callbacks for multi-task training."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from mtrl_transfer.agents.evaluation import Evaluation, check_evaluation_env, evaluate
from mtrl_transfer.agents.storage.outage import Outage, Tell


class MultiTaskEvalCallback(BaseCallback):
    """Evaluate every task regularly; keep the best agent by mean success, ties by mean return of the solvable tasks.

    Records ``success/<task>``, ``success/mean``, ``return/<task>`` and ``return/mean`` at the evaluation's step, and
    ``time/training_seconds``: the seconds of environments, updates and transference until then.

    Args:
        eval_env: environment other than the training's, see :func:`mtrl_transfer.agents.evaluation.evaluate`. It is
            checked when training begins. A ``VecNormalize`` gets the training's statistics, as in SB3.
        eval_freq: vector steps between evaluations.
        n_episodes: episodes per task.
        best_model_save_path: folder for ``best_model.zip``; None: it is not saved.
        verbose: 1 prints each result.
        tell: takes a line for the user if the best agent cannot be saved; training goes on.

    Attributes:
        last: latest :class:`Evaluation`, None before the first.
        best_score: mean success and mean return of the best agent so far, None before the first evaluation.
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
        self.best_score: tuple[float, float] | None = None
        self.seconds = 0.0
        self._outage = Outage("best_model.zip", "the next that is better than the one there is tried", tell)

    def state_dict(self) -> dict[str, Any]:
        """State that later evaluations depend on."""
        success, mean_return = (None, None) if self.best_score is None else self.best_score
        return {"seconds": self.seconds, "best_mean_success": success, "best_mean_return": mean_return}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
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
        if self.best_score is not None and self.last.score <= self.best_score:
            return
        with self._outage.bridged():
            if self.best_model_save_path is not None:
                self.model.save(self.best_model_save_path / "best_model")
            self.best_score = self.last.score
