"""Opening an agent's file runs none of its code; what is not sound is refused in one clear message."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC

from mtrl_transfer.agents import MTSAC
from mtrl_transfer.agents.storage.archive import DATA, TENSORS
from mtrl_transfer.envs import make_vec_env


@pytest.fixture(scope="module")
def saved() -> bytes:
    model = MTSAC(
        "MultiTaskPolicy", make_vec_env("Point-3"), combiner="mean", buffer_size=30, policy_kwargs={"net_arch": [4]}
    )
    stream = io.BytesIO()
    model.save(stream)
    return stream.getvalue()


def parts(saved: bytes) -> tuple[dict, dict[str, torch.Tensor]]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        return json.loads(archive.read(DATA)), safetensors.torch.load(archive.read(TENSORS))


def packed(data: object, tensors: dict[str, torch.Tensor] | bytes, compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(DATA, data if isinstance(data, str | bytes) else json.dumps(data))
        archive.writestr(TENSORS, tensors if isinstance(tensors, bytes) else safetensors.torch.save(tensors))
    stream.seek(0)
    return stream


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "boom"))


def test_a_pickle_is_not_opened(tmp_path: Path):
    fuse, trap = tmp_path / "exploded", tmp_path / "agent.zip"
    content = pickle.dumps(Bomb(fuse))
    trap.write_bytes(content)
    with pytest.raises(ValueError, match="is not an agent saved by MTSAC"):
        MTSAC.load(trap)
    for name in (DATA, TENSORS, "pytorch_variables.pth", "data"):
        with zipfile.ZipFile(trap, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(ValueError, match="is not an agent saved by MTSAC"):
            MTSAC.load(trap)
    assert not fuse.exists()
    pickle.loads(content)  # it would have
    assert fuse.exists()


def test_an_archive_of_sb3_is_not_opened(tmp_path: Path):
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [2]}).save(tmp_path / "sac")
    with pytest.raises(ValueError, match="hold pickles and are not opened"):
        MTSAC.load(tmp_path / "sac.zip")


def test_zip_bombs_and_paths(saved: bytes, tmp_path: Path):
    data, tensors = parts(saved)
    with pytest.raises(ValueError, match="is compressed"):
        MTSAC.load(packed(data, bytes(1 << 24), zipfile.ZIP_DEFLATED))
    for names in (["../escaped", DATA], [DATA, TENSORS, "/etc/more"], [DATA, DATA], []):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                with pytest.warns() if names == [DATA, DATA] and archive.namelist() else contextlib.nullcontext():
                    archive.writestr(name, "{}")
        with pytest.raises(ValueError, match="it holds"):
            MTSAC.load(stream)
    assert list(tmp_path.iterdir()) == []
    header = (1 << 40).to_bytes(8, "little")
    with pytest.raises(ValueError, match="is not an agent"):
        MTSAC.load(packed(data, header + b"{}"))
    with pytest.raises(ValueError, match="is not an agent"):
        MTSAC.load(packed("[" * 100_000, tensors))


def changed(data: dict, path: str, value: object) -> dict:
    copy = json.loads(json.dumps(data))
    *parents, last = path.split(".")
    node = copy
    for parent in parents:
        node = node[parent]
    node[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("format", 99, "another format"),
        ("policy", {"a": 1}, "policy should be a name"),
        ("policy", "CnnPolicy", "CnnPolicy"),
        ("task_names", [], "task_names"),
        ("task_names", 3, "damaged"),
        ("task_names", ["a", "b"], "damaged"),
        ("arguments.predict", "x", "'predict'"),
        ("arguments.buffer_size", 10**15, "buffer_size"),
        ("arguments.buffer_size", "many", "damaged"),
        ("arguments.combiner", "evil", "unknown combiner"),
        ("arguments.policy_kwargs", {"net_arch": [10**6, 10**6]}, "needs more than"),
        ("arguments.policy_kwargs", {"net_arch": [5]}, "size mismatch|damaged"),
        ("arguments.policy_kwargs", {"evil": 1}, "unknown key policy_kwargs.evil"),
        ("arguments.batch_size", 7, "batch_size=7"),
        ("counters._n_updates_evil", 1, "_n_updates_evil"),
        ("observation_space.shape", [10**9], "damaged|reshape"),
        ("state", {"dict": []}, "damaged"),
        ("state", {"tensor": "nowhere"}, "damaged"),
        ("arguments.policy_kwargs", {"net_arch": [0]}, "should be the widths"),
    ],
)
def test_lies_are_refused(saved: bytes, path: str, value: object, told: str):
    data, tensors = parts(saved)
    with pytest.raises(ValueError, match=told):
        MTSAC.load(packed(changed(data, path, value), tensors))


def test_arguments_newer_than_an_archive_have_defaults(saved: bytes):
    data, tensors = parts(saved)
    newer = ("compile", "overlap", "learning_rate", "n_steps")
    for name in newer:
        del data["arguments"][name]
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        kept = json.loads(archive.read(DATA))["arguments"]
    loaded = MTSAC.load(packed(data, tensors))
    assert {name: getattr(loaded, name) for name in newer} == {name: kept[name] for name in newer}
    MTSAC.load(packed(data, tensors), env=make_vec_env("Point-4"), tasks="extend")
    loaded.set_parameters(packed(data, tensors))


def test_nan_weights_and_wrong_shapes_are_refused(saved: bytes):
    data, tensors = parts(saved)
    name = next(name for name in tensors if name.startswith("agent.policy.actor"))
    with pytest.raises(ValueError, match=r"holds nan"):
        MTSAC.load(packed(data, {**tensors, name: torch.full_like(tensors[name], torch.nan)}))
    with pytest.raises(ValueError, match="damaged"):
        MTSAC.load(packed(data, {**tensors, name: torch.zeros(3, 3, 3)}))
    with pytest.raises(ValueError, match="damaged"):
        MTSAC.load(packed(data, {key: value for key, value in tensors.items() if key != name}))


def test_other_tasks_are_refused(saved: bytes):
    with pytest.raises(ValueError, match="trained on the tasks point-a0, point-b0, noise"):
        MTSAC.load(io.BytesIO(saved), env=make_vec_env("Point-4"))


def check_mutant(content: bytes) -> None:
    """A mutated file loads, or is refused; nothing else."""
    with contextlib.suppress(ValueError):
        MTSAC.load(io.BytesIO(content))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fuzzed_bytes(saved: bytes, data: st.DataObject):
    content = bytearray(saved)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    check_mutant(bytes(content[: data.draw(st.integers(1, len(content)))]))


LEAF = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5)
JSON = LEAF
for _ in range(2):  # not st.recursive, whose limit of leaves made one run in many draw differently when repeated
    JSON = LEAF | st.lists(JSON, max_size=3) | st.dictionaries(st.text(max_size=5), JSON, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_fuzzed_json(saved: bytes, data: st.DataObject):
    tree, tensors = parts(saved)
    key = data.draw(st.sampled_from([*tree, *(f"arguments.{key}" for key in tree["arguments"])]))
    check_mutant(packed(changed(tree, key, data.draw(JSON)), tensors).getvalue())


ODD = [None, True, -1, 0, 1, 3, 10**12, 2**63, -0.5, 1e308, float("nan"), "", "x", "mean", "\ud800", [], [1], [[1]], {}]
ODD += [
    {"a": 1},
    {"tensor": "x"},
    {"array": "agent.temperatures.log_alpha"},
    {"list": []},
    {"dict": []},
    {"dict": [["a"]]},
]


def places(tree: object, at: tuple = ()) -> list[tuple]:
    """Paths to everything in nested dicts and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in inner for path in [(*at, key), *places(value, (*at, key))]]


