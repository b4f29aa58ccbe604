"""The rules of the house that a reader of CONTRIBUTING.md may rely on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pyg_stkd

PACKAGE = Path(pyg_stkd.__file__).parent
TESTS = Path(__file__).parent
MODULES = {
    ".".join(("pyg_stkd", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py"
}
MOST_LINES, LONGEST_FUNCTION = 250, 60  # of code: docstrings, comments and blanks do not count
LONG = {  # and why
    "distill/recording/capture.py": "one object, all that a loss may ask of a call",
    "prune/following/follower.py": "one mode of torch's dispatcher, with its hooks",
    "prune/structure/ports.py": "the words that rules are written in",
}
LONG_FUNCTIONS = {"WindowDataset.__init__", "SyntheticTraffic.__init__"}
NOT_FOR_USERS = {"state_of"}  # of pyg_stkd.kernels, whose __all__ is a page of the API
# The modules without a test file of their own, and the test file that they have.
FACES = {"__main__.py": "test_main.py"}


def names_of(path: Path) -> set[str] | None:
    """Return what a module says that others may import."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def lines_of(path: Path) -> set[int]:
    """Return the numbers of the lines of code: no docstrings, comments or blanks."""
    text = path.read_text(encoding="utf-8")
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docs |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return {i for i, line in lines if line.strip() and not line.strip().startswith("#")} - docs


def test_what_another_module_imports_is_in_all() -> None:
    passed = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                listed = (names_of(MODULES[node.module]) or set()) | NOT_FOR_USERS
                passed += [f"{path.name}: {x.name}" for x in node.names if x.name not in listed]
    assert passed == []


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name: str) -> None:
    path = MODULES[name]
    place = path.relative_to(PACKAGE).as_posix()
    lines = lines_of(path)
    assert len(lines) <= MOST_LINES or place in LONG, f"{len(lines)} lines of code"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    owner = {child: node.name for node in classes for child in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            full = f"{owner[node]}.{node.name}" if node in owner else node.name
            count = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
            assert count <= LONGEST_FUNCTION or full in LONG_FUNCTIONS, f"{full}: {count} lines"


def test_tests_mirror_the_sources() -> None:
    places = [path.relative_to(PACKAGE) for path in MODULES.values()]
    alone = [p for p in places if not (TESTS / p.parent / f"test_{p.name}").exists()]
    assert sorted(p.as_posix() for p in alone) == sorted(FACES)  # neither new ones nor old ones
    assert [test for test in FACES.values() if not (TESTS / test).exists()] == []


def test_no_function_changes_a_global() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Global)
    ]
    assert found == []
