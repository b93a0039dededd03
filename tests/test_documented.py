"""Every public module, class, function and method says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Written a second time by a decorator: the property or the implementation carries the words.
SECOND_DEFINITIONS = {"setter", "deleter", "overload"}


def is_public(name: str) -> bool:
    return not name.startswith("_")


def last_name(expression: ast.expr) -> str:
    """``Base`` of ``Base``, ``module.Base``, ``Base[int]`` and ``Base(...)``."""
    if isinstance(expression, ast.Subscript):
        return last_name(expression.value)
    if isinstance(expression, ast.Call):
        return last_name(expression.func)
    return expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")


def methods(node: ast.ClassDef) -> dict[str, Function]:
    """Public methods by name, the first definition of each."""
    found: dict[str, Function] = {}
    for child in node.body:
        if not isinstance(child, Function) or not is_public(child.name):
            continue
        if SECOND_DEFINITIONS.isdisjoint(map(last_name, child.decorator_list)):
            found.setdefault(child.name, child)
    return found


def classes(trees: dict[str, ast.Module]) -> dict[str, ast.ClassDef]:
    return {node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def ancestors(node: ast.ClassDef, known: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Bases among our classes, and the protocols whose every method the class has."""
    for base in node.bases:
        parent = known.get(last_name(base))
        if parent is not None and parent is not node:
            yield parent
            yield from ancestors(parent, known)
    own = methods(node).keys()
    for other in known.values():
        required = methods(other).keys()
        if other is not node and required and "Protocol" in map(last_name, other.bases) and required <= own:
            yield other


def undocumented(trees: dict[str, ast.Module]) -> list[str]:
    """Dotted names of public things without a docstring.

    A method may leave the words to the base class or the protocol that it implements, if that one is ours and has them.
    """
    known = classes(trees)
    found = []

    def visit(node: ast.Module | ast.ClassDef, path: str) -> None:
        if not ast.get_docstring(node):
            found.append(path)
        inherited: set[str] = set()
        if isinstance(node, ast.ClassDef):
            for base in ancestors(node, known):
                inherited |= {name for name, method in methods(base).items() if ast.get_docstring(method)}
            functions: list[Function] = list(methods(node).values())
        else:
            functions = [child for child in node.body if isinstance(child, Function) and is_public(child.name)]
            functions = [f for f in functions if "overload" not in map(last_name, f.decorator_list)]
        found.extend(f"{path}.{f.name}" for f in functions if not ast.get_docstring(f) and f.name not in inherited)
        for child in node.body:
            if isinstance(child, ast.ClassDef) and is_public(child.name):
                visit(child, f"{path}.{child.name}")

    for name, tree in trees.items():
        visit(tree, name)
    return sorted(found)


def package() -> dict[str, ast.Module]:
    trees = {}
    for path in sorted((ROOT / "consensus").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if all(is_public(part) for part in parts):
            trees[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def test_every_public_name_is_documented() -> None:
    assert undocumented(package()) == []


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("x = 1", ["m"]),
        ("'''M.'''\ndef f(): ...", ["m.f"]),
        ("'''M.'''\nasync def f(): ...", ["m.f"]),
        ("'''M.'''\nclass C: ...", ["m.C"]),
        ("'''M.'''\nclass C:\n  '''C.'''\n  def f(self): ...", ["m.C.f"]),
        ("'''M.'''\nclass C:\n  '''C.'''\n  class D: ...", ["m.C.D"]),
        ("'''M.'''\nclass A:\n  '''A.'''\nclass B(A):\n  '''B.'''\n  def f(self): ...", ["m.B.f"]),
    ],
)
def test_a_missing_docstring_is_found(source: str, missing: list[str]) -> None:
    assert undocumented({"m": ast.parse(source)}) == missing


@pytest.mark.parametrize(
    "source",
    [
        "'''M.'''\ndef _f(): ...\nclass _C:\n  def f(self): ...",
        "'''M.'''\nclass C:\n  '''C.'''\n  def __init__(self): ...",
        "'''M.'''\nclass C:\n  '''C.'''\n  @property\n  def x(self):\n    '''X.'''\n  @x.setter\n  def x(self, value): ...",
        "'''M.'''\nclass A:\n  '''A.'''\n  def f(self):\n    '''F.'''\n"
        "class B(A):\n  '''B.'''\nclass C(B):\n  '''C.'''\n  def f(self): ...",
        "'''M.'''\nclass P(Protocol):\n  '''P.'''\n  def f(self):\n    '''F.'''\nclass C:\n  '''C.'''\n  def f(self): ...",
    ],
)
def test_a_rightful_omission_passes(source: str) -> None:
    assert undocumented({"m": ast.parse(source)}) == []
