"""Jobs for Slurm: ``launch/slurm.sbatch`` filled in for a run, or ``launch/script.sbatch`` for a script, handed to ``sbatch``.

The scripts that come with the package run as they are; rendering replaces their ``#SBATCH`` lines and their assignments, and
leaves the rest, which is what was tested, alone.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from consensus.errors import ConfigError, LaunchError
from consensus.resources import shipped

TEMPLATE = "slurm.sbatch"
"""The script in ``launch/`` that runs a run file."""

SCRIPT_TEMPLATE = "script.sbatch"
"""The one that starts a script."""

EARLY = 60
"""Seconds by which Slurm may send a signal earlier than it was asked to."""

RESTARTS = 100
"""How often a job may be queued anew: a run that never gets anywhere shall end some day."""

_TIME_FORMS = tuple(
    re.compile(form)
    for form in (
        r"(?P<minutes>\d+)(:(?P<seconds>\d+))?",
        r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
        r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?",
    )
)
_IN_SECONDS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True)
class Job:
    """What is asked of Slurm.

    Attributes
    ----------
    nodes : int
        How many.
    tasks_per_node : int
        Ranks on each.
    time : str
        Limit of each start, in one of Slurm's forms.
    notice : int or None
        Seconds before the limit at which ranks are asked to end; None if they are not.
    options : sequence of str
        Further options of ``sbatch``, as in ``--account=physics``; they come last and win.
    """

    nodes: int
    tasks_per_node: int
    time: str = "01:00:00"
    notice: int | None = 120
    options: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        for key, value in (("--nodes", self.nodes), ("--ntasks-per-node", self.tasks_per_node), ("--notice", self.notice)):
            if value is not None and value < 1:
                raise ConfigError(f"{key} {value}: expected 1 or more")
        limit = seconds_of(self.time)
        if self.notice is not None and limit <= self.notice + EARLY:
            raise ConfigError(
                f"--time {self.time}: {limit} s leave no time to train: ranks are asked to end {self.notice} s before the limit, "
                f"and Slurm may ask {EARLY} s sooner; expected more than {self.notice + EARLY} s, or a shorter --notice"
            )
        for option in self.options:
            if not re.fullmatch(r"--?[a-zA-Z].*", option):
                raise ConfigError(f"--sbatch-option {option!r}: expected an option of sbatch, as in --account=physics")

    @property
    def ranks(self) -> int:
        """In all."""
        return self.nodes * self.tasks_per_node


def seconds_of(time: str) -> int:
    """The length of a time limit as Slurm writes it.

    Parameters
    ----------
    time : str
        ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.

    Returns
    -------
    int
        Seconds.

    Raises
    ------
    ConfigError
        If it is none of these.

    Examples
    --------
    >>> seconds_of("90"), seconds_of("01:00:00"), seconds_of("2-12")
    (5400, 3600, 216000)
    """
    found = next((match for form in _TIME_FORMS if (match := form.fullmatch(time))), None)
    if found is None:
        raise ConfigError(f"--time {time}: no time limit of Slurm's; expected minutes, or as in 01:30:00 or 2-12")
    return sum(_IN_SECONDS[unit] * int(number) for unit, number in found.groupdict().items() if number is not None)


def render(job: Job, program: Sequence[str], name: str, results: Path, restarts: int) -> str:
    """The script of a job; its working directory is this process's.

    Parameters
    ----------
    job
        What is asked of Slurm.
    program
        The command that runs the ranks; the script adds their number and the folder for results.
    name
        Shown by ``squeue``.
    results
        Folder in which each job gets one of its own.
    restarts
        How often the job may be queued anew; 0 for a run without checkpoints, which would begin again.

    Returns
    -------
    str
        For ``sbatch``.
    """
    assignments = {"run": f"({shlex.join(program)})", "results": shlex.quote(str(results)), "requeues": str(restarts)}
    return _filled(TEMPLATE, _options(job, name, results, signal=f"B:USR1@{job.notice}"), assignments)


def render_script(job: Job, launch: Sequence[str], script: Sequence[str], name: str, results: Path) -> str:
    """The script of a job that starts a script as MPI ranks; its working directory is this process's.

    Parameters
    ----------
    job
        What is asked of Slurm; nobody is told before the limit.
    launch
        The command that starts the ranks, to which their number and ``script`` are added.
    script
        The file, and its arguments.
    name
        Shown by ``squeue``.
    results
        Folder for what the job prints.

    Returns
    -------
    str
        For ``sbatch``.
    """
    assignments = {"launch": f"({shlex.join(launch)})", "script": f"({shlex.join(script)})"}
    return _filled(SCRIPT_TEMPLATE, _options(job, name, results), assignments)


def log(results: Path, name: str, number: str) -> str:
    """The file that gets what job ``number`` prints; for ``"%j"``, Slurm's pattern of its number, as Slurm is told it."""
    path = str(results / name)
    # A percent sign begins a pattern.
    return f"{path.replace('%', '%%') if number == '%j' else path}-{number}.log"


def submit(script: Path) -> str:
    """Hand a script to ``sbatch``.

    Returns
    -------
    str
        The job's number.

    Raises
    ------
    LaunchError
        If there is no ``sbatch``, or it refuses.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise LaunchError(
            f"no sbatch found on PATH, so nothing was submitted; the script is there: on a machine with Slurm, sbatch {script}; "
            "--no-submit writes it only"
        )
    argv = [sbatch, "--parsable", str(script)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise LaunchError(f"sbatch refused {script}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip().split(";")[0]


def _options(job: Job, name: str, results: Path, **more: str) -> dict[str, str]:
    values = {
        "job-name": name,
        "nodes": str(job.nodes),
        "ntasks-per-node": str(job.tasks_per_node),
        "time": job.time,
        "output": log(results, name, "%j"),
        **more,
        "chdir": str(Path.cwd()),
    }
    options = {key: f"#SBATCH --{key}={shlex.quote(value)}" for key, value in values.items()}
    return options | {option: f"#SBATCH {option}" for option in job.options}


def _filled(template: str, options: Mapping[str, str], assignments: Mapping[str, str]) -> str:
    """A script of ``launch/`` with other ``#SBATCH`` lines and assignments; options that it has not follow its last."""
    left = dict(options)
    lines: list[str] = []
    last = 0
    for line in shipped("launch", template).read_text(encoding="utf-8").splitlines():
        option = re.match(r"#SBATCH --([a-z-]+)", line)
        variable = re.match(r"([a-z]+)=", line)
        if option is not None:
            lines.append(left.pop(option[1], line))
            last = len(lines)
        elif variable is not None and variable[1] in assignments:
            lines.append(f"{variable[1]}={assignments[variable[1]]}")
        else:
            lines.append(line)
    return "\n".join([*lines[:last], *left.values(), *lines[last:]]) + "\n"
