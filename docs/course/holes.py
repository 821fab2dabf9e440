"""Holes: functions whose bodies a student writes. Found in the sources by their syntax tree.

    punch       the source with some bodies taken out             project   -> hand-out
    transplant  the source with one body from a student's file    submission -> what is tested

The sources carry no marks. A hole is named as in tasks.toml:

    "info_nce"             a function of the module
    "Attention.forward"    a method of a class
    "LoRA"                 a class: the bodies of all its methods are taken out
    "METHODS[lift]"        an entry of a table: the values of its arguments are taken out

Needs nothing but Python. Both the generator (make.py) and the grader (grade.py) use it.
"""

import ast
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent


class CourseError(ValueError):
    """Something that cannot go on. The message is one line for whoever called the command."""


@dataclass(frozen=True)
class Task:
    """One hole, and what tests it. The fields are those of tasks.toml."""

    id: str  # "1.1"
    unit: int
    file: str  # "lift.py"
    name: str  # "info_nce"
    points: int
    visible: tuple[str, ...]  # names of tests that students have
    hidden: tuple[str, ...]  # names of tests that only the grader has

    @property
    def module(self) -> str:
        """The name by which the file is imported: "data.batches"."""
        return self.file.removesuffix(".py").replace("/", ".")


def source_of(reference: Path, file: str) -> str:
    """The reference's text of a file. What only the course has (own.py) stands beside this one."""
    path = reference / file
    return (path if path.is_file() else HERE / file).read_text()


def read_tasks(folder: Path = HERE, units: list[int] | None = None) -> list[Task]:
    """The tasks of tasks.toml, or those of some units. CourseError for a unit without tasks."""
    rows = tomllib.loads((folder / "tasks.toml").read_text())["task"]
    tasks = [
        Task(**row | {"visible": tuple(row["visible"]), "hidden": tuple(row.get("hidden", ()))})
        for row in rows
    ]
    known = {task.unit for task in tasks}
    for unit in units or []:
        if unit not in known:
            raise CourseError(f"there is no unit {unit}; choose from {sorted(known)}")
    return [task for task in tasks if units is None or task.unit in units]


# --------------------------------------------------------------------------------------------------
# Finding a hole, and the lines that belong to it.


