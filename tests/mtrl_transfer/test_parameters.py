import pytest
from torch import nn

from mtrl_transfer import split_parameters


@pytest.mark.parametrize(
    "shared",
    ["trunk", lambda model: model.trunk, lambda model: lambda name, parameter: name.startswith("trunk")],
    ids=["name", "module", "predicate"],
)
def test_shared_by_module_or_predicate(problem, shared):
    model = problem.model
    shared_parameters, others = split_parameters(model, shared if isinstance(shared, str) else shared(model))
    assert list(shared_parameters) == ["trunk.0.weight", "trunk.0.bias", "trunk.2.weight", "trunk.2.bias"]
    assert shared_parameters["trunk.0.weight"] is model.trunk[0].weight
    assert {**shared_parameters, **others}.keys() == dict(model.named_parameters()).keys()
    assert not shared_parameters.keys() & others.keys()


def test_nothing_shared(problem):
    with pytest.raises(ValueError, match="no parameter of the model is shared"):
        split_parameters(problem.model, nn.Linear(2, 2))
