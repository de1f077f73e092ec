"""The files of a user's features: what a file must hold, and the versions of files.

What does not belong here: whether the function of a file may join the stream (`check`), and the folder of the files (`folder`).
"""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from btc_core import user_files
from btc_core.errors import InvalidInput
from btc_core.features.catalogue import FEATURE_NAMES
from btc_core.features.minute_columns import COLUMNS
from btc_core.features.user.minutes import LONGEST, MINUTES_REVISION
from btc_core.market.messages import FeatureId
from btc_core.user_files import HASH_CHARACTERS, NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FUNCTION, ARGUMENT = "feature", "minutes"
MAX_FILE_BYTES = 100_000
TAKEN = frozenset(
    {*FEATURE_NAMES, *COLUMNS, *FeatureId.__struct_fields__, "feature_version", "origin", "ts_event", "ts_recv"}
)
"""Column names of the system, which a user's feature may not have."""
_LABELS = re.compile(r"(rv_1m_grid|rv_5s_grid|bid)_\d+m(_bps)?")
"""Names of the labels of a data set."""
_MODULES = ("math", "numpy")
_IMPURE = frozenset(
    {
        "open", "input", "print", "exec", "eval", "compile", "__import__", "globals", "locals", "setattr", "getattr",
        "random", "load", "loads", "loadtxt", "genfromtxt", "fromfile", "memmap", "save", "savez", "savetxt", "tofile",
    }
)  # fmt: skip
"""Functions with side effects or outside input, which a feature may not call."""


class FeatureFile(msgspec.Struct, frozen=True):
    """A user's feature as its file declares it."""

    name: str
    unit: str
    meaning: str
    minutes: int
    """How many closed minutes the function reads."""
    source: bytes
    path: Path

    @property
    def version(self) -> str:
        """The version, a hash; it changes when the file or `MINUTES_REVISION` changes."""
        return hashlib.sha256(b"%d\n" % MINUTES_REVISION + self.source).hexdigest()[:HASH_CHARACTERS]


def version_of(files: Sequence[FeatureFile]) -> str:
    """The version of a set of features: a hash of their names and versions; empty without features."""
    if not files:
        return ""
    parts = [(file.name, file.version) for file in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:HASH_CHARACTERS]


def read_feature(path: Path) -> FeatureFile:
    """Read what a file declares, and check its form without running it; raises `InvalidInput`, which names the line."""
    return feature_of(path, user_files.read(path, "feature", MAX_FILE_BYTES))


def feature_of(path: Path, source: bytes) -> FeatureFile:
    """As `read_feature`, for the content of a file that was read already."""
    try:
        tree = ast.parse(source, path.name)
    except SyntaxError as error:
        msg = f"{path.name}, line {error.lineno}: {error.msg}"
        raise InvalidInput(msg) from error
    except ValueError as error:
        msg = f"{path.name} is not a file of Python: {error}"
        raise InvalidInput(msg) from error
    _check_form(path.name, tree)
    return FeatureFile(**_declared(path.name, tree), source=source, path=path)


def _check_form(file: str, tree: ast.Module) -> None:
    """A file may hold imports of math and numpy, constants and functions; raises `InvalidInput` for anything else."""
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _check_import(file, statement)
        elif isinstance(statement, ast.FunctionDef) and statement.decorator_list:
            _refuse(
                file,
                statement,
                f"{statement.name} has a decorator; remove it, the system compiles every function itself",
            )
        elif not isinstance(statement, ast.Assign | ast.AnnAssign | ast.FunctionDef) and not _is_text(statement):
            _refuse(file, statement, "beside functions, a file may only have constants and imports of math and numpy")
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            _refuse(
                file, node, "a feature must not keep anything between two calls; compute it from the minutes each time"
            )
        if isinstance(node, ast.Import | ast.ImportFrom):
            _check_import(file, node)
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in _IMPURE:
            why = "its value must depend on the minutes alone, or a replay could not compute it again"
            _refuse(file, node, f"a feature cannot use {name}: {why}")


def _check_import(file: str, statement: ast.Import | ast.ImportFrom) -> None:
    names = [each.name for each in statement.names] if isinstance(statement, ast.Import) else [statement.module or ""]
    for name in names:
        if name not in {*_MODULES, "__future__"}:
            _refuse(file, statement, f"a feature can import {' and '.join(_MODULES)}, and not {name}")
    if isinstance(statement, ast.ImportFrom):
        for each in statement.names:
            if each.name in _IMPURE:
                _refuse(
                    file, statement, f"a feature cannot use {each.name}: its value must depend on the minutes alone"
                )


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _declared(file: str, tree: ast.Module) -> dict[str, Any]:
    """NAME, UNIT, MEANING and MINUTES of a file; raises `InvalidInput` for what is missing or wrong."""
    found: dict[str, Any] = {}
    lines: dict[str, ast.stmt] = {}
    for statement in tree.body:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            lines[statement.targets[0].id] = statement
            if isinstance(statement.value, ast.Constant):
                found[statement.targets[0].id] = statement.value.value
    for name, example in (
        ("NAME", '"flow_30m"'),
        ("UNIT", '"1"'),
        ("MEANING", '"net buying over 30 min"'),
        ("MINUTES", "30"),
    ):
        kind = int if name == "MINUTES" else str
        if type(found.get(name)) is not kind or found[name] == "":
            words = (
                f"write `{name} = {example}`, with a value of your own"
                if name in lines
                else f"add `{name} = {example}`"
            )
            _refuse(file, lines.get(name), f"it does not say its {name}; {words}")
    _check_declared(file, found, lines)
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    function = functions.get(FUNCTION)
    if function is None:
        _refuse(
            file, None, f"it has no function {FUNCTION}; add `def {FUNCTION}({ARGUMENT}):`, which returns one number"
        )
    if _arguments(function) != 1:
        _refuse(file, function, f"{FUNCTION} must take one argument, the closed minutes: `def {FUNCTION}({ARGUMENT}):`")
    return {"name": found["NAME"], "unit": found["UNIT"], "meaning": found["MEANING"], "minutes": found["MINUTES"]}


def _check_declared(file: str, found: Mapping[str, Any], lines: Mapping[str, ast.stmt]) -> None:
    if not NAME.fullmatch(found["NAME"]):
        words = "use up to 31 lower-case letters, digits and underscores, beginning with a letter"
        _refuse(file, lines["NAME"], f"{found['NAME']!r} cannot be the name of a feature: {words}")
    if found["NAME"] in TAKEN or _LABELS.fullmatch(found["NAME"]):
        _refuse(file, lines["NAME"], f"{found['NAME']} is a column of the system; choose another NAME")
    if not 1 <= found["MINUTES"] <= LONGEST:
        _refuse(
            file, lines["MINUTES"], f"MINUTES is {found['MINUTES']}; a feature may read 1 to {LONGEST} closed minutes"
        )


def _arguments(function: ast.FunctionDef) -> int:
    given = function.args
    return len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) + 2 * bool(given.vararg or given.kwarg)


def _refuse(file: str, node: ast.AST | None, what: str) -> NoReturn:
    line = getattr(node, "lineno", None)
    msg = f"{file}, line {line}: {what}" if line else f"{file}: {what}"
    raise InvalidInput(msg)
