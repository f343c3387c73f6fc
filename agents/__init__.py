"""Multi-task SAC on stable-baselines3."""

from mtrl_transfer.agents.evaluation import Evaluation, evaluate
from mtrl_transfer.agents.monitoring.callbacks import MultiTaskEvalCallback
from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer
from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy
from mtrl_transfer.agents.routed import RoutedAgent, load_agent

__all__ = [
    "MTSAC",
    "Evaluation",
    "MultiTaskEvalCallback",
    "MultiTaskPolicy",
    "MultiTaskReplayBuffer",
    "RoutedAgent",
    "evaluate",
    "load_agent",
]
