"""Saving and loading of agents without pickle, by the methods of stable-baselines3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import get_system_info

from mtrl_transfer.agents.mtsac.arguments import refuse_unknown
from mtrl_transfer.agents.storage import archive
from mtrl_transfer.agents.storage.agent_archive import (
    agent_from_archive,
    agent_to_archive,
    extended_from_archive,
    stored_parameters,
)
from mtrl_transfer.choices import check_choice

if TYPE_CHECKING:
    from mtrl_transfer.agents.mtsac.mtsac import MTSAC


class StoredWithoutPickle(OffPolicyAlgorithm):
    """Storage of `mtrl_transfer.agents.MTSAC`: JSON and safetensors in place of SB3's pickles."""

    def save(self, path: archive.Target, exclude: Any = None, include: Any = None) -> None:
        """Save the agent as a zip of JSON and safetensors; no pickle.

        Args:
            path: file (``.zip`` is added where there is no suffix) or binary stream.
            exclude: of SB3's signature; must be None, because the whole agent is saved.
            include: of SB3's signature; must be None.
        """
        if exclude is not None or include is not None:
            raise ValueError("MTSAC.save saves the whole agent: exclude and include must be None")
        archive.write_archive(path, *agent_to_archive(self))

    @classmethod
    def load(
        cls,
        path: archive.Target,
        env: GymEnv | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        tasks: Literal["same", "extend"] = "same",
        **kwargs: Any,
    ) -> MTSAC:
        """Load an agent. Opening a file runs no code from it.

        Args:
            path: what `save` wrote.
            env: environment to train on; not needed for prediction.
            device: as in SB3.
            custom_objects: arguments that replace stored ones, as in SB3: unknown names are ignored.
            print_system_info: print the versions of the libraries here.
            force_reset: must be True: training always goes on from a reset environment.
            tasks: ``same``: the environment has the agent's tasks, and training goes on where it was. ``extend``: it
                may have others; trunks stay, and heads, temperatures, reward scales and input statistics of the tasks
                that are still there, by name. New tasks begin anew, and so do optimizers, combiners, replay, counters.
            **kwargs: arguments that replace stored ones, such as ``combiner`` if the agent had an object, or ``policy``
                if its policy was a class of your own. Another combiner, or one with other ``combiner_kwargs``, begins
                anew.

        Raises:
            FileNotFoundError: if there is no such file.
            TypeError: for an argument that MTSAC does not have.
            ValueError: if it is not one of ours, if the environment's tasks or spaces differ, or if an argument does
                not suit the stored agent.
            MemoryError: if there is no memory for the replay; ``buffer_size=1`` is enough to predict.
        """
        if not force_reset:
            raise ValueError("force_reset=False is not supported: training goes on from a reset environment")
        if print_system_info:
            get_system_info()
        known = {"policy", "policy_class", *cls.arguments.model_fields}
        refuse_unknown(kwargs.keys() - known, known)
        replaced = {name: value for name, value in (custom_objects or {}).items() if name in known} | kwargs
        load = {"same": agent_from_archive, "extend": extended_from_archive}
        check_choice("tasks", tasks, load)
        return load[tasks](cls, path, *archive.read_archive(path), env, device, replaced)

    @classmethod
    def from_hub(
        cls,
        repo: str,
        env: GymEnv | None = None,
        filename: str = "agent.zip",
        revision: str | None = None,
        **kwargs: Any,
    ) -> MTSAC:
        """Load an agent from the Hugging Face Hub, such as ``mtrl-push`` put there. No code from it runs.

        Args:
            repo: ``user/name``.
            env: as in `load`.
            filename: of the agent in the repository.
            revision: commit, branch or tag; None: the newest.
            **kwargs: as in `load`.

        Raises:
            ImportError: without huggingface_hub.
            ValueError: as in `load`.
        """
        try:
            from huggingface_hub import hf_hub_download
        except ImportError:
            raise ImportError("from_hub needs huggingface_hub: pip install 'mtrl-transfer[hub]'") from None
        return cls.load(hf_hub_download(repo, filename, revision=revision), env, **kwargs)

    def save_replay_buffer(self, path: archive.Target) -> None:
        """Write the stored transitions as safetensors (SB3 would pickle them).

        Args:
            path: file, whose folders are made, or binary stream.
        """
        self.replay_buffer.save(path)

    def load_replay_buffer(self, path: archive.Target, truncate_last_traj: bool = True) -> None:
        """Read stored transitions: of all tasks, or of those that the agent still has (``load(tasks="extend")``).

        Args:
            path: file or binary stream that `save_replay_buffer` wrote.
            truncate_last_traj: of SB3's signature; training ends the last episode where it resets the environment.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else, or none of the agent's tasks.
        """
        self.replay_buffer.load(path)
        self.rewards.take_stored(self.replay_buffer)

    def set_parameters(
        self,
        load_path_or_dict: archive.Target | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """Take over parameters, as in SB3.

        Args:
            load_path_or_dict: what `save` wrote, or what SB3's ``get_parameters`` returned.
            exact_match: require all parameters of all networks and optimizers.
            device: of SB3's signature; parameters go to the agent's device.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no agent, or names do not match.
            RuntimeError: if shapes do not match.
        """
        given = load_path_or_dict
        parameters = given if isinstance(given, dict) else stored_parameters(self, given)
        super().set_parameters(parameters, exact_match, device)
        if self.learner.records:  # recordings read the tensors that were there before
            self.learner.record()
