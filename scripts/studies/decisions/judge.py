"""Decisions of one stored agent, each with its true lead over the full set, on many rows that took no part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr
from torch import Tensor

from mtrl_transfer import Context, Transference, candidates
from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.runs.checkpoint import checkpoints
from mtrl_transfer.agents.runs.checkpoint.manifest import read_manifest
from mtrl_transfer.agents.runs.errors import InputError
from mtrl_transfer.choosing.measure import RowTable
from mtrl_transfer.decision import Decision
from mtrl_transfer.gradients import gramian
from mtrl_transfer.horizon import trunks_after
from mtrl_transfer.lookahead import StepLookahead
from mtrl_transfer.optimizer_step import functional_step
from mtrl_transfer.scales import divide
from mtrl_transfer.steps import step_norm
from mtrl_transfer.update import Update
from studies.decisions.settings import Settings

ONE_STEP = ("exact", "first_order", "basis", "lookahead_gradient")
OF_ALL_WEIGHTS = ("first_order", "basis", "lookahead_gradient")
BY_OPTIMIZER = ("exact", "lookahead_gradient")
HORIZON = "horizon"


class Judged(NamedTuple):
    """One decision.

    - `role`, `measure`, `candidates`, `rows`, `significant`: who decided, among what, on how many rows of each task.
    - `differs`: True if it is not the full set.
    - `lead`: true total transference of the choice less the full set's.
    - `gain`: true total transference of the full set.
    - `headroom`: true lead of the truly best of the same candidates, which nobody knows beforehand; None of weights.
    - `rank`: Spearman correlation of the candidates' scores with the truth; None of weights.
    """

    role: str
    measure: str
    candidates: str
    rows: int
    significant: bool
    differs: bool
    lead: float
    gain: float
    headroom: float | None
    rank: float | None


def load_agent(folder: Path) -> MTSAC:
    """Return the agent of a checkpoint's folder, or of the newest checkpoint of a run's folder, with its replay.

    Raises:
        InputError: if there is none.
    """
    if not (folder / checkpoints.AGENT).is_file() or not (folder / "manifest.json").is_file():
        newest = checkpoints.newest(folder)
        if newest is None:
            raise InputError(f"agents names {folder}, which is neither a checkpoint nor the folder of a run with one")
        folder = newest.folder
    agent = MTSAC.load(folder / checkpoints.AGENT, device="cpu")
    checkpoints.load_replay(folder.parents[1], read_manifest(folder), agent.replay_buffer)
    return agent


def judge(agent: MTSAC, settings: Settings) -> Iterator[Judged]:
    """Judge decisions for both roles; the agent does not change."""
    for role, update in agent.updates.items():
        draw = partial(_draw, agent, role, torch.Generator().manual_seed(settings.seed))
        for number in range(settings.decisions):
            yield from _Judge(role, update, draw, settings).one_step()
            if number < settings.horizon_decisions:
                yield from _over_horizon(role, update, draw, settings)


def _draw(agent: MTSAC, role: str, generator: torch.Generator, rows: int) -> Any:
    """Draw a batch for the role's loss, `rows` rows of each task."""
    batches = agent.minibatches
    make: Callable[..., Any] = batches.critic if role == "critic" else batches.actor
    return make(batches.sample(rows * agent.n_tasks, generator), generator)


