"""MLP trunks shared by all tasks, side by side, with one linear head per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtrl_transfer.information.alignment import identities
from mtrl_transfer.shared_linear import shared_linear

Activation = Literal["relu", "elu", "gelu", "leaky_relu", "mish", "selu", "silu", "softplus", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {name: getattr(F, name) for name in get_args(Activation)}


class MultiTaskMLP(nn.Module):
    """``N`` trunks side by side (one for an actor, one per critic), each with ``T`` linear heads.

    All trunks are evaluated by one batched product per layer. Parameters, with ``N`` and ``T`` leading:
    ``trunk["weight0"] [N, in, out]``, ``trunk["bias0"] [N, 1, out]``, with LayerNorm also ``trunk["scale0"]`` and
    ``trunk["shift0"] [N, 1, out]``; ``heads["weight"] [T, N, width, out]``, ``heads["bias"] [T, N, 1, out]``.
    With alignment, ``heads["alignment"] [T, N, in, in]``: it belongs to its task as a head does.

    Args:
        in_dim: width of the input, without the one-hot.
        out_dim: width of each head's output.
        hidden: widths of the trunk's layers, at least one.
        n_tasks: ``T``.
        n_nets: ``N``.
        activation: one of `ACTIVATIONS`.
        layer_norm: normalise each layer before its activation (Ba et al., arXiv 1607.06450).
        one_hot_in_trunk: also feed the task's one-hot to the trunk.
        alignment: a linear map of each task's input before the trunk, initially the identity; see
            `mtrl_transfer.TaskAlignment`. It multiplies the rows and is not folded into the first layer: this
            product is the smaller one if a layer is wider than a task has rows, all candidates of a lookahead share
            it, and the first layer stays one product over all tasks.
        standardize: use ``(x - input_mean) * input_scale`` as the input; these buffers ``[in]`` are 0 and 1 until they
            are set.
        standardize_each: these buffers are each task's own, ``[T, 1, in]``.

    Attributes:
        width: width of the widest layer.
        action_mask: of an actor whose tasks have different actions: ``[T, 1, A]``, 1 for those that a task has.
    """

    input_mean: Tensor
    input_scale: Tensor
    action_mask: Tensor | None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden: Sequence[int],
        n_tasks: int,
        n_nets: int = 1,
        activation: str = "relu",
        layer_norm: bool = False,
        one_hot_in_trunk: bool = False,
        alignment: bool = False,
        standardize: bool = False,
        standardize_each: bool = False,
    ) -> None:
        super().__init__()
        self.n_tasks, self.n_nets = n_tasks, n_nets
        self.activation, self.layer_norm, self.one_hot_in_trunk = ACTIVATIONS[activation], layer_norm, one_hot_in_trunk
        widths = [in_dim + n_tasks * one_hot_in_trunk, *hidden]
        self.n_layers, self.width = len(hidden), max(hidden)
        self.standardized = standardize
        if standardize:
            shape = (n_tasks, 1, in_dim) if standardize_each else (in_dim,)
            self.register_buffer("input_mean", torch.zeros(shape))
            self.register_buffer("input_scale", torch.ones(shape))
        self.register_buffer("action_mask", None, persistent=False)
        self.trunk = nn.ParameterDict()
        for layer, (fan_in, width) in enumerate(pairwise(widths)):
            self.trunk[f"weight{layer}"] = _uniform(n_nets, fan_in, width, fan_in=fan_in)
            self.trunk[f"bias{layer}"] = _uniform(n_nets, 1, width, fan_in=fan_in)
            if layer_norm:
                self.trunk[f"scale{layer}"] = nn.Parameter(torch.ones(n_nets, 1, width))
                self.trunk[f"shift{layer}"] = nn.Parameter(torch.zeros(n_nets, 1, width))
        self.heads = nn.ParameterDict(
            {
                "weight": _uniform(n_tasks, n_nets, widths[-1], out_dim, fan_in=widths[-1]),
                "bias": _uniform(n_tasks, n_nets, 1, out_dim, fan_in=widths[-1]),
            }
        )
        self.aligned = alignment
        if alignment:
            self.heads["alignment"] = nn.Parameter(identities(n_tasks, n_nets, width=in_dim))

    @property
    def own_trunk(self) -> dict[str, Tensor]:
        """The trunk's parameters by name, as they are now."""
        # The plain dict inside: indexing the ParameterDict takes as long as a small product. No copy is kept, because
        # load_state_dict(assign=True) and torch.func.functional_call put other tensors here.
        return self.trunk._parameters  # type: ignore[return-value]

    @property
    def own_heads(self) -> dict[str, Tensor]:
        """The heads' parameters by name, as they are now."""
        return self.heads._parameters  # type: ignore[return-value]

    def features(
        self, x: Tensor, trunk: Mapping[str, Tensor] | None = None, heads: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Trunk output for rows grouped by task.

        Args:
            x: ``[T, B, in]``.
            trunk: parameters to use instead of the module's own: ``[M, ...]`` for any ``M``, or with a task axis
                ``[T, N, ...]`` (see `mtrl_transfer.shared_linear.shared_linear`).
            heads: parameters to take the alignment from, instead of the module's own.

        Returns:
            ``[M, T, B, width]``.
        """
        x = self._standardize(x.unsqueeze(0))
        trunk = self.own_trunk if trunk is None else trunk
        if self.aligned:
            alignment = (self.own_heads if heads is None else heads)["alignment"]
            x = torch.matmul(x, alignment.transpose(0, 1))  # [N, T, B, in]
            n_candidates = trunk["weight0"].shape[-3] // self.n_nets
            x = x.unsqueeze(1).expand(-1, n_candidates, -1, -1, -1).flatten(0, 1)
        if self.one_hot_in_trunk:
            one_hot = torch.eye(self.n_tasks, dtype=x.dtype, device=x.device).unsqueeze(1)
            x = torch.cat([x, one_hot.expand(*x.shape[:-1], -1)], dim=-1)
        return self._layers(x, trunk)

    def forward(
        self,
        x: Tensor,
        trunk: Mapping[str, Tensor] | None = None,
        heads: Mapping[str, Tensor] | None = None,
        trunk_shares: Tensor | None = None,
    ) -> Tensor:
        """Each task's own output for its own rows.

        Args:
            x: ``[T, B, in]``.
            trunk: as for `features`; ``M`` may be ``N * K`` for ``K`` candidates of each trunk, trunk by trunk.
            heads: parameters to use instead of the module's own.
            trunk_shares: ``[T]``, factors on each task's gradient with respect to the features, and so on its gradient
                for the trunk, but not for the heads. One plain backward of the mean loss then gives the trunk any
                weighted sum of task gradients. Not with alignment: it comes before the trunk and would be scaled too.

        Returns:
            ``[M, T, B, out]``.
        """
        heads = self.own_heads if heads is None else heads
        features = self.features(x, trunk, heads)
        _, n_tasks, rows, width = features.shape
        features = features.view(self.n_nets, -1, n_tasks, rows, width)
        weight, bias = heads["weight"].transpose(0, 1).unsqueeze(1), heads["bias"].transpose(0, 1).unsqueeze(1)
        if trunk_shares is None:
            product = torch.matmul(features, weight)
        else:
            product = _ProductWithShares.apply(features, weight, trunk_shares.view(-1, 1, 1))
        return (product + bias).flatten(0, 1)

    def of_tasks(self, x: Tensor, tasks: Tensor) -> Tensor:
        """Output for single rows of any mixture of tasks: ``x [R, in]``, ``tasks [R]`` -> ``[N, R, out]``."""
        x, heads = self._standardize(x.unsqueeze(0), tasks), self.own_heads
        if self.aligned:
            x = torch.einsum("ri,rnio->nro", x[0], heads["alignment"][tasks])
        if self.one_hot_in_trunk:
            one_hot = F.one_hot(tasks, self.n_tasks).to(x.dtype)
            x = torch.cat([x, one_hot.expand(len(x), -1, -1)], dim=-1)
        features = self._layers(x.unsqueeze(1), self.own_trunk).squeeze(1)  # [N, R, width]
        rows = features.transpose(0, 1).unsqueeze(2)  # [R, N, 1, width]
        out = torch.matmul(rows, heads["weight"][tasks]) + heads["bias"][tasks]
        return out.squeeze(2).transpose(0, 1)

    def _standardize(self, x: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Standardise rows by task ``[..., T, B, in]``, or single rows ``[..., R, in]`` of ``tasks [R]``."""
        if not self.standardized:
            return x
        mean, scale = self.input_mean, self.input_scale
        if tasks is not None and mean.dim() == 3:
            mean, scale = mean[tasks, 0], scale[tasks, 0]
        return (x - mean) * scale

    def _layers(self, x: Tensor, trunk: Mapping[str, Tensor]) -> Tensor:
        for layer in range(self.n_layers):
            x = shared_linear(x, trunk[f"weight{layer}"], trunk[f"bias{layer}"])
            if self.layer_norm:
                x = self._normalized(x, trunk[f"scale{layer}"], trunk[f"shift{layer}"])
            x = self.activation(x)
        return x

    def _normalized(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """LayerNorm of ``x [M, T, B, d]``, in one call per trunk if there are no candidates."""
        if scale.dim() == 3 and len(scale) == self.n_nets:
            if self.n_nets == 1:
                return F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten())
            whole = zip(x, scale.squeeze(1), shift.squeeze(1), strict=True)
            return torch.stack([F.layer_norm(one, one.shape[-1:], *affine) for one, *affine in whole])
        # addcmul would be slower: its backward multiplies by its factor of 1, twice.
        return (F.layer_norm(x, x.shape[-1:]) * _per_row(scale)).add_(_per_row(shift))


def action_mask(shapes: Sequence[tuple[int, int]] | None, n_actions: int) -> Tensor | None:
    """``MultiTaskMLP.action_mask`` of tasks with ``(D_t, A_t)`` features and actions; None: all have ``n_actions``."""
    if shapes is None:
        return None
    return (torch.arange(n_actions) < torch.tensor([actions for _, actions in shapes]).view(-1, 1, 1)).float()


class _ProductWithShares(torch.autograd.Function):
    """``features @ weight``, whose gradient with respect to ``features`` is multiplied by ``shares``.

    ``d features = (d out * shares) @ weight.T`` and ``d weight = features.T @ d out``: shares multiply the narrow
    gradient of the output rather than the wide one of the features.
    """

    @staticmethod
    def forward(features: Tensor, weight: Tensor, shares: Tensor) -> Tensor:
        return torch.matmul(features, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight, shares = ctx.saved_tensors
        return torch.matmul(grad * shares, weight.mT), torch.matmul(features.mT, grad).sum_to_size(weight.shape), None


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Torch's default for ``nn.Linear``: uniform within ``1 / sqrt(fan_in)``, weights and biases alike."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def _per_row(parameter: Tensor) -> Tensor:
    """View of ``[N, 1, d]`` or ``[T, N, 1, d]`` that broadcasts over ``[N, T, B, d]``."""
    return parameter.unsqueeze(1) if parameter.dim() == 3 else parameter.transpose(0, 1)
