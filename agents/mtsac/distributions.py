"""The squashed Gaussian policy of SAC, written on plain tensors so that losses stay functions of their noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def mean_and_log_std(out: Tensor) -> tuple[Tensor, Tensor]:
    """Split a policy head's output ``[..., 2 A]`` into mean and clamped log standard deviation, ``[..., A]`` each."""
    mean, log_std = out.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


def squashed_mean(out: Tensor, mask: Tensor | None = None) -> Tensor:
    """The deterministic action ``[..., A]`` in (-1, 1); arguments as for `squashed_sample`."""
    action = torch.tanh(mean_and_log_std(out)[0])
    return action if mask is None else action * mask


def squashed_sample(out: Tensor, noise: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Reparameterised action and its log-probability.

    Args:
        out: policy head output ``[..., 2 A]``.
        noise: standard normal ``[..., A]``.
        mask: 1 for the dimensions of ``A`` that count and 0 for others, whose action is 0; None: all count.

    Returns:
        Action in (-1, 1) ``[..., A]`` and ``log pi`` ``[...]`` with the change of variables of Haarnoja et al. (arXiv
        1812.05905, appendix C), in the form ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))`` that neither
        over- nor underflows.
    """
    mean, log_std = mean_and_log_std(out)
    u = torch.addcmul(mean, log_std.exp(), noise)
    gaussian = -0.5 * noise.square() - log_std - _LOG_SQRT_2PI
    correction = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
    action, log_probs = torch.tanh(u), gaussian - correction
    if mask is not None:
        action, log_probs = action * mask, log_probs * mask
    return action, log_probs.sum(dim=-1)
