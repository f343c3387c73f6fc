"""Multi-task SAC on stable-baselines3."""

from typing import TYPE_CHECKING

from mtrl_transfer.lazy import lazy_names

if TYPE_CHECKING:
    from mtrl_transfer.agents.public import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy_names(__name__)
