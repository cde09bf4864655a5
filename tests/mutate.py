"""Break each line of the block in turn, and see whether the tests notice.

    python tests/mutate.py                      all files of the block
    python tests/mutate.py zeta_edu/norm.py     one of them
    python tests/mutate.py --list ...           the mutants, without running anything

Every mutant is one small change of the syntax tree: an operator flipped, a factor dropped, two
halves swapped, an index shifted, a condition negated, a constant changed, an option forgotten. It
is written into a copy of the project, never into the project itself, and the tests run against the
copy until the first one fails. A mutant that no test notices is a survivor, and is printed.
"""

import argparse
import ast
import contextlib
import copy
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "block",
    "attention",
    "rotary",
    "norm",
    "feedforward",
    "lora",
    "cache",
    "recording",
    "checks",
    "adapters",
)
# Tests of the file itself come first; these follow.
OTHERS = (
    "block",
    "attention",
    "cache",
    "rotary",
    "recording",
    "lora",
    "adapters",
    "errors",
    "oracles",
    "torch_citizen",
    "shapes",
    "long",
)
SLOW = "compiled or compiler or graph or 150m"
PRELOADED = ("torch", "einops", "jaxtyping", "hypothesis.strategies", "peft", "palm_rlhf_pytorch")

BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
DROPPED_METHODS = {"to", "clamp", "repeat", "floor", "tril", "any", "pad", "chunk", "removeprefix"}

Mutation = tuple[str, Callable[[], ast.AST]]


def of_operators(node: ast.AST) -> Iterator[Mutation]:
    """Flip an operator, drop an operand, negate."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        yield "flip operator", lambda: _with(node, op=BINARY[type(node.op)]())
        if isinstance(node.op, ast.Mult | ast.Div | ast.BitAnd):
            yield "drop right operand", lambda: node.left
        if isinstance(node.op, ast.Mult | ast.BitAnd):
            yield "drop left operand", lambda: node.right
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield "drop " + type(node.op).__name__, lambda: node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
        changed = [COMPARE[type(node.ops[0])](), *node.ops[1:]]
        yield "flip comparison", lambda: _with(node, ops=changed)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", lambda: _with(node, op=other)


def of_branches(node: ast.AST) -> Iterator[Mutation]:
    """Take the other branch, forget a context."""
    if isinstance(node, ast.If):
        yield "negate if", lambda: _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.IfExp):
        yield "swap branches", lambda: _with(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.With):
        for i in range(len(node.items)):
            rest = node.items[:i] + node.items[i + 1 :]
            if rest:
                yield f"drop context {i}", lambda rest=rest: _with(node, items=rest)
            else:
                yield "drop context", lambda: ast.If(ast.Constant(True), node.body, [])
    elif isinstance(node, ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield "drop statement", lambda: ast.Pass()


def of_values(node: ast.AST) -> Iterator[Mutation]:
    """Change a constant, shift an index, swap two neighbours."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "flip constant", lambda: ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            changed = node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.1
            yield "change constant", lambda: ast.Constant(changed)
        elif isinstance(node.value, str) and "->" in node.value and "(" in node.value:
            yield "swap axes", lambda: ast.Constant(_swapped_axes(node.value))
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            old = getattr(node, bound)
            if old is not None:
                shifted = ast.BinOp(old, ast.Add(), ast.Constant(1))
                yield f"shift {bound}", lambda b=bound, s=shifted: _with(node, **{b: s})
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
        yield "swap pair", lambda: _with(node, elts=node.elts[::-1])


def of_calls(node: ast.AST) -> Iterator[Mutation]:
    """Forget an option or a conversion, swap two arguments."""
    if not isinstance(node, ast.Call):
        return
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            rest = node.keywords[:i] + node.keywords[i + 1 :]
            yield f"drop {keyword.arg}=", lambda rest=rest: _with(node, keywords=rest)
    if len(node.args) == 2 and not isinstance(node.args[0], ast.Constant):
        yield "swap arguments", lambda: _with(node, args=node.args[::-1])
    if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED_METHODS:
        whole = node.func.value
        if not (isinstance(whole, ast.Name) and whole.id in ("torch", "F")):
            yield f"drop .{node.func.attr}()", lambda: whole


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(getattr(node, "value", None), ast.Constant)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _swapped_axes(pattern: str) -> str:
    """Reverse the names in the last pair of brackets: "b h n d -> b n (h d)" mixes up (d h)."""
    start, stop = pattern.rindex("("), pattern.rindex(")")
    names = pattern[start + 1 : stop].split()
    return pattern[: start + 1] + " ".join(names[::-1]) + pattern[stop:]


