"""What a state dict must say beyond its tensors."""

from typing import Any

from torch import nn


class SavedSettings(nn.Module):
    """A module whose state dict names what no shape shows, and would load wrongly without a word.

    A subclass says in `_settings` what that is. It is kept as metadata beside the tensors; a state
    dict without it, as from a file of tensors alone, loads as ever.
    """

    def _settings(self) -> dict[str, Any]:
        raise TypeError(f"{type(self).__name__} must say what its settings are")

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["settings"] = self._settings()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        saved, errors = local_metadata.get("settings", {}), args[-1]
        for name, here in self._settings().items():
            if saved.get(name, here) != here:
                errors.append(f"{prefix}{name} is {here!r} here, {saved[name]!r} in the state dict")
