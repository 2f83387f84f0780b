"""What a constructor takes, read on the class or in its source, and what it would refuse.

Importing a method takes seconds, since it imports torch. A wrong command is answered at once: its
settings are compared with the constructor as the source file has it. What cannot be read there is
checked when the part is built.
"""

import ast
import builtins
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from latentbench import bounds
from latentbench.annotations import fault
from latentbench.errors import unknown

Parameters = Mapping[str, Parameter]
TARGET, MISSING = "_target_", "???"  # in a config: the class's name; what a user must give
ELSEWHERE = ("device",)  # settings that `runtime` gives
OFF = ("time_nodes",)  # settings that are nothing while they are null, in an id either
FACTS = {"gpu_gib": bounds.Positive | None}  # in a yaml for launchers alone: no part of a cell


class UnreadableError(Exception):
    """This source cannot be understood without running it."""


def of_class(cls: type[Any]) -> Parameters:
    """Return the parameters of a class's constructor, by name."""
    try:
        return signature(cls, eval_str=True).parameters
    except NameError:  # an annotation that is there for type checkers alone
        return signature(cls).parameters


@functools.cache
def of_source(target: str) -> Parameters | None:
    """Return the constructor's parameters of a class by its full name, without importing it.

    Returns:
        The parameters with their annotations evaluated; None where the source does not tell.

    Example:
        >>> sorted(of_source("latentbench.data.faces_dataset.FacesDataset"))
        ['correlation', 'size']
    """
    module, _, name = target.rpartition(".")
    try:
        scope, definition = _constructor(_scope(module), name)
        return {p.name: p for p in _parameters(scope, definition)}
    except (UnreadableError, RecursionError):  # classes may name each other in a circle
        return None


def problems(part: str, given: Mapping[str, Any], parameters: Parameters) -> list[str]:
    """Return one sentence per setting that a constructor would not take.

    Args:
        part: what a user calls it, as in "method" or "metric.psnr".
        given: the settings; `_target_` is none.
        parameters: what the constructor takes.

    Example:
        >>> takes = of_source("latentbench.data.faces_dataset.FacesDataset")
        >>> problems("dataset", {"sizes": 32}, takes)
        ["unknown setting of dataset 'sizes'; did you mean size? known: correlation, size"]
    """
    return list(_problems(part, given, parameters))


def _problems(part: str, given: Mapping[str, Any], parameters: Parameters) -> Iterator[str]:
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    types = {**FACTS, **{name: p.annotation for name, p in parameters.items()}}
    for name, value in given.items():
        if name == TARGET or value == MISSING or _comes_later(value):
            continue
        if name in ELSEWHERE and name in parameters:
            yield f"{part}.{name} is given by runtime.{name}; write runtime.{name}=VALUE"
        elif name in types:
            yield from filter(None, [fault(f"{part}.{name}", value, types[name])])
        elif not open_ended:
            yield str(unknown(f"setting of {part}", str(name), parameters.keys() - {*ELSEWHERE}))
    for name, parameter in parameters.items():
        unset = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        unset = unset and name not in ELSEWHERE
        if given.get(name) == MISSING or (unset and name not in given):
            yield f"{part}.{name} is not set; give {part}.{name}=VALUE"


def _comes_later(value: Any) -> bool:
    """Return whether Hydra makes the value: an object of its own, or an interpolation."""
    if isinstance(value, Mapping):
        return TARGET in value
    return isinstance(value, str) and "${" in value


class _Scope(Mapping[str, Any]):
    """The names of a module, evaluated one by one when they are asked for."""

    def __init__(self, module: str) -> None:
        self.module = module
        try:
            self.tree = ast.parse(_file(module).read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError) as error:
            raise UnreadableError(module) from error
        self.assigned = dict(_assignments(self.tree))
        self.imported = dict(_imports(self.tree))
        self.classes = {
            node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)
        }

    def __getitem__(self, name: str) -> Any:
        if name in self.assigned:
            return self.evaluate(self.assigned[name])
        if name in self.imported:
            return _imported(*self.imported[name])
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise UnreadableError(f"{name} in {self.module}")

    def __iter__(self) -> Iterator[str]:
        return iter({**self.assigned, **self.imported})

    def __len__(self) -> int:
        return len(self.assigned) + len(self.imported)

    def evaluate(self, node: ast.expr) -> Any:
        """Return the value of an expression of names that this module knows."""
        try:
            return eval(compile(ast.Expression(node), self.module, "eval"), {}, self)
        except UnreadableError:
            raise
        except Exception as error:
            raise UnreadableError(f"{ast.unparse(node)} in {self.module}") from error

    def annotation(self, node: ast.expr | None) -> Any:
        """Return the value of an annotation, which may be written as text."""
        value = Parameter.empty if node is None else self.evaluate(node)
        return (
            self.evaluate(ast.parse(value, mode="eval").body) if isinstance(value, str) else value
        )


@functools.cache
def _scope(module: str) -> _Scope:
    return _Scope(module)


def _file(module: str) -> Path:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise UnreadableError(module) from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise UnreadableError(module)
    return Path(found.origin)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (local name, (module, name there)); an empty name is the module itself."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((a.asname or a.name, (node.module, a.name)) for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.asname or a.name, (a.name, "")) for a in node.names if "." not in a.name)


def _imported(module: str, name: str) -> Any:
    """Return what an import gives: light modules are imported, others are read."""
    if module.split(".")[0] in sys.stdlib_module_names or module == bounds.__name__:
        found = importlib.import_module(module)
        return getattr(found, name) if name else found
    if not name:
        raise UnreadableError(module)
    return _scope(module)[name]


def _constructor(scope: _Scope, name: str) -> tuple[_Scope, ast.FunctionDef]:
    """Return the constructor that a class has or inherits, with the scope of its annotations."""
    if name not in scope.classes:
        if name not in scope.imported:
            raise UnreadableError(f"{name} in {scope.module}")
        module, there = scope.imported[name]
        return _constructor(_scope(module), there)
    node = scope.classes[name]
    if node.decorator_list:
        raise UnreadableError(f"the decorated class {name}")
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return scope, inner
    for base in node.bases:
        if isinstance(base, ast.Name):
            return _constructor(scope, base.id)
    raise UnreadableError(f"no constructor of {name}")


def _parameters(scope: _Scope, definition: ast.FunctionDef) -> Iterator[Parameter]:
    arguments = definition.args
    if len(arguments.args) > 1 or arguments.vararg or arguments.kwarg or definition.decorator_list:
        raise UnreadableError(f"line {definition.lineno} of {scope.module}")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        annotation = scope.annotation(argument.annotation)
        value = Parameter.empty if default is None else scope.evaluate(default)
        yield Parameter(argument.arg, Parameter.KEYWORD_ONLY, default=value, annotation=annotation)
