"""The whole state of a training, so that it can stop anywhere and go on.

One process, or several with DDP, write one file. With FSDP each process writes its part into a
folder beside it (`shards.py`). Either is read by any number of processes of either kind.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from zeta_edu.files import read_json, write_atomically
from zeta_edu.lm import parallel
from zeta_edu.lm.checkpoints import check_tensors, read_tensors

TEXTS = "training.json"  # of a folder of shards: what a file keeps beside its tensors
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter


def save_state(
    path: str | Path,
    model: nn.Module,
    optimizer: Optimizer,
    identity: dict[str, Any],
    progress: dict[str, Any],
) -> None:
    """Write what is trained, optimizer, random states and progress, in one step.

    Args:
        path: the file. With FSDP, the shards are in a folder of its name and ending `.shards`.
        model: the model.
        optimizer: its optimizer.
        identity: what the training is: the options, the model's shape, the text.
        progress: where it stands.
    """
    path, trained = Path(path), _trained(model)
    tensors = {f"model.{name}": parameter.detach() for name, parameter in trained.items()}
    tensors |= {
        f"optimizer.{name}.{key}": optimizer.state[parameter][key]
        for name, parameter in trained.items()
        for key in MOMENTS
    }
    texts = {"identity": json.dumps(identity), "progress": json.dumps(progress)}
    if any(map(parallel.is_spread, tensors.values())):
        from zeta_edu.lm import shards

        shards.save(_folder_of_shards(path), tensors | _own_random(model), texts, progress["step"])
        if parallel.is_first():
            path.unlink(missing_ok=True)
        return
    randoms = {name: t for states in _all_random(model) for name, t in states.items()}
    if parallel.is_first():
        tensors = {name: t.cpu().contiguous() for name, t in (tensors | randoms).items()}
        write_atomically(path, safetensors_bytes(tensors, texts))
        shutil.rmtree(_folder_of_shards(path), ignore_errors=True)


def restore_state(
    path: str | Path | None,
    model: nn.Module,
    optimizer: Optimizer,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Put back what `save_state` wrote, the global random states of torch included.

    On another number of processes the random states are drawn anew, from seed, step and rank.

    Returns:
        The progress.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is damaged, or belongs to a training of another identity.
    """
    path, sharded = _newest(path)
    trained = _trained(model)
    expected = _tensors_like(trained)
    tensors, texts = ({}, read_json(path / TEXTS)) if sharded else read_tensors(path)
    saved_identity, progress = _texts(texts, path)
    _check_identity(saved_identity, json.loads(json.dumps(identity)), path)
    if sharded:
        from zeta_edu.lm import shards

        tensors = shards.load(path, expected)
    randoms = {n: tensors.pop(n) for n in sorted(tensors) if n.startswith("random.")}
    check_tensors(tensors, expected, path)
    _restore_random(randoms, path, model, int(identity.get("seed", 0)), progress["step"])
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(parallel.like(tensors[f"model.{name}"], parameter))
    _restore_optimizer(trained, optimizer, tensors)
    return progress


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _folder_of_shards(path: Path) -> Path:
    return path.with_suffix(".shards")


def _newest(path: str | Path | None) -> tuple[Path, bool]:
    """Return the checkpoint to go on from, and whether it is one of shards."""
    if path is not None:
        sharded = max(_folder_of_shards(Path(path)).glob("step-*"), default=None)
        if sharded is not None:
            return sharded, True
        if Path(path).is_file():
            return Path(path), False
    raise FileNotFoundError(f"nothing to resume: no checkpoint at {str(path)!r}")


def _texts(texts: dict[str, str], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return identity and progress from the texts stored beside the tensors."""
    try:
        identity, progress = json.loads(texts["identity"]), json.loads(texts["progress"])
        for name in ("validation", "accuracy"):
            progress[name] = {int(step): float(x) for step, x in progress[name].items()}
        return dict(identity), dict(progress)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise ValueError(f"{str(path)!r} is not the checkpoint of a training") from None


def _check_identity(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(name), wanted.get(name)
        if old == new:
            continue
        if name in ("text", "base"):
            what = "another text or tokenizer" if name == "text" else "another base model"
            raise ValueError(f"{str(path)!r} was trained on {what}")
        if isinstance(old, dict) and isinstance(new, dict):
            _check_identity(old, new, path)
        raise ValueError(f"{str(path)!r} was begun with {name} = {old}, not {new}")


def _tensors_like(trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return tensors of the names and shapes of what is trained and of AdamW's state."""
    expected: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        expected[f"model.{name}"] = parameter
        expected[f"optimizer.{name}.step"] = torch.zeros(())
        expected[f"optimizer.{name}.exp_avg"] = parameter
        expected[f"optimizer.{name}.exp_avg_sq"] = parameter
    return expected


def _restore_optimizer(
    trained: dict[str, nn.Parameter], optimizer: Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Fill the optimizer's state through its own state dict, whose keys count the parameters."""
    names = {parameter: name for name, parameter in trained.items()}
    order = [p for group in optimizer.param_groups for p in group["params"]]
    description = optimizer.state_dict()
    description["state"] = {
        number: {key: tensors[f"optimizer.{names[p]}.{key}"] for key in MOMENTS}
        for number, p in enumerate(order)
    }
    for number, parameter in enumerate(order):
        for key in MOMENTS[1:]:
            moment = description["state"][number][key]
            description["state"][number][key] = parallel.like(moment, parameter)
    optimizer.load_state_dict(description)


def seed_own(seed: int, step: int) -> None:
    """Give each process randomness of its own, drawn from the training's seed and the step."""
    drawn = np.random.SeedSequence([seed, step, parallel.rank()]).generate_state(1)
    torch.manual_seed(int(drawn[0]))


def _own_random(model: nn.Module) -> dict[str, Tensor]:
    """Return the states of this process's random generators: the CPU's and its device's."""
    prefix, device = f"random.{parallel.rank()}", next(model.parameters()).device
    states = {f"{prefix}.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[f"{prefix}.{device.type}"] = torch.get_device_module(device).get_rng_state()
    return states


def _all_random(model: nn.Module) -> list[dict[str, Tensor]]:
    """Return the random states of all processes."""
    return parallel.gather(_own_random(model))


def _restore_random(
    saved: dict[str, Tensor], path: Path, model: nn.Module, seed: int, step: int
) -> None:
    ranks = {int(name.split(".")[1]) for name in saved}
    if ranks and ranks != set(range(parallel.processes())):
        seed_own(seed, step)
        return
    for name, now in _own_random(model).items():
        state = saved.get(name)
        if state is None or state.dtype != now.dtype or state.shape != now.shape:
            raise ValueError(f"{str(path)!r} lacks the state {name!r} of this machine")
        kind = name.rpartition(".")[2]
        if kind == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(kind).set_rng_state(state)
