"""Meta-World tasks."""

import os
import warnings

try:
    import mujoco  # noqa: F401
except Exception as error:
    backend = os.environ.get("MUJOCO_GL")
    if not backend:
        raise
    warnings.warn(f"MUJOCO_GL={backend} cannot be used here, so nothing can be drawn: {error}", stacklevel=2)
    os.environ["MUJOCO_GL"] = "disable"
