"""A module imports only from its own layer and those below, and heavy libraries only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = [
    {"errors", "names", "resources", "types"},
    {"topology", "coding", "timing"},
    {"protocol"},
    {"rules"},
    {"sim", "transport"},
    {
        "alike", "allreduce", "buffers", "bundle", "checkpoint", "coded_handle", "coded_models", "data", "driver", "flat",
        "gradient", "group_options", "handle", "keeping", "models", "neighbours", "optim", "payload", "pushed", "recording",
        "region", "replay", "served", "serving", "statistics", "step_scale", "trace",
    },
    {"config", "doctor", "launcher", "rank", "report", "run", "slurm", "whatif"},
    {"cli", "__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FIRST_WITH_TORCH = LEVEL["flat"]
STANDARD_LIBRARY_ONLY = {"errors", "names", "resources", "types", "protocol", "rules"}
WITH_NUMBERS = "consensus.rules.dbw"
"""The one exception among them: estimators, for which SciPy is the well-kept library."""
MPI_MODULE = "consensus.transport.mpi"
RANK_MODULE = "consensus.rank"
"""It starts a program under ``python -m mpi4py``, of which it may import that much."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "consensus").rglob("*.py"))
}


def part_of(module: str) -> str:
    """The layer table's word for a module: its first name below the package."""
    return module.split(".")[1]


def imports(module: str, source: str, is_package: bool = False) -> Iterator[str]:
    """Absolute names of all modules that ``source`` imports, wherever in it, ``from m import n`` as ``m.n``."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def _numbers_of(module: str) -> set[str]:
    return {"numpy", "scipy"} if module.startswith(WITH_NUMBERS) else set()


def complaints(module: str, source: str, is_package: bool = False) -> list[str]:
    """What is wrong with a module's imports, one sentence each."""
    own = part_of(module)
    if own not in LEVEL:
        return [f"{own!r} is in no layer; add it to LAYERS"]
    found = []
    for name in imports(module, source, is_package):
        top = name.split(".")[0]
        if top == "consensus":
            other = name.split(".")[1]
            if f"consensus.{other}" in MODULES and LEVEL.get(other, -1) > LEVEL[own]:
                found.append(f"imports {name} from a higher layer")
        elif top == "mpi4py" and module != MPI_MODULE and (module, name) != (RANK_MODULE, "mpi4py.run.main"):
            found.append(f"imports {name}; only {MPI_MODULE} may")
        elif top == "torch" and LEVEL[own] < FIRST_WITH_TORCH:
            found.append(f"imports {name} below the layer of flat.py")
        elif own in STANDARD_LIBRARY_ONLY and top not in {*sys.stdlib_module_names, *_numbers_of(module)}:
            found.append(f"imports {name}; {own} uses the standard library only")
    return found


# The package's own file is the façade over all layers; what it may load is tested by importing it.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"consensus"}))
def test_imports(module: str) -> None:
    path = MODULES[module]
    assert complaints(module, path.read_text(encoding="utf-8"), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("consensus.errors", "from consensus.cli import main", "higher layer"),
        ("consensus.errors", "from consensus import cli", "higher layer"),
        ("consensus.protocol.messages", "from .. import cli", "higher layer"),
        ("consensus.protocol.messages", "def f():\n    from ..cli import main", "higher layer"),
        ("consensus.protocol.messages", "import numpy as np", "standard library"),
        ("consensus.transport.base", "import torch.nn", "below"),
        ("consensus.transport.loopback", "from mpi4py import MPI", "only consensus.transport.mpi"),
        ("consensus.novelty", "", "no layer"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, word: str) -> None:
    (complaint,) = complaints(module, source)
    assert word in complaint


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("consensus.cli.run", "import torch\nfrom consensus.run import worker\nfrom . import demo"),
        ("consensus.transport.mpi", "from mpi4py import MPI"),
        ("consensus.protocol.events", "from .messages import Offer\nfrom consensus.types import Rank"),
    ],
)
def test_a_rightful_import_passes(module: str, source: str) -> None:
    assert complaints(module, source) == []


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import consensus", {"torch", "mpi4py", "numpy", "networkx"}),
        ("import consensus.protocol, consensus.rules", {"torch", "mpi4py", "numpy", "networkx"}),
        ("import consensus.sim, consensus.topology", {"torch", "mpi4py"}),
        ("import consensus.transport", {"torch", "mpi4py"}),
    ],
)
def test_import_loads_nothing_heavy(statement: str, forbidden: set[str]) -> None:
    script = f"{statement}; import sys; print(*sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
