"""The whole state of a training in one file, so that it can stop anywhere and go on."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from zeta_edu.lm.checkpoints import check_tensors, read_tensors
from zeta_edu.lm.files import write_atomically


def save_state(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    identity: dict[str, Any],
    progress: dict[str, Any],
) -> None:
    """Write model, optimizer, random states and progress to one file, in one step.

    Args:
        path: the file.
        model: the model.
        optimizer: its optimizer.
        identity: what the training is: the options, the model's shape, the text.
        progress: where it stands.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= _optimizer_tensors(model, optimizer) | _random_states()
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    texts = {"identity": json.dumps(identity), "progress": json.dumps(progress)}
    write_atomically(path, safetensors_bytes(tensors, texts))


def restore_state(
    path: str | Path | None,
    model: nn.Module,
    optimizer: Optimizer,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Put back what `save_state` wrote, the global random states of torch included.

    Returns:
        The progress.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is damaged, or belongs to a training of another identity.
    """
    if path is None or not Path(path).is_file():
        raise FileNotFoundError(f"nothing to resume: no checkpoint at {str(path)!r}")
    path = Path(path)
    tensors, texts = read_tensors(path)
    saved_identity, progress = _texts(texts, path)
    _check_identity(saved_identity, json.loads(json.dumps(identity)), path)
    random_states = {name: tensors.pop(name, None) for name in _random_states()}
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    check_tensors(tensors, weights | _moments_like(model), path)
    _restore_random_states(random_states, path)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    _restore_optimizer(model, optimizer, tensors)
    return progress


def _texts(texts: dict[str, str], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return identity and progress from the texts stored beside the tensors."""
    try:
        identity, progress = json.loads(texts["identity"]), json.loads(texts["progress"])
        validation = {int(step): float(loss) for step, loss in progress["validation"].items()}
        return dict(identity), {**progress, "validation": validation}
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ValueError(f"{str(path)!r} is not the checkpoint of a training") from None


def _check_identity(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            if name == "text":
                raise ValueError(f"{str(path)!r} was trained on another text or tokenizer")
            raise ValueError(
                f"{str(path)!r} was begun with {name} = {saved.get(name)}, not {wanted.get(name)}"
            )


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _moments_like(model: nn.Module) -> dict[str, Tensor]:
    """Return tensors of the names and shapes that AdamW's state has."""
    expected = {}
    for name, parameter in model.named_parameters():
        expected[f"optimizer.{name}.step"] = torch.zeros(())
        expected[f"optimizer.{name}.exp_avg"] = parameter
        expected[f"optimizer.{name}.exp_avg_sq"] = parameter
    return expected


def _restore_optimizer(model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Fill the optimizer's state through its own state dict, whose keys count the parameters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    description = optimizer.state_dict()
    description["state"] = {
        number: {
            key: tensors[f"optimizer.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
        }
        for number, name in enumerate(order)
    }
    optimizer.load_state_dict(description)


def _random_states() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"random.cuda.{number}"] = state
    return states


def _restore_random_states(states: dict[str, Tensor | None], path: Path) -> None:
    for name, now in _random_states().items():
        state = states[name]
        if state is None or state.dtype != now.dtype or state.shape != now.shape:
            raise ValueError(f"{str(path)!r} lacks the state {name!r} of this machine")
        if name == "random.cpu":
            torch.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, int(name.rpartition(".")[2]))
