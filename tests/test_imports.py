"""The imports show how the system is built. These rules keep it so.

python -m pytest tests/test_imports.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = {"vit", "llm_text", "lift", "train", "eval"}
FILES = [*ROOT.glob("*.py"), *ROOT.glob("data/**/*.py")]


def imported_by(path):
    """This project's modules that a file imports, also inside a function: "data.common"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES}
    return found & modules


ARROWS = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): imported_by(file) for file in FILES
}


def starting(prefix):
    return [module for module in ARROWS if module.startswith(prefix)]


def test_imports_follow_the_layout():
    assert ARROWS["vit"] == set()
    # A sweep starts runs of train.py and checks their flags before: it stands above train.py, as
    # eval.py does, and no file of the project imports it.
    assert ARROWS["data.sweep"] & CORE == {"train"}
    assert not [module for module, arrows in ARROWS.items() if "data.sweep" in arrows]
    below = [module for module in starting("data.") if module != "data.sweep"]
    assert all(not (ARROWS[module] & CORE) for module in below)
    for one, other in (("data.files", "data.images"), ("data.images", "data.files")):
        assert not [m for m in starting(one) if any(a.startswith(other) for a in ARROWS[m])]
    for module in starting("data.world"):
        assert {a for a in ARROWS[module] if not a.startswith("data.world")} <= {"data.common"}
    assert ARROWS["lift"] <= {
        "vit",
        "llm_text",
        "data.common",
        "data.captions",
        "data.processes",
        "data.vectors",
        "data.files.runs",
        "data.files.tensors",
        "data.images.pixels",
    }


def test_images_are_opened_in_one_place():
    """pixels.py knows the limits. icon_shards.py reads only what it has just drawn itself."""
    opening = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "Image.open":
                opening.add(file.relative_to(ROOT).as_posix())
    assert opening == {"data/images/pixels.py", "data/world/icon_shards.py"}


def test_there_is_no_circle():
    left = {module: set(arrows) - {module} for module, arrows in ARROWS.items()}
    while left:
        free = [module for module, arrows in left.items() if not arrows & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for module in free:
            del left[module]


def test_the_whole_configuration_stays_in_train_and_the_command_line_in_eval():
    """No function below train.py takes a cfg, none below eval.py takes args."""
    for file in FILES:
        if file.name in ("train.py", "eval.py") and file.parent == ROOT:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = {a.arg for a in node.args.args + node.args.kwonlyargs}
                assert not names & {"cfg", "args"}, f"{file.name}: {node.name}"


def test_processes_are_joined_in_one_place():
    """All of torch.distributed: what a reader of the rest need not know."""
    using = {
        file.relative_to(ROOT).as_posix() for file in FILES if "distributed" in file.read_text()
    }
    assert using == {"data/processes.py"}
