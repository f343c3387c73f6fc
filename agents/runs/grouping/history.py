"""Affinity recorded by a joint run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.agents.runs.run_folder import RECORD_FILE
from mtrl_transfer.grouping import standardized
from mtrl_transfer.recorder import Recording

ROLES = ("critic", "actor")
PARTS = ("early", "late", "overall")


class AffinityHistory(NamedTuple):
    """Pairwise transference over a run.

    - `names`: names of the T tasks.
    - `steps`: `[N]`, transitions at the end of each window.
    - `pairwise`: by network, mean of each window `[N, T giver, T receiver]`.
    - `measurements`: number of measurements in each window, `[N]`.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    pairwise: dict[str, np.ndarray]
    measurements: np.ndarray

    def affinity(self, network: str, part: str) -> np.ndarray:
        """Return the mean over measurements of a part of the run, `[T giver, T receiver]`.

        Args:
            network: `critic`, `actor`, or `both`: the sum of the two, each standardized, with a zero diagonal.
            part: `early` (the first half of the windows), `late` (the second) or `overall`.
        """
        if network == "both":
            return np.sum([standardized(self.affinity(role, part)) for role in ROLES], axis=0)
        half = (len(self.steps) + 1) // 2
        chosen = {"early": slice(0, half), "late": slice(len(self.steps) - half, None), "overall": slice(None)}[part]
        weights = self.measurements[chosen]
        return np.average(self.pairwise[network][chosen], axis=0, weights=weights)


def read_history(run_folder: Path) -> AffinityHistory:
    """Read the pairwise transference that a run recorded.

    Raises:
        InputError: if nothing was measured, or the file is damaged.
    """
    path = run_folder / RECORD_FILE
    if not path.is_file():
        raise InputError(f"{run_folder} has no {RECORD_FILE}: nothing was recorded, see log.record_every")
    try:
        recording = Recording(path)
        read = {role: recording.of(role) for role in ROLES}
    except ValueError as error:
        raise InputError(str(error)) from None
    whole = np.all([read[role]["measurements"] > 0 for role in ROLES], axis=0)
    if not whole.any():
        raise InputError(
            f"{run_folder} measured no pairwise transference: set measure.affinity_every, and train longer"
        )
    pairwise = {role: read[role]["pairwise"][whole].astype(np.float64) for role in ROLES}
    measurements = np.minimum(*(read[role]["measurements"][whole] for role in ROLES))
    return AffinityHistory(tuple(recording.tasks), recording.steps[whole], pairwise, measurements)
