"""Pictures of Meta-World without a screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

_DEBIAN_PACKAGES = {"egl": "libegl1", "osmesa": "libosmesa6", "glfw": "libglfw3, and a display is needed"}


def choose_backend() -> None:
    """Let MuJoCo draw by EGL where there is no screen, unless `MUJOCO_GL` says otherwise."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not screen and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"


def upright(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """A picture from camera `corner2`, which is mounted upside down, turned by 180 degrees.

    Raises:
        RuntimeError: If there is no OpenGL to draw with; says what to install.
    """
    try:
        picture = draw()
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL", "glfw")
        packages = ", ".join(f"{name}: {package}" for name, package in _DEBIAN_PACKAGES.items())
        raise RuntimeError(
            f"MuJoCo cannot draw with MUJOCO_GL={backend!r}. Install its system library (Debian and Ubuntu: "
            f"{packages}) or set MUJOCO_GL to a backend that is there ({', '.join(_DEBIAN_PACKAGES)})"
        ) from error
    return np.ascontiguousarray(picture[::-1, ::-1])
