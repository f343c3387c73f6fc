"""Files that no run of ours wrote are named in one sentence; the other runs are compared."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finish_all, plan
from rich.console import Console

from mtrl_transfer.agents.runs.compare import statistics
from mtrl_transfer.agents.runs.compare.collect import collect
from mtrl_transfer.agents.runs.compare.command import run_comparison
from mtrl_transfer.agents.runs.compare.plan import Plan, load_plan
from mtrl_transfer.agents.runs.compare.planned import is_finished
from mtrl_transfer.agents.runs.compare.summary import summarise
from mtrl_transfer.agents.runs.errors import InputError

DEEP = "[" * 100_000 + "]" * 100_000
STRANGE = [
    "[]",
    "3",
    "null",
    "{",
    '{"step": Infinity}',
    '{"step": {}}',
    DEEP,
    f'{{"step": {DEEP}}}',
    "9" * 5000,
    "\x00",
]
ODD = [None, True, [], {}, "x", -1, 1.5, 1e308, float("inf"), float("nan"), 10**400, "\ud800", [[1]], {"a": 1}]


@pytest.fixture(autouse=True)
def few_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "REPETITIONS", 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    made = plan(tmp_path_factory.mktemp("comparison"), "seeds=[1]")
    finish_all(made)
    return made


def check_told(made: Plan, path: Path, content: bytes) -> list[str]:
    """Sentences about runs that are missing, none from an exception, with a file's content replaced for a while."""
    sound = path.read_bytes()
    path.write_bytes(content)
    try:
        collected = collect(made, {})
        summarise(collected.runs, list(made.config.methods), made.config.baseline)
    finally:
        path.write_bytes(sound)
    return collected.missing


@pytest.mark.parametrize("name", ["evaluation.json", "protocol.json"])
@pytest.mark.parametrize("content", STRANGE, ids=lambda content: content[:12])
def test_strange_content_is_told_by_file(made: Plan, name: str, content: str):
    path = made.runs[0].planned.run_dir / name
    (told,) = check_told(made, path, content.encode())
    assert told.startswith(f"{made.runs[0].planned.label}: {name} cannot be read (")
    assert len(told) < 300
    assert is_finished(made.runs[0].planned)


@pytest.mark.parametrize("content", STRANGE, ids=lambda content: content[:12])
def test_a_strange_evaluation_finishes_no_run(made: Plan, content: str):
    run = made.runs[0].planned
    sound = (run.run_dir / "evaluation.json").read_bytes()
    (run.run_dir / "evaluation.json").write_text(content)
    assert not is_finished(run)
    (run.run_dir / "evaluation.json").write_bytes(sound)


def places(tree: Any, above: tuple = ()) -> Iterator[tuple]:
    """Every place in a tree but its root, as keys from there."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


def mutated(text: str, chance: random.Random) -> bytes:
    tree = json.loads(text)
    *parents, last = chance.choice(list(places(tree)))
    node = tree
    for key in parents:
        node = node[key]
    if chance.random() < 0.3:
        del node[last]
    else:
        node[last] = chance.choice(ODD)
    return json.dumps(tree).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", ["evaluation.json", "protocol.json", "metrics.jsonl"])
def test_mutations_end_in_no_traceback(made: Plan, name: str):
    chance = random.Random(0)
    path = made.runs[0].planned.run_dir / name
    first, *others = path.read_bytes().split(b"\n", 1) if name.endswith("l") else [path.read_bytes()]
    for _ in range(20):
        check_told(made, path, b"\n".join([mutated(first.decode(), chance), *others]))


@pytest.mark.parametrize(
    "text", ["- 1", "name: [", "a: 2024-99-99", f"name: {'[' * 5000}", "methods: 3", "\x00", "a: !!x b"]
)
def test_strange_comparisons_are_bad_input(tmp_path: Path, text: str):
    (tmp_path / "c.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError):
        load_plan(str(tmp_path / "c.yaml"))


def set_precision(made: Plan, **precisions: str | None) -> None:
    """Give runs, by label, the card of another machine; None: that of version 0.1 with ``medium``."""
    for run in made.runs:
        path = run.planned.run_dir / "protocol.json"
        if not path.exists():
            continue
        card = json.loads(path.read_text("utf-8"))
        precision = precisions.get(run.planned.label, "float32")
        if precision is None:
            del card["precision"]
            card["machine"]["matmul_precision"] = "medium"
        else:
            card["precision"] = precision
        path.write_text(json.dumps(card), "utf-8")


@pytest.mark.parametrize(
    ("precision", "called"), [("bf16", "bf16"), (None, "unknown"), ("float32, tf32", "float32, tf32")]
)
def test_precisions_are_not_mixed_unless_asked_for(tmp_path: Path, precision: str | None, called: str):
    made = plan(tmp_path)
    finish_all(made)
    set_precision(made, mean_s1=precision, pcgrad_s2=precision)
    with pytest.raises(InputError, match=f"{called}: mean_s1, pcgrad_s2; float32: pcgrad_s1, mean_s2, mean_s3"):
        collect(made, {})
    collected = collect(plan(tmp_path, "mix_precisions=true"), {})
    assert collected.missing == []
    assert "Not all runs have the same precision (unlike the other 4: mean 1, pcgrad 2)" in collected.notes


def test_nothing_is_run_beside_another_precision(tmp_path: Path):
    made = plan(tmp_path)
    numbered = finish_all(made, besides=("pcgrad_s3",))
    set_precision(made, **dict.fromkeys(numbered, "bf16"))
    with pytest.raises(InputError, match=r"bf16: .*; float32: pcgrad_s3"):
        run_comparison(made, Console())
    assert not made.runs[-1].planned.run_dir.exists()


def test_runs_of_unknown_precision_go_together(tmp_path: Path):
    made = plan(tmp_path)
    numbered = finish_all(made)
    set_precision(made, **dict.fromkeys(numbered))
    assert len(collect(made, {}).runs) == 6


def test_old_runs_at_the_highest_precision_are_float32(tmp_path: Path):
    made = plan(tmp_path)
    finish_all(made)
    path = made.runs[0].planned.run_dir / "protocol.json"
    card = json.loads(path.read_text("utf-8"))
    del card["precision"]
    path.write_text(json.dumps(card), "utf-8")
    assert len(collect(made, {}).runs) == 6