class _Judge:
    """One batch of gradients, rows to decide on, and rows for the truth."""

    def __init__(self, role: str, update: Update[Any], draw: Callable[[int], Any], settings: Settings) -> None:
        self.role, self.settings, model = role, settings, update.model
        tasks, given = model.gradients(draw(settings.gradient_rows))
        gram = gramian(tasks.shared_grads)
        full = torch.full_like(gram[:1], 1 / len(gram))
        own = {name: model.trunk[name] for name in tasks.shared_grads}
        lookahead = StepLookahead(model, tasks, gram, lambda rows, _: draw(rows or 1), None, update.optimizer)
        lookahead.max_grad_norm = update.max_grad_norm
        shortened = full * lookahead.clipping(full)
        mean = {
            name: torch.einsum("t,t...->...", shortened[0], grad)[None] for name, grad in tasks.shared_grads.items()
        }
        moved = functional_step(update.optimizer, own, mean)
        lookahead.step_norm = step_norm(own, {name: value[0] for name, value in moved.items()})
        spread = given.losses[0].std(-1) if model.signed else None
        self.gramian = gram
        self.context = Context(
            losses=tasks.losses, scales=spread, signed=model.signed, step_norm=lookahead.step_norm, lookahead=lookahead
        )
        self._truth = lookahead.on(settings.truth_rows)

    def one_step(self) -> Iterator[Judged]:
        """Judge all one-step measures; every number of rows is drawn once, for all of them."""
        selectors: tuple[Any, ...] = ("best", {"name": "significant", "z": self.settings.z})
        made = [
            (measure, listed, rows, selector != "best", self._decision(measure, listed, rows, selector))
            for measure in ONE_STEP
            for listed in ("leave_one_out", *(["weights"] if measure in OF_ALL_WEIGHTS else []))
            for rows in self.settings.rows
            for selector in selectors
        ]
        everything = torch.cat([decision.candidates for *_, decision in made])
        different, place = everything.unique(dim=0, return_inverse=True)
        true = self._true(different)[place].split([len(decision.candidates) for *_, decision in made])
        for (measure, listed, rows, significant, decision), of in zip(made, true, strict=True):
            alike = listed == "leave_one_out"
            yield Judged(
                role=self.role,
                measure=measure,
                candidates=listed,
                rows=rows,
                significant=significant,
                differs=bool(decision.choice),
                lead=float(of[decision.choice] - of[0]),
                gain=float(of[0]),
                headroom=float(of.max() - of[0]) if alike else None,
                rank=float(spearmanr(decision.scores, of).statistic) if alike else None,
            )

    def _decision(self, measure: str, listed: str, rows: int, selector: Any) -> Decision:
        settings = {"name": measure, "rows": rows}
        if self.settings.step == "optimizer" and measure in BY_OPTIMIZER:
            settings["step_size"] = "optimizer"
        combiner = Transference(listed, settings, selector=selector)
        combiner(self.gramian, self.context)
        assert combiner.last is not None
        return combiner.last

    def _true(self, rows: Tensor) -> Tensor:
        """True total transference `[K]`."""
        if self.settings.step == "optimizer":
            table = self._truth.rows_after_optimizer(rows)
        else:
            table = self._truth.row_losses(torch.cat([torch.zeros_like(rows[:1]), rows]))
        return total_transference(table, self.context.signed)


def total_transference(table: Tensor, signed: bool) -> Tensor:
    """Return `Σ_j (L_j(θ) − L_j(w)) / divisor_j [K]` of single rows `[1 + K, T, rows]`, the first at `θ`."""
    divisor = table[0].std(-1) if signed else table[0].mean(-1)
    return divide((table[:1] - table[1:]).mean(-1), divisor).sum(1)


def _over_horizon(role: str, update: Update[Any], draw: Callable[[int], Any], settings: Settings) -> Iterator[Judged]:
    """Judge leave-one-out over a horizon: chosen after some steps, true after as many others."""
    model = update.model
    rows = candidates.leave_one_out(model.n_tasks)
    batches = [[draw(settings.gradient_rows) for _ in range(settings.horizon)] for _ in range(2)]
    deciding, other = (
        trunks_after(model, some, rows, update.optimizer, max_grad_norm=update.max_grad_norm) for some in batches
    )
    with torch.no_grad():
        table = _rows_at(model, draw(settings.truth_rows), other)
        true = total_transference(table, model.signed)
        for n_rows in settings.rows:
            table = _rows_at(model, draw(n_rows), deciding)
            scores = total_transference(table, model.signed)
            divisor = table[0].std(-1) if model.signed else table[0].mean(-1)
            errors = RowTable(table).lead_errors(rows, divisor)
            for significant in (False, True):
                leads = scores - scores[0] > settings.z * errors * significant
                choice = int(torch.where(leads, scores, -torch.inf).argmax()) if leads.any() else 0
                yield Judged(
                    role=role,
                    measure=HORIZON,
                    candidates="leave_one_out",
                    rows=n_rows,
                    significant=significant,
                    differs=choice != 0,
                    lead=float(true[choice] - true[0]),
                    gain=float(true[0]),
                    headroom=float(true.max() - true[0]),
                    rank=float(spearmanr(scores, true).statistic),
                )


def _rows_at(model: Any, batch: Any, trunks: dict[str, Tensor]) -> Tensor:
    """Losses of single rows `[1 + K, T, rows]`: at the present trunk, and at K others."""
    return torch.cat([model.row_losses(batch), *(model.row_losses(batch, one) for one in _each(trunks))])


def _each(trunks: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for place in range(len(next(iter(trunks.values())))):
        yield {name: value[place : place + 1] for name, value in trunks.items()}
