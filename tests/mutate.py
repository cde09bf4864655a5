"""Break each line of the block in turn, and see whether the tests notice.

    python -m tests.mutate                      all files of the block
    python -m tests.mutate zeta_edu/norm.py     one of them
    python -m tests.mutate --lines 282,293 ...  those of a few lines only
    python -m tests.mutate --list ...           the mutants, without running anything

Every mutant is one small change of the syntax tree: an operator flipped, a factor dropped, two
halves swapped, an index shifted, a condition negated, a constant changed, an option forgotten. It
is written into a copy of the project, never into the project itself, and the tests run against the
copy until the first one fails: the quick ones and, with `--compiled`, then those that compile. A
mutant that no test notices is a survivor, and is printed.
"""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations import mutants

ROOT = Path(__file__).resolve().parent.parent
# The tests of each file, those first that notice most; behind the bar those that compile.
TESTS = {
    "block": "block finetune_modules block_properties errors cache recording state_dict "
    "torch_citizen memory | compile recording",
    "attention": "attention attention_parts attention_kernels causal_mask modes block "
    "block_properties recording torch_citizen long | compile",
    "masks": "causal_mask attention attention_parts attention_kernels torch_citizen | compile",
    "rotary": "rotary positions errors_of_parts modes block cache torch_citizen long | compile",
    "norm": "norm errors_of_parts block oracles",
    "feedforward": "feedforward block errors_of_parts memory",
    "lora": "lora finetune_modules errors errors_of_parts adapters",
    "cache": "cache cache_alone errors modes torch_citizen | compile",
    "recording": "recording errors_of_parts | recording",
    "checks": "errors errors_of_parts",
    "adapters": "adapters errors_of_parts",
}
COMPILING = "compiled or graph"
QUICK = f"not ({COMPILING} or thread)"  # threads wait for each other, on a busy machine in vain
PRELOADED = (
    "torch",
    "torch._dynamo.testing",
    "einops",
    "jaxtyping",
    "hypothesis.strategies",
    "peft",
    "palm_rlhf_pytorch",
)


def rounds_of(name: str, compiled: bool) -> list[list[str]]:
    """What pytest is asked for in turn: a file's own tests, the other quick ones, the slow ones."""
    quick, _, slow = TESTS[name].partition("|")
    first, *others = (f"tests/test_{part}.py" for part in quick.split())
    compiling = [f"tests/test_{part}.py" for part in slow.split() if compiled]
    rounds = [[first], others, compiling]
    names = (QUICK, QUICK, COMPILING)
    return [[*paths, "-k", k] for paths, k in zip(rounds, names, strict=True) if paths]


def notice(copied: Path, name: str, seconds: int, compiled: bool) -> bool:
    """Whether a test fails, or hangs, in a child process that has the slow imports already."""
    child = os.fork()
    if not child:
        # Processor time, so that nothing counts as hanging because others work, too.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        os.chdir(copied)
        sys.path.insert(0, str(copied))
        with Path(os.environ.get("MUTATE_LOG", os.devnull)).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        options = ["-x", "-q", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
        options += ["--assert=plain", "-p", "no:nbval"]
        os._exit(any(pytest.main([*options, *part]) for part in rounds_of(name, compiled)))
    limit = time.monotonic() + 20 * seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def preload() -> None:
    """Import once what every child needs; nothing of the project itself."""
    import warnings

    sys.dont_write_bytecode = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in PRELOADED:
            with contextlib.suppress(ImportError):
                __import__(name)
        from transformers.models.cohere import modeling_cohere  # noqa: F401
        from x_transformers import x_transformers  # noqa: F401


def run(
    copied: Path, path: Path, lines: set[str], seconds: int, compiled: bool
) -> tuple[int, list[str]]:
    """Try every mutant of one file; return how many there are and which survive."""
    source, survivors, count = path.read_text(), [], 0
    target = copied / path.relative_to(ROOT)
    for found, mutated in mutants(source):
        if lines and found.partition(":")[0] not in lines:
            continue
        count += 1
        target.write_text(mutated)
        if not notice(copied, path.stem, seconds, compiled):
            survivors.append(f"{path.name}:{found}")
            print(survivors[-1], flush=True)
    target.write_text(source)
    return count, survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--list", action="store_true", help="print the mutants only")
    parser.add_argument("--compiled", action="store_true", help="run what compiles, too: slow")
    parser.add_argument("--lines", default="", help="mutate these only, as in 12,40")
    parser.add_argument(
        "--seconds", type=int, default=600, help="of processor time that a test run may take"
    )
    options = parser.parse_args()
    files = [f.resolve() for f in options.files] or [ROOT / f"zeta_edu/{n}.py" for n in TESTS]
    if options.list:
        for path in files:
            for found, _ in mutants(path.read_text()):
                print(f"{path.name}:{found}")
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "ZETA_EDU_SHRINK": "no"}
    preload()
    total, survived, lines = 0, 0, {line for line in options.lines.split(",") if line}
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "project"
        ignore = shutil.ignore_patterns(".*", "__pycache__", "notebooks", "shipped")
        shutil.copytree(ROOT, copied, ignore=ignore)
        for path in files:
            if notice(copied, path.stem, options.seconds, options.compiled):
                sys.exit(f"the tests fail without any mutant: {TESTS[path.stem]}")
            count, survivors = run(copied, path, lines, options.seconds, options.compiled)
            total, survived = total + count, survived + len(survivors)
            print(f"{path.name}: {count - len(survivors)} of {count} noticed", flush=True)
    print(f"all: {total - survived} of {total} noticed, {1 - survived / max(1, total):.1%}")


if __name__ == "__main__":
    main()
