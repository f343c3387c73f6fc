"""The supervised study: every group is trained as if alone, and regret is against the best grouping."""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np
import pytest
import torch
from supervised import supervised

from mtrl_transfer import Grouping, Mean, make_combiner
from studies.supervised import groupings, suites
from studies.supervised.all_groups import every_group, train_every_group
from studies.supervised.joint import train_joint
from studies.supervised.networks import batches, initial, task_losses
from studies.supervised.settings import Settings

SHORT = Settings(suite="regression", seeds=2, steps=12, batch=16, every=3)


@pytest.fixture(scope="module")
def regression():
    return suites.regression()


@pytest.fixture(scope="module")
def losses(regression):
    return train_every_group(regression, SHORT)


def trained_alone(suite, group, seed):
    """Test losses of one network that trains on one group, by torch's own modules."""
    trunk, heads = initial(suite, seed)
    layer, ends = torch.nn.Linear(10, suite.width), [torch.nn.Linear(suite.width, 1) for _ in group]
    with torch.no_grad():
        layer.weight.copy_(trunk["weight"].T)
        layer.bias.copy_(trunk["bias"])
        for task, end in zip(group, ends, strict=True):
            end.weight.copy_(heads["weight"][task].T)
            end.bias.copy_(heads["bias"][task])
    parameters = [*layer.parameters(), *(value for end in ends for value in end.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=SHORT.learning_rate)

    def loss(x, y):
        out = torch.cat([end(torch.tanh(layer(x))) for end in ends], dim=1)
        return (out - y[:, list(group)]).square().mean(dim=0)

    for rows in batches(suite, seed, SHORT.steps, SHORT.batch):
        optimizer.zero_grad()
        loss(suite.train.x[rows], suite.train.y[rows]).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return loss(*suite.test)


@pytest.mark.parametrize("group", [(2,), (0, 3), (1, 2, 4, 5)])
def test_group_is_trained_as_if_alone(regression, losses, group):
    row = sum(1 << task for task in group) - 1
    assert every_group(6)[row].nonzero().flatten().tolist() == list(group)
    for seed in range(SHORT.seeds):
        torch.testing.assert_close(losses[seed, row, list(group)], trained_alone(regression, group, seed))
    assert losses[:, row].isnan().sum() == SHORT.seeds * (6 - len(group))


def test_joint_run_equals_the_group_of_all_tasks(regression, losses):
    measured = train_joint(regression, SHORT, 1, Mean(), every=3)
    torch.testing.assert_close(measured.losses, losses[1, -1])
    assert torch.equal(measured.losses, train_joint(regression, SHORT, 1, Mean(), every=None).losses)
    assert measured.affinity.shape == (3, 6, 6)  # at updates 3, 6 and 9: before the first step nothing can be matched
    assert (measured.affinity.diagonal(dim1=1, dim2=2).mean(dim=0) > 0).all()


@pytest.mark.parametrize("name", ["pcgrad", "transference"])
def test_combiners_differ_and_repeat(regression, losses, name):
    def run():
        combiner = make_combiner(name)
        combiner.seed(1)
        return train_joint(regression, SHORT, 1, combiner, None).losses

    assert torch.equal(run(), run())
    assert not torch.allclose(run(), losses[1, -1])


def test_classes_are_scored_by_cross_entropy():
    suite = suites.digits()
    trunk, heads = initial(suite, 0)
    rows = suites.Rows(suite.test.x[:5], suite.test.y[:5])
    out = torch.tanh(rows.x @ trunk["weight"] + trunk["bias"])
    for task in range(6):
        logits = out @ heads["weight"][task] + heads["bias"][task]
        expected = torch.nn.functional.cross_entropy(logits, rows.y[:, task])
        torch.testing.assert_close(task_losses(trunk, heads, rows)[task], expected)


def test_rows_have_unseen_digits_and_true_labels():
    suite = suites.digits()
    seen = {image.numpy().tobytes() for image in suite.train.x.unflatten(1, (8, 12))[:, :, :4]}
    assert not seen & {image.numpy().tobytes() for image in suite.test.x.unflatten(1, (8, 12))[:, :, :4]}
    left, right, left_even, right_even, parity, larger = suite.test.y.T
    assert torch.equal(left_even, left % 2)
    assert torch.equal(parity == 0, (left % 2) == (right % 2))
    assert torch.equal(larger == 1, left > right)
    assert right_even.unique().tolist() == [0, 1]


def test_regret_is_against_the_best_grouping():
    """Against every choice of groups of two or more, spelt out."""
    losses = torch.rand(3, 15, 4, generator=torch.Generator().manual_seed(0)).numpy()
    losses[:, ~every_group(4).numpy()] = np.nan
    found = groupings.truth(losses)
    assert found.of(Grouping(((0, 1, 2, 3),), (0, 0, 0, 0))) == pytest.approx(1.0)
    two = losses.mean(axis=0)[[2, 11]]  # {0, 1} and {2, 3}
    expected = np.array([two[0, 0], two[0, 1], two[1, 2], two[1, 3]]) / losses.mean(axis=0)[-1]
    assert found.of(Grouping(((0, 1), (2, 3)), (0, 0, 1, 1))) == pytest.approx(expected.mean())
    for n_groups, smallest in itertools.product((1, 2, 3), (1, 2)):
        rows = [row for row in range(15) if every_group(4)[row].sum() >= smallest]
        tables = [found.relative[list(choice)] for choice in itertools.combinations(rows, n_groups)]
        best = min(np.nanmin(table, axis=0).mean() for table in tables if np.isfinite(table).any(axis=0).all())
        assert found.best(n_groups, smallest) == pytest.approx(best)
    for row in groupings.study(found, np.random.default_rng(0).normal(size=(3, 4, 4))):
        assert row.best_with_single <= row.best <= row.chosen.value
        assert row.regret == row.chosen.value - row.best


def test_study_runs_from_the_command_line(tmp_path, capsys):
    arguments = ["suite=regression", "seeds=2", "steps=12", "batch=16", "every=3", f"out={tmp_path}"]
    assert supervised(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["relative_losses_of_groups"][0].count(None) == 5  # all but the group's only task
    assert [row["n_groups"] for row in results["groupings"]] == [1, 2, 3, 4, 5, 6]
    assert results["groupings"][0]["chosen"]["value"] == pytest.approx(1.0)
    assert results["controls"]["all together"] == pytest.approx(1.0)
    text = (tmp_path / "report.md").read_text()
    assert "| transference + PCGrad |" in text
    for name in ("groups", "affinity", "dendrogram", "predicted_realised"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()
        assert f"(figures/{name}.svg)" in text
    assert (tmp_path / "report.html").read_text().count("<figure>") == 4
    capsys.readouterr()


def test_bad_settings_are_named(capsys, monkeypatch):
    assert supervised(["suite=digit"]) == 2
    assert "suite='digit'" in (told := capsys.readouterr().err)
    assert "'digits' or 'regression'" in told
    assert supervised(["seeds=1", "stepps=3"]) == 2
    told = capsys.readouterr().err
    assert "seeds=1" in told
    assert "did you mean steps?" in told
    assert supervised(["suite=regression", "steps=10", "every=10", f"out={__file__}"]) == 2
    told = capsys.readouterr().err
    assert "every=10 should be below steps=10: no affinity would be measured" in told
    assert f"out={__file__}: {__file__} is a file, expected a folder" in told
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert supervised(["suite=digits"]) == 2
    assert "pip install 'mtrl-transfer[supervised]'" in capsys.readouterr().err
