"""Imports of the process that runs are forked from, and the commit of the imported code."""

from __future__ import annotations

import torch._dynamo  # noqa: F401  # the first optimizer imports it; all of this would be half of a short run's time

import mtrl_transfer.agents.runs.compare.one_run  # noqa: F401
from mtrl_transfer.agents.runs.protocol import commit

commit()  # what is committed afterwards is not what runs forked from here do
