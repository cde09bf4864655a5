"""Models on a hub: `push_to_hub` and `from_pretrained` for those who have one.

Importing this module needs the `huggingface_hub` package; nothing else in the package does.
"""

from pathlib import Path
from typing import Any

try:
    from huggingface_hub import PyTorchModelHubMixin, snapshot_download
except ImportError:
    raise ImportError(
        "the huggingface_hub package is missing; install it with: pip install 'zeta-edu[hub]'"
    ) from None

from zeta_edu.lm.checkpoints import CONFIG, TOKENIZER, WEIGHTS, load_model, save_model
from zeta_edu.lm.model import TransformerLM


class HubTransformerLM(
    TransformerLM,
    PyTorchModelHubMixin,
    library_name="zeta_edu",
    tags=["transformer", "zeta_edu"],
):
    """A `TransformerLM` with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    A folder or repository holds the same files as `save_model` writes, so that `load_model` reads
    it too, and a folder of `save_model` can be uploaded as it is.

    >>> import tempfile
    >>> model = HubTransformerLM(num_tokens=50, dim=16, depth=1, heads=2, dim_head=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = model.save_pretrained(folder)
    ...     HubTransformerLM.from_pretrained(folder).config["dim"]
    16
    """

    @classmethod
    def of(cls, model: TransformerLM) -> "HubTransformerLM":
        """Return a model of this class with the weights and the tokenizer of another."""
        own = cls(**model.config)
        precision = model.embedding.weight.dtype
        own.to(precision).load_state_dict(model.state_dict())
        own.tokenizer = model.tokenizer
        return own.train(model.training)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **_: Any,
    ) -> "HubTransformerLM":
        if Path(model_id).is_dir():
            return cls.of(load_model(model_id))
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, TOKENIZER, WEIGHTS],
        )
        return cls.of(load_model(folder))
