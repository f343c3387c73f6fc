"""The study of decisions."""

import numpy as np
import pytest
import torch

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.envs import make_vec_env
from studies.decisions.judge import judge
from studies.decisions.run import worth_of
from studies.decisions.settings import Settings


@pytest.mark.slow
def test_decisions_are_judged_and_the_agent_stays():
    agent = MTSAC("MultiTaskPolicy", make_vec_env("Point-3"), batch_size=24, policy_kwargs={"net_arch": [4, 4]}, seed=0)
    agent.learn(120)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    settings = Settings(
        agents=("none",), decisions=2, rows=(4,), truth_rows=30, gradient_rows=8, horizon=2, horizon_decisions=1
    )
    judged, again = list(judge(agent, settings)), list(judge(agent, settings))
    assert judged == again
    assert {one.measure for one in judged} == {"exact", "first_order", "basis", "lookahead_gradient", "horizon"}
    for one in judged:
        assert one.differs or one.lead == 0
        assert one.headroom is None or one.lead <= one.headroom + 1e-9
    assert all(torch.equal(value, before[name]) for name, value in agent.policy.state_dict().items())
    for who, worth in worth_of([judged, judged]).items():
        assert worth.n == (2 if who.measure == "horizon" else 4)
        assert np.isfinite(worth.lead).all()
        assert worth.lead.low <= worth.lead.value <= worth.lead.high
