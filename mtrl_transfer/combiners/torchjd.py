"""TorchJD's weightings as combiners; they need the extra `baselines`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number
from mtrl_transfer.combiners.base import Combiner, live_tasks
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.context import Context

INSTALL = 'pip install "mtrl-transfer[baselines]"'


class TorchJDWeighting(Combiner):
    """Adapter of one of TorchJD's weightings (github.com/TorchJD/torchjd), which map a Gramian to weights.

    The weighting sees the tasks that have a gradient; selecting them waits for the device. One scale: its weights are
    multiplied by the constant that makes a Gramian equal to the identity give `1/T`. The Gramian is first divided by
    its largest diagonal entry, since some weightings have absolute tolerances. Where the solver returns what is not
    finite, every task gets `1/T`.

    Args:
        name: name of the class in `torchjd.aggregation`.
        generator: source of its chance, if it draws.
        kwargs: arguments of that class.

    Raises:
        ImportError: where TorchJD, or the solver that this weighting needs, is not installed.
    """

    def __init__(self, name: str, generator: torch.Generator | None = None, **kwargs: Any) -> None:
        super().__init__(generator)
        try:
            from torchjd import aggregation

            self._weighting: Any = getattr(aggregation, name)(**kwargs)
        except ImportError as error:
            raise ImportError(f"combiner {type(self).__name__} needs TorchJD with its solvers: {INSTALL}") from error
        self._sums: dict[int, float] = {}

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]`."""
        weights, (live,) = torch.zeros_like(gramian[0]), live_tasks(gramian).nonzero(as_tuple=True)
        if not len(live):
            return weights
        seen = gramian[live][:, live]
        found = self._solve(seen / seen.diagonal().max(), live).to(gramian)
        # On the identity of n tasks it gives a sum s: times 1/s that is 1/n each, times n/T it is 1/T.
        found = found * (len(live) / (self._sum(len(live)) * len(gramian)))
        return weights.index_copy(0, live, torch.where(found.isfinite().all(), found, 1 / len(gramian)))

    def _solve(self, gramian: Tensor, live: Tensor) -> Tensor:
        """Return TorchJD's weights `[n]` for `gramian [n, n]` of the tasks `live [n]`."""
        return self._weighting(gramian)

    def _sum(self, n_tasks: int) -> float:
        """Return the sum of the weights of an identity Gramian."""
        if n_tasks not in self._sums:
            self._sums[n_tasks] = float(self._weighting(torch.eye(n_tasks, dtype=torch.float64)).sum())
        return self._sums[n_tasks]


@register("upgrad")
class UPGrad(TorchJDWeighting):
    """Each task gradient projected on the cone where none conflicts (Quinton & Rey, 2024, arXiv 2406.16232).

    The paper averages the projected gradients. Solves on the CPU: it waits for the device.
    """

    def __init__(self) -> None:
        super().__init__("UPGradWeighting")


@register("cagrad")
class CAGrad(TorchJDWeighting):
    """Best worst-case improvement within a ball around the mean gradient (Liu et al., 2021, arXiv 2110.14048).

    The paper adds to the mean; the constant for one scale is `1 / (1 + c)`. Solves on the CPU: it waits for the device.

    Args:
        c: radius of the ball, relative to the mean gradient's norm.
    """

    def __init__(self, c: float = 0.5) -> None:
        check_number("c", c, 0)
        super().__init__("CAGradWeighting", c=c)
        self.c = c


@register("mgda")
class MGDA(TorchJDWeighting):
    """Shortest convex combination of the task gradients (Désidéri, 2012; Sener & Koltun, 2018, arXiv 1810.04650).

    Weights sum to 1, as in the paper. Its solver stops on a condition: it waits for the device.
    """

    def __init__(self) -> None:
        super().__init__("MGDAWeighting")


@register("imtl_g")
class IMTLG(TorchJDWeighting):
    """Equal projections on all task gradients (Liu et al., 2021, *Towards Impartial Multi-task Learning*).

    Weights sum to 1, as in the paper.
    """

    def __init__(self) -> None:
        super().__init__("IMTLGWeighting")


@register("aligned_mtl")
class AlignedMTL(TorchJDWeighting):
    """Task gradients made orthogonal and of one length (Senushkin et al., 2023, arXiv 2305.19000).

    The paper sums the aligned gradients with weights `1/T`.
    """

    def __init__(self) -> None:
        super().__init__("AlignedMTLWeighting")


@register("fairgrad")
class FairGrad(TorchJDWeighting):
    """Weights with `(Gw)_t = w_t^(-1/α)`: α-fair shares of the tasks' improvements (Ban & Ji, 2024, arXiv 2402.15638).

    The weights of an identity Gramian are 1 each, as in the paper; one scale divides them by T. Solves on the CPU: it
    waits for the device.

    Args:
        alpha: kind of fairness; 0 is the mean, 1 proportional fairness, 2 the paper's choice for most of its tasks.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        check_number("alpha", alpha, 0)
        super().__init__("FairGradWeighting", alpha=alpha)
        self.alpha = alpha


@register("nash_mtl")
class NashMTL(TorchJDWeighting):
    """Nash bargaining solution: weights with `(Gw)_t = 1 / w_t` (Navon et al., 2022, arXiv 2202.01017, claim 3.1).

    Solved by TorchJD's FairGrad, whose equation is this one at `α = 1`, in each call. Solves on the CPU: it waits for
    the device.
    """

    def __init__(self) -> None:
        super().__init__("FairGradWeighting", alpha=1.0)
