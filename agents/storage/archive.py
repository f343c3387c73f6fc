"""Agents on disk: a zip of one JSON and one safetensors file. Reading one runs no code."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 2
DATA, TENSORS = "data.json", "tensors.safetensors"
MAX_DATA = 1 << 26
"""Largest number of bytes of JSON that is read."""
_DAMAGE = (
    zipfile.BadZipFile,
    KeyError,
    ValueError,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
)
"""Errors that reading a damaged or hostile file can raise."""
_PLAIN = (str, int, float, np.generic, type(None))
"""Values that JSON holds as they are; bool is an int."""
Target = str | Path | io.BufferedIOBase


def write_archive(target: Target, data: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write JSON-able ``data`` and named ``tensors``; a file appears whole or not at all.

    Raises:
        ValueError: if ``data`` holds something that JSON cannot; the message names it.
    """
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr(DATA, json.dumps({"format": FORMAT, **data}, indent=1, default=_refuse))
        archive.writestr(TENSORS, safetensors.torch.save(copies(tensors)))
    if isinstance(target, io.BufferedIOBase):
        target.write(payload.getvalue())
        return
    with written_whole(with_suffix(target)) as path:
        path.write_bytes(payload.getvalue())


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Temporary file beside ``path`` that replaces it at the end, or disappears after an error; makes folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, none sharing memory with another: as safetensors needs them."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }


def read_archive(source: Target) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_archive` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not one of ours.
    """
    source = locate(source)
    try:
        with zipfile.ZipFile(source) as archive:
            _check_members(archive)
            data = json.loads(archive.read(DATA))
            tensors = safetensors.torch.load(archive.read(TENSORS))
    except (*_DAMAGE, SafetensorError) as error:
        raise ValueError(
            f"{source} is not an agent saved by MTSAC ({error}); expected a zip of {DATA} and {TENSORS}; files of "
            "stable-baselines3's own algorithms hold pickles and are not opened, because a pickle can run any code"
        ) from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(
            f"{source} was written in another format; this version reads format {FORMAT}, and files of version 0.1 are "
            "opened by version 0.1 only"
        )
    return data, tensors


def locate(source: Target) -> Target:
    """Path of an existing file, with ``agent`` short for ``agent.zip``; a stream is returned as it is.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if isinstance(source, io.BufferedIOBase):
        return source
    path = Path(source) if Path(source).is_file() else with_suffix(source)
    if not path.is_file() and Path(source).is_dir():
        raise FileNotFoundError(f"{source} is a folder, not an agent; that of a run is {Path(source) / 'agent.zip'}")
    if not path.is_file():
        raise FileNotFoundError(f"no agent at {path}")
    return path


def _check_members(archive: zipfile.ZipFile) -> None:
    """Require exactly the two files of an agent, uncompressed: such files cannot swell."""
    if sorted(archive.namelist()) != sorted([DATA, TENSORS]):
        raise ValueError(f"it holds {', '.join(map(repr, archive.namelist()[:5])) or 'nothing'}")
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise ValueError(f"{info.filename} is compressed or encrypted, which ours never are")
    if archive.getinfo(DATA).file_size > MAX_DATA:
        raise ValueError(f"{DATA} has {archive.getinfo(DATA).file_size:,} bytes; at most {MAX_DATA:,} are read")


def with_suffix(path: str | Path) -> Path:
    """SB3's convention: ``agent`` means ``agent.zip``."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(".zip")


def box_to_json(box: spaces.Box) -> dict[str, Any]:
    """A box as JSON; infinities as strings."""
    return {
        "low": [str(value) for value in box.low.ravel().tolist()],
        "high": [str(value) for value in box.high.ravel().tolist()],
        "shape": list(box.shape),
        "dtype": str(box.dtype),
    }


def box_from_json(data: dict[str, Any]) -> spaces.Box:
    """Inverse of `box_to_json`."""
    shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"]).type
    low, high = (np.array([float(value) for value in data[side]], dtype).reshape(shape) for side in ("low", "high"))
    return spaces.Box(low, high, shape, dtype)


def flatten(tree: dict[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split nested dicts and lists into a JSON-able tree and named tensors.

    A tensor becomes ``{"tensor": name}`` in the tree, and a NumPy array ``{"array": name}``.

    Raises:
        ValueError: for anything but dicts with plain keys, lists, numbers, text, None, arrays of numbers and tensors;
            the message says where it is.
    """
    tensors: dict[str, Tensor] = {}

    def keep(value: Tensor, name: str) -> str:
        while name in tensors:
            name += "'"
        tensors[name] = value
        return name

    def walk(node: Any, name: str) -> Any:
        if isinstance(node, Tensor):
            return {"tensor": keep(node, name)}
        if isinstance(node, np.ndarray) and node.dtype.kind in "biuf":
            return {"array": keep(torch.from_numpy(node.copy()), name)}
        if isinstance(node, dict) and all(isinstance(key, _PLAIN) for key in node):
            return {"dict": [[key, walk(value, f"{name}.{key}")] for key, value in node.items()]}
        if isinstance(node, list | tuple):
            return {"list": [walk(value, f"{name}.{index}") for index, value in enumerate(node)]}
        if isinstance(node, _PLAIN):
            return node
        raise ValueError(
            f"{name}={node!r} cannot be stored, a {type(node).__name__}: use numbers, text, lists, dicts with such "
            "keys, arrays and tensors"
        )

    return walk(tree, prefix), tensors


def unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of `flatten` (tuples come back as lists)."""
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "array" in tree:
        return tensors[tree["array"]].cpu().numpy().copy()
    if "list" in tree:
        return [unflatten(value, tensors) for value in tree["list"]]
    return {key: unflatten(value, tensors) for key, value in tree["dict"]}


def _refuse(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(
        f"cannot save {value!r}: agents are saved as JSON and safetensors, so arguments must be numbers, "
        "strings, lists and dicts"
    )


def to_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """All tensors on ``device``."""
    return {name: value.to(device) for name, value in tensors.items()}
