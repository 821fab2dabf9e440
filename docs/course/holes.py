"""Holes: functions of the project whose bodies a student writes.

tasks.toml lists them. A function is found by its name in the syntax tree, so the sources need no
marks. `punch` empties functions, `function_in` cuts one out, `put` puts one in.
"""

import ast
import hashlib
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Task(NamedTuple):
    """A hole, and the tests that fill it with points."""

    id: str  # "1.2": the second one of unit 1
    unit: int
    file: str  # "lift.py"
    name: str  # "info_nce", or "Attention.forward"
    points: int
    visible: list[str]  # tests that students have
    hidden: list[str]  # tests that they have not; in a student's folder there are none


def read_tasks(path: Path) -> list[Task]:
    """The tasks of tasks.toml. ValueError for one without tests, and for an id that comes twice."""
    tasks = [Task(**entry) for entry in tomllib.loads(path.read_text())["task"]]
    ids = [task.id for task in tasks]
    for task in tasks:
        if not task.visible or ids.count(task.id) > 1:
            raise ValueError(f"{path}: task {task.id} has no tests, or comes twice")
    return tasks


def find(source: str, name: str) -> ast.FunctionDef:
    """The function of this qualified name. LookupError if there is not just one."""
    found = [ast.parse(source)]
    for part in name.split("."):
        found = [
            node
            for parent in found
            for node in parent.body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == part
        ]
    if len(found) != 1 or not isinstance(found[0], ast.FunctionDef):
        raise LookupError(f"there is not one function {name}, but {len(found)}")
    return found[0]


def function_in(source: str, name: str) -> str:
    """The lines of a function, without its decorators."""
    node = find(source, name)
    return "".join(source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno])


def put(source: str, name: str, function: str) -> str:
    """The source with another function in the place of this one. Decorators stay."""
    node = find(source, name)
    lines = source.splitlines(keepends=True)
    new = textwrap.indent(textwrap.dedent(function), " " * node.col_offset)
    lines[node.lineno - 1 : node.end_lineno] = [new if new.endswith("\n") else new + "\n"]
    return "".join(lines)


def body_of(source: str, name: str) -> tuple[int, int, str]:
    """(first line, line after the last one, indentation) of a function's body without docstring.

    Comments before the first statement belong to the body.
    """
    node = find(source, name)
    first = node.body[0]
    indent = " " * first.col_offset
    if ast.get_docstring(node) is not None:
        return first.end_lineno, node.end_lineno, indent
    signature_end = max(
        (part.end_lineno for part in (node.returns, *node.args.args) if part), default=node.lineno
    )
    return signature_end, node.end_lineno, indent


def punch(source: str, tasks: Sequence[Task]) -> str:
    """The source with these functions emptied. Signature, hints and docstring stay."""
    for task in tasks:
        start, end, indent = body_of(source, task.name)
        lines = source.splitlines(keepends=True)
        hole = f'raise NotImplementedError("task {task.id}: write {task.name}")\n'
        lines[start:end] = [indent + hole]
        source = "".join(lines)
    return source


def outside(source: str, tasks: Sequence[Task]) -> str:
    """A hash of what is left of a source without these functions: students do not change it."""
    for task in tasks:
        source = put(source, task.name, "...\n")
    return hashlib.blake2b(source.encode(), digest_size=12).hexdigest()
