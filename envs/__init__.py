"""Multi-task suites as stable-baselines3 vector environments."""

from envs.make import make_vec_env
from envs.point import PointVecEnv
from envs.protocol import protocol_card

__all__ = ["PointVecEnv", "make_vec_env", "protocol_card"]
