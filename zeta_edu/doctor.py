"""The command `zeta-edu doctor`: what is installed, what it runs on, what is missing."""

import argparse
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

EXTRAS = {
    "notebooks": "the lessons and the views",
    "train": "training, fine-tuning and generating",
    "log": "training logs for TensorBoard",
    "hub": "models on a hub",
}
NEEDED = ("", "notebooks", "train")  # the others are for those who ask for them


def add_commands(subparsers: Any) -> None:
    """Add `doctor` to the commands of `zeta-edu`."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what is installed, what it runs on, and what is missing",
        description="Look at this installation. The exit code is 1 when something is missing that "
        "the lessons, the views or training need.",
    )
    parser.set_defaults(run=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the state of the installation; return 1 when something needed is missing."""
    print(f"zeta-edu {version('zeta-edu')}, Python {platform.python_version()}, {sys.executable}")
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")
    for line in devices():
        print(line)
    missing_needed = False
    for extra, packages in declared().items():
        print(f"\n{f'for {EXTRAS[extra]}' if extra else 'always'}:")
        found = {name: installed(name) for name in packages}
        for name, wanted in packages.items():
            print(f"  {name:18}{found[name] or 'missing':12}{wanted}")
        if None in found.values():
            print(f"  get it with: pip install '{f'zeta-edu[{extra}]' if extra else 'zeta-edu'}'")
            missing_needed |= extra in NEEDED
    print(f"\n{lessons()}")
    return int(missing_needed)


def devices() -> list[str]:
    """Say where torch can compute, or why it cannot be loaded."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [f"torch cannot be loaded: {error}"]
    lines = [f"torch computes on the CPU with {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        names = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        lines += [f"and on cuda:{i}, {name}" for i, name in enumerate(names)]
    if torch.backends.mps.is_available():
        lines.append("and on mps, the GPU of this Mac")
    return lines


def declared() -> dict[str, dict[str, str]]:
    """The packages that this one asks for, and which versions, by extra; "" for always."""
    found: dict[str, dict[str, str]] = {extra: {} for extra in ("", *EXTRAS)}
    for line in requires("zeta-edu") or []:
        what, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"](.+?)['\"]", marker)
        group = extra.group(1) if extra else ""
        name = re.match(r"[\w.-]+", what)
        if name and group in found and name.group() != "zeta-edu":
            found[group][name.group()] = what[name.end() :].strip()
    return {extra: packages for extra, packages in found.items() if packages}


def installed(name: str) -> str | None:
    """The version of a package here, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def lessons() -> str:
    """Say where the shipped lessons are."""
    from zeta_edu.lab import find_lessons

    try:
        folder = find_lessons()
    except FileNotFoundError as error:
        return str(error)
    count = len(list(folder.glob("[0-9]*.ipynb")))
    return f"{count} lessons in {folder}; open them with: zeta-edu lab"
