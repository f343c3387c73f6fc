"""Multi-task SAC on stable-baselines3."""

from agents.callbacks import MultiTaskEvalCallback
from agents.evaluation import Evaluation, evaluate
from agents.mtsac import MTSAC
from agents.policy import MultiTaskPolicy
from agents.replay import MultiTaskReplayBuffer
from agents.routed import RoutedAgent, load_agent

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
