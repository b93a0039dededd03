"""Which mpirun is taken, and what it is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from consensus import launcher
from consensus.errors import LaunchError
from consensus.transport.endings import MARK

OPEN_MPI = "mpirun (Open MPI) 5.0.11"
HYDRA = "HYDRA build details:\n    Version: 4.3.0"


def program(path: Path, says: str, code: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")  # echo is the shell's own: PATH is empty
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a shell and no MPI."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(launcher, "library", lambda: None)
    monkeypatch.setattr(launcher, "_is_root", lambda: False)
    for name in ("OMP_NUM_THREADS", "PYTHONPATH", "PYTHONWARNINGS", "MPI4PY_LIBMPI", "MPI4PY_MPIABI"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("libdir", ["lib", "lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu/openmpi/lib"])
def test_the_launcher_of_the_library_goes_before_path(bare: pytest.MonkeyPatch, tmp_path: Path, libdir: str) -> None:
    own = program(tmp_path / "site" / "bin" / "mpirun", OPEN_MPI)
    other = program(tmp_path / "other" / "mpirun", HYDRA)
    bare.setenv("PATH", str(other.parent))
    bare.setattr(launcher, "library", lambda: tmp_path / "site" / libdir / "libmpi.so.40")
    assert launcher.find() == own


def test_path_serves_a_library_without_launcher(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = program(tmp_path / "other" / "mpirun", HYDRA)
    bare.setenv("PATH", str(other.parent))
    bare.setattr(launcher, "library", lambda: tmp_path / "site" / "lib" / "libmpi.so.40")
    assert launcher.find() == other


def test_no_launcher_says_what_to_install(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match=r"no mpirun found .* pip install 'consensus-sgd\[mpi\]'"):
        launcher.find()


def test_the_launcher_asked_for_is_taken(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = program(tmp_path / "mine", HYDRA)
    assert launcher.command(3, ["x.py"], mpirun=mine).argv[0] == str(mine)
    with pytest.raises(LaunchError, match="'mpirum'"):
        launcher.find("mpirum")


def test_open_mpi_shares_processors_and_passes_variables_on(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2\n")
    job = launcher.command(3, ["-m", "module"], hostfile=hosts, extra=["--tag"], mpirun=mpirun, environment={"PYTHONPATH": "/x"})
    assert job.argv == [
        *(str(mpirun), "-n", "3", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE", "-x", "OMP_NUM_THREADS", "-x", "PYTHONPATH"),
        *("--hostfile", str(hosts), "--tag", sys.executable, "-m", "consensus.rank", "-m", "module"),
    ]
    assert job.env == {"PYTHONPATH": "/x", "OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"}


def test_ranks_on_all_hosts_are_told_where_to_leave_a_mark(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    job = launcher.command(2, ["x.py"], mpirun=mpirun, mark=tmp_path / "mark", environment={})
    assert f"-x {MARK}" in " ".join(job.argv)
    assert job.env[MARK] == str(tmp_path / "mark")
    assert MARK not in launcher.command(2, ["x.py"], mpirun=mpirun, environment=job.env).env


def test_a_job_outlives_its_ranks_where_the_library_can(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    program(tmp_path / "ompi_info", "options:ft_support:yes\noptions:ft_mpi_support:yes")
    job = launcher.command(2, ["x.py"], mpirun=mpirun, environment={})
    assert job.argv[job.argv.index("--with-ft") + 1] == "ulfm"
    assert job.env["OMPI_MCA_async_mpi_finalize"] == "1"
    own = launcher.command(2, ["x.py"], extra=["--with-ft", "none"], mpirun=mpirun, environment={})
    assert own.argv.count("--with-ft") == 1
    assert "OMPI_MCA_async_mpi_finalize" not in own.env


def test_silence_is_noticed_where_the_library_can(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    with pytest.raises(LaunchError, match=r"--lost-after needs Open MPI 5 with ULFM, and .*/mpirun \(Open MPI\)"):
        launcher.command(2, ["x.py"], lost_after=30, mpirun=mpirun, environment={})
    program(tmp_path / "ompi_info", "options:ft_mpi_support:yes")
    words = " ".join(launcher.command(2, ["x.py"], lost_after=30, mpirun=mpirun, environment={}).argv)
    for expected in ("ft_detector true", "detector_thread true", "timeout 30 ", "period 3 ", "rbcast true", "keepalive_time 0"):
        assert expected in words
    with pytest.raises(LaunchError, match="--lost-after"):
        launcher.command(2, ["x.py"], extra=["--with-ft", "none"], lost_after=30, mpirun=mpirun, environment={})


@pytest.mark.parametrize("says", ["options:ft_mpi_support:no", "options:ft_mpi_support:yes and more"])
def test_a_library_that_cannot_is_not_asked_to(bare: pytest.MonkeyPatch, tmp_path: Path, says: str) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    program(tmp_path / "ompi_info", says)
    job = launcher.command(2, ["x.py"], mpirun=mpirun, environment={})
    assert "--with-ft" not in job.argv
    assert "OMPI_MCA_async_mpi_finalize" not in job.env


def test_only_the_administrator_is_let_in_as_such(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", OPEN_MPI)
    bare.setattr(launcher, "_is_root", lambda: True)
    env = launcher.command(1, ["x.py"], mpirun=mpirun, environment={}).env
    assert env["OMPI_ALLOW_RUN_AS_ROOT"] == env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"


def test_hydra_is_told_nothing_it_does_not_know(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", HYDRA)
    job = launcher.command(2, ["x.py"], mpirun=mpirun, environment={"OMP_NUM_THREADS": "4"})
    assert job.argv == [str(mpirun), "-n", "2", sys.executable, "-m", "consensus.rank", "x.py"]
    assert job.env == {"OMP_NUM_THREADS": "4", "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1"}


def test_an_unknown_kind_gets_the_number_only(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpirun = program(tmp_path / "mpirun", "Another MPI 1.0")
    assert launcher.vendor(mpirun).name == "Another MPI 1.0"
    assert launcher.command(2, ["x.py"], mpirun=mpirun).argv[1:4] == ["-n", "2", sys.executable]


def test_a_launcher_that_does_not_run(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="--version fails"):
        launcher.command(2, ["x.py"], mpirun=program(tmp_path / "mpirun", "", code=1))


def test_a_hostfile_that_is_not_there(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no hostfile 'hosts'"):
        launcher.command(2, ["x.py"], mpirun=program(tmp_path / "mpirun", OPEN_MPI), hostfile="hosts")


def test_no_ranks(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match="cannot start 0 ranks"):
        launcher.command(0, ["x.py"])


@pytest.mark.parametrize(
    ("environment", "size"),
    [({"OMPI_COMM_WORLD_SIZE": "4"}, 1), ({"PMI_SIZE": "2"}, 1), ({"SLURM_STEP_NUM_TASKS": "8"}, 1)],
)
def test_a_rank_that_believes_it_is_alone(environment: dict[str, str], size: int) -> None:
    with pytest.raises(LaunchError, match="each of them is alone"):
        launcher.check_not_singleton(size, environment)


@pytest.mark.parametrize(
    ("environment", "size"),
    # Inside sbatch SLURM_NTASKS is what mpirun may start, not what was started.
    [({}, 1), ({"SLURM_NTASKS": "8"}, 1), ({"OMPI_COMM_WORLD_SIZE": "4"}, 4), ({"SLURM_STEP_NUM_TASKS": "1"}, 1)],
)
def test_a_rank_that_is_right(environment: dict[str, str], size: int) -> None:
    launcher.check_not_singleton(size, environment)


def test_a_launchers_variables_are_left_behind() -> None:
    before = {"PMIX_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_ALLOW_RUN_AS_ROOT": "1", "HOME": "/x"}
    assert launcher.without_launcher(before) == {"OMPI_ALLOW_RUN_AS_ROOT": "1", "HOME": "/x"}
