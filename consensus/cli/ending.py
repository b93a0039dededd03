"""How a command ends: one clean message for what went wrong, and an exit code.

0 when all is well, 2 for what the user can put right (a run file, an argument), 1 for everything else, 130 when interrupted.

Among ranks the first to exit with an error ends the job and takes the others' last words with it. When a run file is at fault all
ranks find the same fault: rank 0 says it, the others keep silent long enough for it to do so. When one rank alone is in trouble
its message, or its traceback, names it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Never

import typer
from rich.markup import escape
from typer.core import TyperGroup

from consensus.cli.console import console
from consensus.cli.supervise import INTERRUPTED
from consensus.errors import CheckpointError, ConfigError, ConsensusError, LaunchError
from consensus.run.signals import give_back, take_over
from consensus.transport.endings import ending
from consensus.transport.launched import launched
from consensus.types import Rank, Seconds

WRONG_USE = 2
FAILED = 1

GRACE: Seconds = 3.0
"""How long other ranks leave rank 0 to speak for all."""


def rank_among_ranks(environment: Mapping[str, str] | None = None) -> Rank | None:
    """This process's rank as the launcher says it, before MPI is loaded; None if it is no rank or the launcher does not say.

    Examples
    --------
    >>> rank_among_ranks({"PMI_RANK": "3", "PMI_SIZE": "8"}), rank_among_ranks({})
    (3, None)
    """
    environment = os.environ if environment is None else environment
    if not launched(environment):
        return None
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
    return next((int(environment[name]) for name in names if environment.get(name, "").isdigit()), None)


def complain(message: str, *, kind: str = "error") -> None:
    """Say what went wrong, to standard error; colours on a terminal, long paths unbroken."""
    console(stderr=True).print(f"[bold red]{kind}:[/] {escape(message)}", soft_wrap=True)


class Commands(TyperGroup):
    """The group of all commands, which turns errors into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        rank = rank_among_ranks()
        try:
            with _interruptible():
                return super().invoke(ctx)
        except ConsensusError as error:
            # Most often all ranks meet it, and rank 0 has said it.
            waits = bool(rank) and isinstance(error, ConfigError | LaunchError | CheckpointError)
            if not (waits and ending().told(within=GRACE)):
                named = not rank or f"rank {rank} " in str(error)
                complain(str(error) if named else f"rank {rank}: {error}")
            raise _exit(error, WRONG_USE if isinstance(error, ConfigError) else FAILED) from error
        except KeyboardInterrupt as interrupt:
            raise _exit(interrupt, INTERRUPTED) from interrupt
        except Exception as error:
            if rank is None or isinstance(error, _not_a_failure()):
                raise
            # In one piece: several ranks may be writing.
            sys.stderr.write(f"rank {rank} failed\n" + "".join(f"[rank {rank}] {line}" for line in _lines(error)))
            sys.stderr.flush()
            raise _exit(error, FAILED) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let every request to end do as Ctrl-C does, also while libraries are loaded; ranks have their own ways."""
    former = {} if launched() else take_over(_interrupt)
    try:
        yield
    finally:
        give_back(former)


def _interrupt(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


def _exit(error: BaseException, code: int) -> typer.Exit:
    # What the interpreter does when it prints an error that nobody caught. A rank's exit handlers look there: they wait for the
    # other ranks unless an error is to end the job.
    sys.last_value = error
    return typer.Exit(code)


def _not_a_failure() -> tuple[type[BaseException], ...]:
    """What the command line library raises for its own purposes: exits, and mistakes in arguments, which it reports itself."""
    usage = [kind for kind in typer.BadParameter.__mro__ if issubclass(kind, Exception) and kind is not Exception]
    return (typer.Exit, typer.Abort, *usage)


def _lines(error: Exception) -> list[str]:
    return "".join(traceback.format_exception(error)).splitlines(keepends=True)
