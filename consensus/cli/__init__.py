"""The ``consensus`` command. Each command loads what it needs when it runs: the list of commands is there at once."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from consensus import __version__
from consensus.cli import compare, demo, doctor, launch, range_test, replay, report, run, select, sim, submit, whatif
from consensus.cli.ending import Commands

app = typer.Typer(
    cls=Commands,
    help="Decentralised SGD over MPI in which every rank averages only with its fastest neighbours.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""All commands."""

# What follows a script's name belongs to the script.
_PASS_ON = {"allow_interspersed_args": False, "ignore_unknown_options": True}
_UNREAD = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app.command("run")(run.run)
app.command("sim")(sim.sim)
app.command("compare")(compare.compare)
app.command("range-test")(range_test.range_test)
app.command("report", cls=report.OptionalValues)(report.report)
app.command("replay")(replay.replay)
app.command("whatif")(whatif.whatif)
app.command("select")(select.select)
app.command("launch", context_settings=_PASS_ON)(launch.launch)
app.command("submit")(submit.submit)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


@app.command("topology", context_settings=_UNREAD)
def topology(context: typer.Context) -> None:
    """Graphs of ranks: list them, see their numbers, draw them."""
    # Graphs take a second to load, and no other command of this list needs them to show its help.
    graphs = importlib.import_module("consensus.cli.topology").app
    typer.main.get_command(graphs).main(context.args, prog_name=context.command_path, standalone_mode=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"consensus-sgd {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="consensus")
