"""TorchJD's methods that keep a state, draw, or look at more than the Gramian, as combiners."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mtrl_transfer.choices import check_number, check_whole
from mtrl_transfer.combiners.registry import register
from mtrl_transfer.combiners.torchjd import TorchJDWeighting
from mtrl_transfer.context import Context


@register("gradvac")
class GradVac(TorchJDWeighting):
    """PCGrad that aims at the usual cosine of two gradients rather than 0 (Wang et al., 2021, arXiv 2010.05874).

    The paper sums the corrected gradients; one scale divides the sum by T. TorchJD draws the orders from torch's global
    generator, which is lent the combiner's own stream. Runs on the CPU: it waits for the device.

    Args:
        beta: share of the newest cosine in the running mean of cosines; the paper's 0.01.
        generator: source of the orders.
    """

    def __init__(self, beta: float = 0.01, generator: torch.Generator | None = None) -> None:
        check_number("beta", beta, 0)
        super().__init__("GradVacWeighting", generator, beta=beta)
        self.beta = beta

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]`; running cosines of tasks without a gradient rest."""
        self.state.setdefault("cosines", torch.zeros_like(gramian))
        return super().weigh(gramian, context)

    def _solve(self, gramian: Tensor, live: Tensor) -> Tensor:
        generator, cosines, rows = self.generator(torch.device("cpu")), self.state["cosines"], live[:, None]
        # TorchJD keeps one running mean for one set of tasks; this one outlives the absence of some.
        self._weighting._phi_t = cosines[rows, live].to("cpu", copy=True)
        self._weighting._state_key = (len(gramian), gramian.dtype)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            weights = self._weighting(gramian)
            generator.set_state(torch.get_rng_state())
        cosines[rows, live] = self._weighting._phi_t.to(cosines)
        return weights

    def _sum(self, n_tasks: int) -> float:
        """Return the number of tasks: orthogonal gradients are left as they are."""
        return float(n_tasks)


@register("config")
class ConFIG(TorchJDWeighting):
    """The direction with equal cosines to all task gradients (Liu et al., 2024, arXiv 2408.11104, equation 2).

    TorchJD's method takes gradients; it gets a square root of the Gramian, which has the same inner products. For
    orthogonal gradients of one length the paper sums them; one scale divides by T. It waits for the device.
    """

    def __init__(self) -> None:
        super().__init__("ConFIG")

    def _solve(self, gramian: Tensor, live: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gramian.double())
        noise = len(gramian) * torch.finfo(gramian.dtype).eps * values.max()
        root = vectors * torch.where(values > noise, values, 0).sqrt()  # J with J Jᵀ = G
        return torch.linalg.pinv(root.mT) @ self._weighting(root)  # w with Jᵀ w = d

    def _sum(self, n_tasks: int) -> float:
        """Return the number of tasks."""
        return float(n_tasks)


@register("sdmgrad")
class SDMGrad(TorchJDWeighting):
    """Shortest combination of task gradients near the mean, with inner products of two batches (arXiv 2305.18409).

    Xiao et al., 2023, Algorithm 1, by TorchJD's solver: `A = J_1 J_2ᵀ` of this update's and held-out rows is unbiased,
    where the Gramian of one batch is not. Weights sum to 1, as in the paper. Costs one forward and backward pass. It
    waits for the device.

    Args:
        rows: number of held-out rows a task; None leaves it to the caller.
        direction: the paper's `λ`, pull towards the mean gradient.
    """

    needs_context: ClassVar[bool] = True
    looks_ahead: ClassVar[bool] = False

    def __init__(self, rows: int | None = None, direction: float = 0.3) -> None:
        if rows is not None:
            check_whole("rows", rows)
        check_number("direction", direction, 0)
        super().__init__("SDMGradWeighting", lambda_=direction)
        self.rows, self.direction = rows, direction

    def weigh(self, gramian: Tensor, context: Context | None) -> Tensor:
        """Return the weights `[T]`; the shares of tasks without a gradient rest."""
        if context is None or context.lookahead is None:
            raise ValueError("SDMGrad needs a context with a lookahead, for gradients on held-out rows")
        self._products = context.lookahead.on(self.rows).held_out_gramian()
        self.state.setdefault("shares", torch.full_like(gramian[0], 1 / len(gramian)))
        return super().weigh(gramian, context)

    def _solve(self, gramian: Tensor, live: Tensor) -> Tensor:
        shares = self.state["shares"]
        products = self._products[live][:, live]
        largest = products.diagonal().abs().max()
        self._weighting._w = shares[live] / shares[live].sum()
        self._weighting._state_key = (len(live), products.dtype, products.device)
        weights = self._weighting(products / torch.where(largest > 0, largest, 1))
        shares[live] = self._weighting._w * (len(live) / len(shares))
        return weights

    def _sum(self, n_tasks: int) -> float:
        """Return 1."""
        return 1.0
