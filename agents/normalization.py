"""SB3's ``VecNormalize`` around training and evaluation environments."""

from __future__ import annotations

import copy

from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize


def check_training_normalization(env: VecEnv, needs_raw_rewards: str | None, same_shapes: bool) -> None:
    """Check that an agent can be trained behind the ``VecNormalize`` of an environment, if it has one.

    Args:
        env: environment to train in.
        needs_raw_rewards: argument of the agent that is about the size of raw rewards, or None.
        same_shapes: True if all tasks have the same.

    Raises:
        ValueError: if wrappers around the ``VecNormalize`` change the observations' shape, if it normalises
            observations of tasks of different shapes, or if it normalises rewards that the agent needs raw.
    """
    normalization = unwrap_vec_normalize(env)
    if normalization is None:
        return
    inner, outer = list(normalization.observation_space.shape), list(env.observation_space.shape or ())
    if inner != outer:
        raise ValueError(
            f"VecNormalize makes observations of shape {inner}, and the wrappers around it {outer}; replay keeps raw "
            "observations and normalises them when it is sampled, so VecNormalize must come last, as in "
            "VecNormalize(VecFrameStack(env, 2))"
        )
    if normalization.norm_obs and not same_shapes:
        raise ValueError(
            "VecNormalize takes its statistics over all tasks together, whose shapes differ: use VecNormalize(env, "
            "norm_obs=False), and policy_kwargs={'standardize_inputs': True}, which standardises each task alone"
        )
    if needs_raw_rewards is not None and normalization.norm_reward:
        raise ValueError(
            f"{needs_raw_rewards} needs raw rewards, and VecNormalize(norm_reward=True) changes them: use "
            "VecNormalize(env, norm_reward=False)"
        )


def check_same_normalization(training: VecEnv, evaluation: VecEnv) -> None:
    """Check that both environments normalise observations, or neither, and by the same settings.

    Raises:
        ValueError: if not.
    """
    expected, found = (_settings(unwrap_vec_normalize(env)) for env in (training, evaluation))
    if expected != found:
        raise ValueError(
            f"training and evaluation environment are not wrapped the same way: the training environment has "
            f"{expected}, the evaluation environment {found}. SB3's way is VecNormalize(env, training=False, "
            "norm_reward=False) around the evaluation environment"
        )


def copy_normalization(training: VecEnv | None, evaluation: VecEnv) -> None:
    """Fix the statistics of the evaluation's ``VecNormalize``, if there is one, at those of the training's.

    Without a training environment they stay as they are.
    """
    target = unwrap_vec_normalize(evaluation)
    if target is None:
        return
    target.training = False
    own = None if training is None else unwrap_vec_normalize(training)
    if own is not None:
        target.ret_rms = copy.deepcopy(own.ret_rms)
        if own.norm_obs:
            target.obs_rms = copy.deepcopy(own.obs_rms)


def _settings(normalization: VecNormalize | None) -> str:
    if normalization is None or not normalization.norm_obs:
        return "no VecNormalize(norm_obs=True)"
    return f"VecNormalize(norm_obs=True, clip_obs={normalization.clip_obs}, epsilon={normalization.epsilon})"
