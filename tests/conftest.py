"""What all tests share: thread counts, hypothesis profiles, the golden flag, and data that may not be there."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.forkserver import ForkServer

# Before torch or a BLAS is imported by a test: ranks and other programs share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")

settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
# Under MPI every rank has to draw the same examples.
_rank = next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), None)
settings.load_profile("ci" if os.environ.get("CI") or _rank is not None else "laptop")

if _rank is not None:
    # pytest clears old temporary folders at its end; ranks that do so in one place at one time trip over each other.
    _temporary = Path(tempfile.gettempdir()) / f"consensus-tests-{os.getuid()}-rank-{_rank}"
    _temporary.mkdir(mode=0o700, exist_ok=True)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_temporary)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption("--update-golden", action="store_true", help="rewrite golden transcripts from what the code does now")


def pytest_collection_finish() -> None:
    """Give torch one thread, if a test imported it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden transcripts are to be rewritten rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP is not ignored, as it is where tests were started by nohup; afterwards it is what it was."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def mnist_dir(pytestconfig: pytest.Config) -> Path:
    """The folder with MNIST's IDX files; skips the test where there is none."""
    named = os.environ.get("CONSENSUS_TEST_DATA")
    data = Path(named) if named else pytestconfig.rootpath.parent / "shared" / "data"
    folder = data / "mnist"
    if not any(folder.glob("train-images*")):
        pytest.skip(f"no MNIST files in {folder}; set CONSENSUS_TEST_DATA to the folder that holds mnist/")
    return folder


@pytest.fixture(scope="session")
def forked() -> Iterator[ForkServer]:
    """Starts ranks in a moment; skips the test where a rank that dies ends its job."""
    from tests.support.forkserver import ForkServer
    from tests.transport.test_dead_ranks import survivable

    if not survivable():
        pytest.skip("the MPI library here ends a job when a rank dies (no ULFM)")
    loaded = ["consensus.optim", "tests.support.dying_training", "mpi4py.run", "torch._dynamo", "sklearn.datasets"]
    with ForkServer(loaded) as server:
        yield server
