"""Multi-task suites as stable-baselines3 vector environments."""

from mtrl_transfer.envs.make import make_vec_env
from mtrl_transfer.envs.point import PointVecEnv
from mtrl_transfer.envs.protocol import protocol_card

__all__ = ["PointVecEnv", "make_vec_env", "protocol_card"]
