"""Task gradients, their combination, and lookahead transference, for any multi-task model in torch."""

from typing import TYPE_CHECKING

from mtrl_transfer.lazy import lazy_names

if TYPE_CHECKING:
    from mtrl_transfer.public import *  # noqa: F403
else:
    __getattr__, __dir__ = lazy_names(__name__)
