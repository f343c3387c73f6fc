"""The parameters of a module that all tasks share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Parameters = dict[str, nn.Parameter]


def split_parameters(
    model: nn.Module, shared: str | nn.Module | Callable[[str, nn.Parameter], bool]
) -> tuple[Parameters, Parameters]:
    """Split the parameters of `model` into shared and others, by their full names.

    Args:
        model: the whole model.
        shared: the submodule whose parameters are shared, itself or its name; or `predicate(name, parameter)`.

    Returns:
        Shared and other parameters, as in `model.named_parameters()`.

    Raises:
        ValueError: if no parameter is shared.
    """
    if isinstance(shared, str):
        shared = model.get_submodule(shared)
    if isinstance(shared, nn.Module):
        own = {id(parameter) for parameter in shared.parameters()}
        chosen = {name for name, parameter in model.named_parameters() if id(parameter) in own}
    else:
        chosen = {name for name, parameter in model.named_parameters() if shared(name, parameter)}
    if not chosen:
        raise ValueError(
            "no parameter of the model is shared: the submodule is foreign, or the predicate is never true"
        )
    parts: tuple[Parameters, Parameters] = ({}, {})
    for name, parameter in model.named_parameters():
        parts[name not in chosen][name] = parameter
    return parts
