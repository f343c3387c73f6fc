"""Task gradients, their combination, and lookahead transference, for any multi-task model in torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtrl_transfer.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    from importlib import import_module

    public = None if name.startswith("_") and name != "__all__" else import_module(f"{__name__}.public")
    if not hasattr(public, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(public, name)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]
