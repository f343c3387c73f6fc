import pytest
import torch

from mtrl_transfer import PCGrad, candidates
from mtrl_transfer.combiners.pcgrad import pcgrad_weights, random_orders


def algorithm_1(vectors, orders, members):
    """PCGrad on real vectors, line by line (Yu et al., 2020); the sum over T."""
    total = torch.zeros_like(vectors[0])
    for i in members:
        projected = vectors[i].clone()
        for j in orders[i].tolist():
            if j != i and j in members and projected @ vectors[j] < 0:
                projected = projected - (projected @ vectors[j]) / (vectors[j] @ vectors[j]) * vectors[j]
        total = total + projected
    return total / len(vectors)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_literal_loop(gradients, seed):
    vectors = gradients(seed, n_tasks=6, size=4)
    orders = random_orders(6, torch.Generator().manual_seed(seed))
    found = pcgrad_weights(vectors @ vectors.T, orders) @ vectors
    torch.testing.assert_close(found, algorithm_1(vectors, orders, range(6)))
    without_self = torch.stack([row[row != i] for i, row in enumerate(orders)])
    torch.testing.assert_close(pcgrad_weights(vectors @ vectors.T, without_self) @ vectors, found)


def test_subsets_project_among_themselves(gradients):
    vectors = gradients(1, n_tasks=5, size=3)
    orders = random_orders(5, torch.Generator().manual_seed(1))
    members = candidates.power_set(5) != 0
    found = pcgrad_weights(vectors @ vectors.T, orders, members)
    assert not (found * ~members).any()
    for row, chosen in zip(found, members, strict=True):
        expected = algorithm_1(vectors, orders, chosen.nonzero().flatten().tolist())
        torch.testing.assert_close(row @ vectors, expected)


def test_equals_torchjd_with_its_orders(gradients):
    torchjd = pytest.importorskip("torchjd.aggregation")
    vectors = gradients(2, n_tasks=5, size=3)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        orders = torch.stack([torch.randperm(5) for _ in range(5)])
        torch.manual_seed(7)
        expected = torchjd.PCGradWeighting()(vectors @ vectors.T)
    torch.testing.assert_close(pcgrad_weights(vectors @ vectors.T, orders), expected / 5)


def test_every_task_has_an_order_of_its_own():
    orders = random_orders(8, torch.Generator().manual_seed(0))
    assert torch.equal(orders.sort(1).values, torch.arange(8).expand(8, 8))
    assert len({tuple(row) for row in orders.tolist()}) == 8


def test_zero_gradient_projects_nothing_off():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]])
    weights = PCGrad()(vectors @ vectors.T)
    torch.testing.assert_close(weights @ vectors, torch.tensor([0.5 - 0.0, 0.5 + 1.0]) / 3)


def test_own_seeded_stream(gradients):
    gram = gradients(0, n_tasks=6, size=2)
    gram = gram @ gram.T
    state = torch.get_rng_state()
    runs = []
    for seed in (1, 1, 2):
        combiner = PCGrad()
        combiner.seed(seed)
        runs.append(torch.stack([combiner(gram) for _ in range(4)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0][0], runs[0][1]), "every call draws new orders"
    given = PCGrad(torch.Generator().manual_seed(1))
    assert torch.equal(torch.stack([given(gram) for _ in range(4)]), runs[0])
    assert torch.equal(torch.get_rng_state(), state)
