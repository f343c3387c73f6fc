"""Pictures of Meta-World without a screen."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

_DEBIAN_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6", "glfw": "libglfw3, and a display is needed"}


def choose_backend() -> None:
    """Let MuJoCo draw with EGL if there is no screen, unless `MUJOCO_GL` is set."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screen and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"


def draw_plainly(model: Any) -> None:
    """Leave out shadows and multisampling, which take six sevenths of the time if no GPU draws."""
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0


def upright(env: Any) -> np.ndarray:
    """Draw the view of a Meta-World environment's camera `corner2`, turned by 180 degrees: it is mounted upside down.

    Raises:
        RuntimeError: If there is no OpenGL to draw with; the message says what to install.
    """
    try:
        viewer = env.mujoco_renderer.viewer
        if viewer is not None:  # otherwise the meshes of the environment that drew last are shown
            viewer.make_context_current()
        picture = env.render()
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL", "glfw")
        packages = ", ".join(f"{name}: {package}" for name, package in _DEBIAN_PACKAGES.items())
        raise RuntimeError(
            f"MuJoCo cannot draw with MUJOCO_GL={backend!r}. Install its system library (Debian and Ubuntu: "
            f"{packages}) or set MUJOCO_GL to a backend that is installed ({', '.join(_DEBIAN_PACKAGES)})"
        ) from error
    return np.ascontiguousarray(picture[::-1, ::-1])
