"""Small changes of a syntax tree, each of which ought to break a program."""

import ast
import copy
from collections.abc import Callable, Iterator

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
SYMMETRIC = {"promote_types", "max", "min"}

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
    symmetric = ast.unparse(node.func).rpartition(".")[2] in SYMMETRIC
    if len(node.args) == 2 and not symmetric and not isinstance(node.args[0], ast.Constant):
        yield "swap arguments", lambda: _with(node, args=node.args[::-1])
    if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED_METHODS:
        whole = node.func.value
        if not (isinstance(whole, ast.Name) and whole.id in ("torch", "F")):
            yield f"drop .{node.func.attr}()", lambda: whole


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
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return node  # a docstring
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