class Mutants:
    """Mutated files. A changed byte breaks the zip's own checksum, so most are mutated before they are packed."""

    def __init__(self, saved: bytes) -> None:
        self.saved, self.chance = saved, random.Random(0)
        self.tree, self.tensors = parts(saved)
        self.text, self.packed_tensors = json.dumps(self.tree), safetensors.torch.save(self.tensors)
        self.places = places(self.tree)

    def whole_file(self) -> bytes:
        """Bytes changed, or the end missing."""
        return self._flipped(self.saved)[: self.chance.choice([None, self.chance.randrange(len(self.saved))])]

    def values(self) -> bytes:
        """Something odd at some place of the JSON, or nothing there."""
        tree = json.loads(self.text)
        *parents, last = self.chance.choice(self.places)
        node = tree
        for key in parents:
            node = node[key]
        if self.chance.random() < 0.2:
            node.pop(last)
        else:
            node[last] = self.chance.choice(ODD)
        return packed(tree, self.packed_tensors).getvalue()

    def text_of_json(self) -> bytes:
        """Bytes of the JSON changed."""
        return packed(self._flipped(self.text.encode()), self.packed_tensors).getvalue()

    def header_of_tensors(self) -> bytes:
        """Bytes of safetensors' header, its length included, changed."""
        size = 8 + int.from_bytes(self.packed_tensors[:8], "little")
        header, rest = self.packed_tensors[:size], self.packed_tensors[size:]
        return packed(self.text, self._flipped(header) + rest).getvalue()

    def one_tensor(self) -> bytes:
        """A tensor missing, cut, of another kind, or full of one number."""
        name = self.chance.choice(list(self.tensors))
        value = self.tensors[name]
        changed = [
            None,
            value.reshape(-1)[: value.numel() // 2].clone(),
            value.to(self.chance.choice([torch.float64, torch.int64, torch.bool])),
            torch.full_like(
                value, self.chance.choice([torch.nan, torch.inf, -1e38, 0]) if value.is_floating_point() else 255
            ),
        ]
        others = {key: tensor for key, tensor in self.tensors.items() if key != name}
        chosen = self.chance.choice(changed)
        return packed(self.text, others if chosen is None else {**others, name: chosen}).getvalue()

    def _flipped(self, content: bytes) -> bytes:
        mutated = bytearray(content)
        for _ in range(self.chance.randint(1, 4)):
            mutated[self.chance.randrange(len(mutated))] = self.chance.randrange(256)
        return bytes(mutated)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", [Mutants.whole_file, Mutants.values, Mutants.text_of_json, Mutants.header_of_tensors, Mutants.one_tensor]
)
def test_thousands_of_mutants(saved: bytes, kind: Callable[[Mutants], bytes]):
    mutants = Mutants(saved)
    for _ in range(1500):
        check_mutant(kind(mutants))
