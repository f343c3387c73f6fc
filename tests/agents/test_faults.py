"""A task whose loss or gradient is not finite does no harm to the others, is named, and stops training in the end."""

from __future__ import annotations

import warnings

import pytest
import torch

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.envs import make_vec_env
from mtrl_transfer.faults import NotFinite

COMBINERS = ["mean", "pcgrad", "transference", "famo"]


def make(combiner: str = "mean", **arguments) -> MTSAC:
    return MTSAC(
        "MultiTaskPolicy",
        make_vec_env("Point-3"),
        combiner=combiner,
        batch_size=12,
        learning_starts=30,
        buffer_size=300,
        policy_kwargs={"net_arch": [6]},
        seed=0,
        **arguments,
    )


def finite(model: MTSAC) -> bool:
    values = [*model.policy.parameters(), model.temperatures.log_alpha, *_moments(model)]
    return all(bool(value.isfinite().all()) for value in values)


def _moments(model: MTSAC) -> list[torch.Tensor]:
    optimizers = (model.policy.actor_optimizer, model.policy.critic_optimizer, model.temperatures.optimizer)
    return [value for one in optimizers for state in one.state.values() for value in state.values()]


def spoil(model: MTSAC, task: int, column: str, value: float) -> None:
    getattr(model.replay_buffer.storage, column)[:, task] = value


@pytest.mark.parametrize("combiner", COMBINERS)
@pytest.mark.parametrize(("column", "value"), [("rewards", torch.nan), ("observations", torch.inf)])
def test_parameters_stay_finite_and_the_task_is_named(combiner: str, column: str, value: float):
    model = make(combiner).learn(60)
    before = {name: one.clone() for name, one in model.policy.state_dict().items()}
    spoil(model, 1, column, value)
    for _ in range(3):
        model.train(2, 12)
    assert finite(model)
    assert model.unsound_tasks() == ["point-b0"]
    heads = model.policy.state_dict()["critic.heads.weight"], before["critic.heads.weight"]
    assert not torch.equal(heads[0][:, 0], heads[1][:, 0])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.dump_logs()
    assert any("critic's loss or gradient of point-b0 was not finite in 6 updates" in str(one.message) for one in told)
    assert all("of point-b0 was" in str(one.message) for one in told)


def test_other_tasks_learn_as_without_the_faulty_one():
    """Against a literal mean of the other two tasks' gradients, over three."""
    model = make(max_grad_norm=None).learn(60)
    update, seen = model.updates["critic"], {}
    tasks, _ = update._task_gradients(_batch(model))
    name, shared = next(iter(tasks.shared_grads.items()))
    expected = (shared[0] + shared[2]) / 3
    spoiled = _batch(model)
    spoiled = spoiled._replace(targets=spoiled.targets.clone().index_fill_(0, torch.tensor([1]), torch.nan))
    update._apply = lambda gradients, *_, **__: seen.update(gradients=gradients)
    update.step(spoiled, lambda *_: None)
    torch.testing.assert_close(seen["gradients"][list(tasks.shared_grads).index(name)], expected)


def _batch(model: MTSAC):
    generator = torch.Generator().manual_seed(0)
    return model.minibatches.critic(model.minibatches.sample(12, generator), generator)


def test_too_many_in_a_row_stop_training():
    model = make(max_nonfinite=5).learn(60)
    model.dump_logs()
    spoil(model, 2, "rewards", torch.nan)
    model.train(4, 12)
    with pytest.warns(UserWarning, match="noise was not finite in 4 updates"):
        model.dump_logs()
    model.train(1, 12)
    with pytest.raises(NotFinite, match=r"critic's loss or gradient of noise .* the last 5 in a row"):
        model.dump_logs()


def test_a_sound_update_ends_the_row():
    model = make(max_nonfinite=5).learn(60)
    rewards = model.replay_buffer.storage.rewards.clone()
    spoil(model, 2, "rewards", torch.nan)
    model.train(4, 12)
    model.replay_buffer.storage.rewards.copy_(rewards)
    model.train(1, 12)
    assert model.unsound_tasks() == []