class Sites(ast.NodeTransformer):
    """Walk through the code that runs, not through types and messages; change the n-th site."""

    def __init__(self, target: int = -1):
        self.target, self.count, self.found = target, 0, ""
        self.sites: list[str] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            return node
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)
            return node
        if isinstance(node, ast.arguments):
            node.defaults = [self.visit(default) for default in node.defaults]
            node.kw_defaults = [d and self.visit(d) for d in node.kw_defaults]
            return node
        if isinstance(node, ast.FunctionDef):
            return self.visit_function(node)
        for operators in (of_operators, of_branches, of_values, of_calls):
            for name, change in operators(node):
                if self.count == self.target:
                    self.count += 1
                    self.found = f"{node.lineno}: {name}: {ast.unparse(node).splitlines()[0]}"
                    return ast.copy_location(change(), node)
                self.sites.append(name)
                self.count += 1
        return self.generic_visit(node)

    def visit_function(self, node: ast.FunctionDef) -> ast.AST:
        self.visit(node.args)
        if not any(ast.unparse(d) == "overload" for d in node.decorator_list):
            node.body = [self.visit(statement) for statement in node.body]
        return node


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """Yield the description and the source of every mutant."""
    counter = Sites()
    counter.visit(ast.parse(source))
    for target in range(counter.count):
        sites = Sites(target)
        tree = ast.fix_missing_locations(sites.visit(ast.parse(source)))
        yield sites.found, ast.unparse(tree)


def tests_of(name: str) -> list[str]:
    wanted = [name, *(other for other in OTHERS if other != name)]
    return [f"tests/test_{n}.py" for n in wanted if (ROOT / f"tests/test_{n}.py").exists()]


def notice(copied: Path, name: str, slow: bool, seconds: float) -> bool:
    """Whether a test fails, or hangs, in a child process that has the slow imports already."""
    child = os.fork()
    if not child:
        os.chdir(copied)
        sys.path.insert(0, str(copied))
        with Path(os.environ.get("MUTATE_LOG", os.devnull)).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        options = ["-x", "-q", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
        options += ["--assert=plain", "-p", "no:nbval", "-k", SLOW if slow else f"not ({SLOW})"]
        own, *others = tests_of(name)
        fine = (0, 5)  # passed, or none chosen
        os._exit(not all(pytest.main([*options, *part]) in fine for part in ([own], others)))
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
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


def run(copied: Path, path: Path, slow: bool, seconds: float) -> tuple[int, list[str]]:
    """Try every mutant of one file; return how many there are and which survive."""
    source, survivors, count = path.read_text(), [], 0
    target = copied / path.relative_to(ROOT)
    for found, mutated in mutants(source):
        count += 1
        target.write_text(mutated)
        if not notice(copied, path.stem, slow, seconds):
            survivors.append(f"{path.name}:{found}")
            print(survivors[-1], flush=True)
    target.write_text(source)
    return count, survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--list", action="store_true", help="print the mutants only")
    parser.add_argument("--slow", action="store_true", help="run the compiled tests only")
    parser.add_argument("--seconds", type=float, default=300, help="a test run may take")
    options = parser.parse_args()
    files = [f.resolve() for f in options.files] or [ROOT / f"zeta_edu/{n}.py" for n in FILES]
    if options.list:
        for path in files:
            for found, _ in mutants(path.read_text()):
                print(f"{path.name}:{found}")
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "ZETA_EDU_SHRINK": "no"}
    preload()
    total, survived = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "project"
        ignore = shutil.ignore_patterns(".*", "__pycache__", "notebooks", "shipped")
        shutil.copytree(ROOT, copied, ignore=ignore)
        for path in files:
            if not options.slow and notice(copied, path.stem, options.slow, options.seconds):
                sys.exit(f"the tests fail without any mutant: {' '.join(tests_of(path.stem))}")
            count, survivors = run(copied, path, options.slow, options.seconds)
            total, survived = total + count, survived + len(survivors)
            print(f"{path.name}: {count - len(survivors)} of {count} noticed", flush=True)
    print(f"all: {total - survived} of {total} noticed, {1 - survived / max(1, total):.1%}")


if __name__ == "__main__":
    main()
