"""TorchJD's weightings as combiners; they need the extra `baselines`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtrl_transfer.combiners.base import Combiner
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context

INSTALL = 'pip install "mtrl-transfer[baselines]"'


class TorchJDWeighting(Combiner):
    """Adapter of one of TorchJD's weightings (github.com/TorchJD/torchjd), which map a Gramian to weights.

    One scale: weights are multiplied by the constant that makes a Gramian equal to the identity give `1/T`. The
    Gramian is first divided by its largest diagonal entry, since some have absolute tolerances; where it is
    zero, or the solver returns what is not finite, every task gets `1/T`.

    Args:
        name: of the class in `torchjd.aggregation`, without `Weighting`.
        kwargs: of that class.

    Raises:
        ImportError: where TorchJD, or the solver that this weighting needs, is not installed.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__()
        try:
            from torchjd import aggregation

            self._weighting = getattr(aggregation, f"{name}Weighting")(**kwargs)
        except ImportError as error:
            raise ImportError(f"combiner {type(self).__name__} needs TorchJD with its solvers: {INSTALL}") from error
        self._factors: dict[int, float] = {}

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Weights `[T]`."""
        n_tasks = len(gramian)
        if n_tasks not in self._factors:
            self._factors[n_tasks] = 1 / float(self._weighting(torch.eye(n_tasks, dtype=torch.float64)).sum())
        largest = gramian.diagonal().max()
        mean = torch.full_like(gramian[0], 1 / n_tasks)
        unit = torch.eye(n_tasks, dtype=gramian.dtype, device=gramian.device)
        scaled = torch.where(largest > 0, gramian / torch.where(largest > 0, largest, 1), unit)
        weights = self._weighting(scaled).to(gramian) * self._factors[n_tasks]
        return torch.where(weights.isfinite().all(), weights, mean)


@register("upgrad")
class UPGrad(TorchJDWeighting):
    """Each task gradient projected on the cone where none conflicts (Quinton & Rey, 2024, arXiv 2406.16232).

    The paper averages the projected gradients. Solves on the CPU: it waits for the device.
    """

    def __init__(self) -> None:
        super().__init__("UPGrad")


@register("cagrad")
class CAGrad(TorchJDWeighting):
    """Best worst-case improvement within a ball around the mean gradient (Liu et al., 2021, arXiv 2110.14048).

    The paper adds to the mean; the constant for one scale is `1 / (1 + c)`. Solves on the CPU: it waits for the device.

    Args:
        c: radius of the ball, relative to the mean gradient's norm.
    """

    def __init__(self, c: float = 0.5) -> None:
        super().__init__("CAGrad", c=c)


@register("mgda")
class MGDA(TorchJDWeighting):
    """Shortest convex combination of the task gradients (Désidéri, 2012; Sener & Koltun, 2018, arXiv 1810.04650).

    Weights sum to 1, as in the paper. Its solver stops on a condition: it waits for the device.
    """

    def __init__(self) -> None:
        super().__init__("MGDA")


@register("imtl_g")
class IMTLG(TorchJDWeighting):
    """Equal projections on all task gradients (Liu et al., 2021, *Towards Impartial Multi-task Learning*).

    Weights sum to 1, as in the paper.
    """

    def __init__(self) -> None:
        super().__init__("IMTLG")


@register("aligned_mtl")
class AlignedMTL(TorchJDWeighting):
    """Task gradients made orthogonal and of one length (Senushkin et al., 2023, arXiv 2305.19000).

    The paper sums the aligned gradients with weights `1/T`.
    """

    def __init__(self) -> None:
        super().__init__("AlignedMTL")
