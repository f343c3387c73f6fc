"""Public names of mtrl_transfer.agents, imported when one of them is first asked for."""

from mtrl_transfer.agents.evaluation import Evaluation, evaluate
from mtrl_transfer.agents.monitoring.callbacks import MultiTaskEvalCallback, RecordTransference, TransferenceFigures
from mtrl_transfer.agents.monitoring.measuring import MeasureTransference
from mtrl_transfer.agents.mtsac.buffers import MultiTaskReplayBuffer
from mtrl_transfer.agents.mtsac.mtsac import MTSAC
from mtrl_transfer.agents.mtsac.policies import MultiTaskPolicy
from mtrl_transfer.agents.mtsac.resets import ResetNetworks
from mtrl_transfer.agents.mtsac.task_weighting import ReweightTasks
from mtrl_transfer.agents.routed import RoutedAgent, load_agent
from mtrl_transfer.agents.storage.actor_file import Actor, load_actor, save_actor

__all__ = [
    "MTSAC",
    "Actor",
    "Evaluation",
    "MeasureTransference",
    "MultiTaskEvalCallback",
    "MultiTaskPolicy",
    "MultiTaskReplayBuffer",
    "RecordTransference",
    "ResetNetworks",
    "ReweightTasks",
    "RoutedAgent",
    "TransferenceFigures",
    "evaluate",
    "load_actor",
    "load_agent",
    "save_actor",
]
