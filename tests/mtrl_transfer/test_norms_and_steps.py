import pytest
import torch

from mtrl_transfer import candidates
from mtrl_transfer.steps import match_norms, matched_step_size, step_norm


def test_candidates_come_to_the_norm_of_the_full_set(gradients):
    vectors = gradients(0) + 1.0
    gram = vectors @ vectors.T
    rows = candidates.leave_one_out(5).double()
    matched = match_norms(rows, gram, rows[0], max_factor=100.0)
    wanted = (rows[0] @ vectors).norm()
    torch.testing.assert_close((matched @ vectors).norm(dim=1), wanted.expand(6))
    torch.testing.assert_close(matched / matched.max(1, keepdim=True).values, (rows != 0).double())


def test_factor_is_capped():
    vectors = torch.tensor([[1.0, 0.0], [-1.0, 1e-3], [0.0, 5.0]]).double()
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 10.0]]).double() / 3
    matched = match_norms(rows, vectors @ vectors.T, rows[0], max_factor=2.0)
    torch.testing.assert_close(matched[1], 2 * rows[1])
    torch.testing.assert_close((matched[2] @ vectors).norm(), (rows[0] @ vectors).norm())


def test_a_vanishing_candidate_stays_as_it_is():
    gram = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    rows = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert torch.equal(match_norms(rows, gram, rows[1], 2.0)[0], rows[0])


def test_matched_step_is_as_long_as_the_last_real_one(gradients):
    vectors = gradients(0)
    step = matched_step_size(vectors @ vectors.T, torch.tensor(0.7))
    torch.testing.assert_close((step * vectors.mean(0)).norm(), torch.tensor(0.7).double())
    assert matched_step_size(torch.zeros(3, 3), torch.tensor(0.7)) == 0
    with pytest.raises(ValueError, match=r"needs context.step_norm"):
        matched_step_size(torch.eye(3), None)


def test_step_norm_is_over_all_parameters():
    before = {"a": torch.zeros(2, 2), "b": torch.ones(1)}
    after = {"a": torch.full((2, 2), 2.0), "b": torch.tensor([4.0])}
    assert step_norm(before, after) == 5
