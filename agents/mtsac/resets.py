"""Networks made anew a few times in a run, replay kept: against networks that can no longer learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from mtrl_transfer.agents.declarations import Count, Fraction
from mtrl_transfer.choices import check_positive, check_whole


class ResetNetworks(BaseCallback):
    """Make actor and critics anew at certain times, keep replay, and train on it before play goes on.

    A reset frees networks of what early data taught them (Nikishin et al., arXiv 2205.07802). With ``share`` below 1
    it shrinks and perturbs instead (Ash and Adams, arXiv 1910.08475): ``θ ← (1 − share) θ + share θ_new``. Moments of
    the optimizers begin anew; temperatures and the scale of inputs stay.

    Args:
        at: transitions after which the networks are reset.
        updates: further updates at the next training, all at once.
        share: of the new parameters, above 0 to 1.

    Raises:
        ValueError: if the times do not increase, or a value is out of range.
    """

    def __init__(self, at: Sequence[Count], updates: Count = 2_000, share: Fraction = 1.0) -> None:
        super().__init__()
        if not isinstance(at, Sequence):
            raise ValueError(f"at={at!r} should be a list of numbers of transitions")
        for time in at:
            check_whole("at", time)
        check_whole("updates", updates)
        check_positive("share", share)
        if share > 1:
            raise ValueError(f"share={share} should be at most 1")
        if sorted(set(at)) != list(at):
            raise ValueError(f"at={at} should be increasing numbers of transitions")
        self.at, self.updates, self.share = at, updates, share
        self._done: int | None = None

    def _on_training_start(self) -> None:
        begins_anew = self._done is None or self._due(self.model.num_timesteps) < self._done
        if begins_anew:
            self._done = self._due(self.model.num_timesteps - 1)

    def _on_rollout_start(self) -> None:
        due = self._due(self.model.num_timesteps)
        if due != self._done:
            self._done = due
            self.model.policy.renew((self.model.seed or 0) + self.model.num_timesteps, self.share)
            self.model.updates_due += self.updates

    def _on_step(self) -> bool:
        return True

    def _due(self, transitions: int) -> int:
        return sum(time <= transitions for time in self.at)

    def state_dict(self) -> dict[str, Any]:
        """Number of resets so far."""
        return {"done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._done = state["done"]
