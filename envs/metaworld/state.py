"""The whole state of a Meta-World environment in mid-episode as numbers, from which it is restored bit for bit.

It has three parts: MuJoCo's integration state (positions, velocities, controls, mocap, warm start of the solver), the
places of bodies and sites that a task moves in the model, and the environment's own Python fields. Some of those
fields are live views into MuJoCo's arrays and stay so: if a task's `obj_init_pos` follows the object, it still does
after a restore. MuJoCo computes everything else again in every step.
"""

from __future__ import annotations

import math
from typing import Any

import mujoco
import numpy as np
from metaworld.sawyer_xyz_env import SawyerXYZEnv

_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION
MOVED = ("body_pos", "site_pos")
"""The arrays of the model that resets change."""
VIEWED = ("xpos", "site_xpos")
"""The arrays of MuJoCo's data that fields may be views of."""
_PLAIN = (bool, int, float, str, type(None))


def sawyer_state(env: SawyerXYZEnv) -> dict[str, Any]:
    """Return nested dicts and lists of numbers, texts and arrays. A task must be set."""
    physics = np.empty(mujoco.mj_stateSize(env.model, _PHYSICS))
    mujoco.mj_getState(env.model, env.data, physics, _PHYSICS)
    fields = {name: _stored(env, value) for name, value in vars(env).items() if _is_state(value)}
    return {
        "physics": physics,
        "model": {name: getattr(env.model, name).copy() for name in MOVED},
        "fields": fields,
    }


def restore_sawyer(env: SawyerXYZEnv, state: dict[str, Any]) -> None:
    """Bring an environment of the same class, with the same task set, to a state from `sawyer_state`.

    Raises:
        ValueError: If the state is of another class.
    """
    for name in MOVED:
        _fit(f"model.{name}", state["model"][name], getattr(env.model, name).shape)
        getattr(env.model, name)[:] = state["model"][name]
    _fit("physics", state["physics"], (mujoco.mj_stateSize(env.model, _PHYSICS),))
    mujoco.mj_setState(env.model, env.data, state["physics"], _PHYSICS)
    mujoco.mj_forward(env.model, env.data)
    # Again: mj_forward has moved the solver's warm start on.
    mujoco.mj_setState(env.model, env.data, state["physics"], _PHYSICS)
    for name, value in state["fields"].items():
        if not name.isidentifier() or hasattr(getattr(type(env), name, None), "__get__"):
            raise ValueError(f"{name!r} is no field of {type(env).__name__}")
        setattr(env, name, _restored(env, name, value))


def _is_state(value: Any) -> bool:
    """Return True for numbers, texts and arrays; spaces, the renderer and similar fields never change."""
    if isinstance(value, list):
        return all(isinstance(entry, _PLAIN) for entry in value)
    return isinstance(value, (*_PLAIN, np.generic, np.ndarray))


def _stored(env: SawyerXYZEnv, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _view(env, value) or {"array": value.copy()}
    if isinstance(value, np.generic):  # not a Python number: it would promote float32 arrays otherwise
        return {"scalar": np.array(value)}
    return {"value": value}


def _restored(env: SawyerXYZEnv, name: str, stored: dict[str, Any]) -> Any:
    if "view" not in stored:
        if "scalar" in stored:
            return stored["scalar"][()]
        return stored["array"].copy() if "array" in stored else stored["value"]
    array, start, shape = stored["view"], int(stored["start"]), tuple(stored["shape"])
    whole = getattr(env.data, array).reshape(-1) if array in VIEWED else np.empty(0)
    if not 0 <= start <= start + math.prod(shape) <= whole.size:
        raise ValueError(f"{name!r} views {array}[{start}:], which {type(env).__name__} does not have")
    return whole[start : start + math.prod(shape)].reshape(shape)


def _view(env: SawyerXYZEnv, value: np.ndarray) -> dict[str, Any] | None:
    """Return the part of MuJoCo's data that a field is a view of, or None if it owns its memory."""
    root: Any = value
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if isinstance(root, np.ndarray):
        return None
    for array in VIEWED:
        whole = getattr(env.data, array)
        start, rest = divmod(_address(value) - _address(whole), whole.itemsize)
        if 0 <= start < whole.size and not rest and value.flags.c_contiguous and value.dtype == whole.dtype:
            return {"view": array, "start": start, "shape": list(value.shape)}
    raise NotImplementedError(f"a field of {type(env).__name__} is a view of something else than {', '.join(VIEWED)}")


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _fit(name: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} has shape {list(value.shape)}, this task's has {list(shape)}: another task's state")