@lru_cache(maxsize=16)
def parse(source: str) -> ast.Module:
    """The syntax tree of a file, which nobody changes. CourseError where it is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line}: " if line else ""
        raise CourseError(f"{where}{getattr(error, 'msg', error)}") from None


def find(source: str, name: str) -> ast.FunctionDef | ast.ClassDef | ast.Call:
    """The syntax tree of a hole. Where a name is defined twice, the last one counts, as in Python.

    CourseError where the name is not there, or where the source is no Python.
    """
    tree = parse(source)
    if "[" in name:
        table, key = name.removesuffix("]").split("[")
        for node in ast.walk(tree):
            is_table = isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            if is_table and table in [getattr(target, "id", None) for target in node.targets]:
                for entry, value in zip(node.value.keys, node.value.values, strict=True):
                    if getattr(entry, "value", None) == key and isinstance(value, ast.Call):
                        return value
    else:
        node = tree
        for part in name.split("."):
            named = [child for child in node.body if getattr(child, "name", None) == part]
            if not named:
                break
            node = named[-1]
        else:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                return node
    raise CourseError(f"{name} is not there")


def functions_of(node: ast.FunctionDef | ast.ClassDef) -> list[ast.FunctionDef]:
    """The functions whose bodies a student writes: the methods of a class, or the function."""
    if isinstance(node, ast.ClassDef):
        return [child for child in node.body if isinstance(child, ast.FunctionDef)]
    return [node]


def first_line(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Where a function or class begins, its decorators included. Lines count from 1."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def header_end(node: ast.FunctionDef) -> int:
    """The last line of what a student is given: the signature, or the docstring if there is one."""
    if ast.get_docstring(node, clean=False) is not None:
        return node.body[0].end_lineno
    parts = [*node.args.args, *node.args.kwonlyargs, *([node.returns] if node.returns else [])]
    return max([node.lineno, *(part.end_lineno for part in parts)])


# --------------------------------------------------------------------------------------------------
# Taking bodies out.


def punch(source: str, names: dict[str, str]) -> str:
    """The source without the bodies of some holes. names: {hole: what its error says}.

    Signature, type hints and docstring stay; of a class, those of the class and of each method. Of
    an entry of a table the names of the arguments stay, and the paper: `...` stands for each other
    value.
    """
    lines = source.splitlines(keepends=True)
    found = []
    for name, says in names.items():
        node = find(source, name)
        parts = [node] if isinstance(node, ast.Call) else functions_of(node)
        found += [(part, says) for part in parts]
    # From the end of the file to its beginning, so that the line numbers stay true.
    for node, says in sorted(found, key=lambda pair: -pair[0].lineno):
        if isinstance(node, ast.Call):
            for keyword in reversed(node.keywords):
                if keyword.arg != "paper":
                    value = keyword.value
                    before = lines[value.lineno - 1][: value.col_offset]
                    after = lines[value.end_lineno - 1][value.end_col_offset :].rstrip("\n")
                    line = f"{before}...{after}  # {says}\n"
                    lines[value.lineno - 1 : value.end_lineno] = [line]
        else:
            indent = " " * (node.col_offset + 4)
            body = f'{indent}raise NotImplementedError("{says}")\n'
            lines[header_end(node) : node.end_lineno] = [body]
    return "".join(lines)


def says_of(task: Task) -> str:
    """What an unwritten hole says."""
    return f"task {task.id}: write {task.name}"


# --------------------------------------------------------------------------------------------------
# Putting a student's body in.


def names_bound(node: ast.stmt) -> set[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def additions(mine: list[ast.stmt], theirs: list[ast.stmt], lines: list[str]) -> list[str]:
    """Source lines of what a student's module or class defines and ours does not: helpers."""
    known = set().union(*(names_bound(node) for node in mine))
    added = []
    for node in theirs:
        names = names_bound(node)
        if names and not names & known:
            start = first_line(node) if hasattr(node, "decorator_list") else node.lineno
            added += [*lines[start - 1 : node.end_lineno], "\n"]
    return added


def transplant(reference: str, submission: str, name: str) -> str:
    """The reference in which one hole is the submission's, as it stands there, word for word.

    Functions, classes, constants and imports that the student added to the module, or to the class
    of a method, come with it. Where the hole is a class, the whole class is the submission's.
    Nothing else of the submission comes: so a mistake in one hole cannot reach another one, and
    neither can an edit outside the holes.

    CourseError where the hole is not in the submission, or where the submission is no Python.
    """
    ours, theirs = find(reference, name), find(submission, name)
    if type(ours) is not type(theirs):  # a class in place of a function, or the other way round
        raise CourseError(f"{name} is not there")
    our_tree, their_tree = parse(reference), parse(submission)
    # Python counts columns in bytes. Only entries of tables have columns that matter.
    our_lines = reference.splitlines(keepends=True)
    their_lines = [line + "\n" for line in submission.split("\n")]

    if isinstance(ours, ast.Call):
        new = ast.get_source_segment(submission, theirs)
        before = our_lines[ours.lineno - 1].encode()[: ours.col_offset].decode()
        after = our_lines[ours.end_lineno - 1].encode()[ours.end_col_offset :].decode()
        our_lines[ours.lineno - 1 : ours.end_lineno] = [before + new + after]
    else:
        # The class comes first where the hole is a method: it stands further down the file than the
        # imports, so their line numbers stay true.
        new = their_lines[first_line(theirs) - 1 : theirs.end_lineno]
        if "." in name:
            class_name = name.split(".")[0]
            (our_class,) = (n for n in our_tree.body if getattr(n, "name", None) == class_name)
            their_class = [n for n in their_tree.body if getattr(n, "name", None) == class_name][-1]
            helpers = additions(our_class.body, their_class.body, their_lines)
            new += ["\n", *helpers] if helpers else []
        our_lines[first_line(ours) - 1 : ours.end_lineno] = new

    # Helpers of the module go below the imports.
    imports = [n for n in our_tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
    place = max((node.end_lineno for node in imports), default=0)
    our_lines[place:place] = additions(our_tree.body, their_tree.body, their_lines)
    return "".join(our_lines)
