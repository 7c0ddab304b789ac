"""`vaekit`: the commands."""

from __future__ import annotations

import io
import sys
from typing import Any

import typer

from vaekit.cli import (
    catalogue,
    comparing,
    evaluating,
    exploring,
    reporting,
    reproducing,
    sharing,
    sweeping,
    training,
    using,
)
from vaekit.errors import VaekitError, one_line

__all__ = ["app", "main"]

app = typer.Typer(
    name="vaekit",
    help="Train variational autoencoders from interchangeable probabilistic components.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True, rich_markup_mode=None)

app.command("run")(training.run)
app.command("sweep")(sweeping.sweep)
app.command("reproduce")(reproducing.reproduce)
app.command("list")(catalogue.list_)
app.command("show")(catalogue.show)
app.command("sample")(using.sample)
app.command("reconstruct")(using.reconstruct)
app.command("interpolate")(using.interpolate)
app.command("evaluate")(evaluating.evaluate)
app.command("compare")(comparing.compare)
app.command("report")(reporting.report)
app.command("explore")(exploring.explore)
app.command("classifiers")(evaluating.classifiers)
app.command("export")(sharing.export)
app.command("push")(sharing.push)
data_app.command("check")(using.data_check)
app.add_typer(data_app, name="data")
app.command("doctor")(catalogue.doctor)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake is one sentence on standard error and exit code 2."""
    # A name that the terminal's encoding has not is written out.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return app(args=arguments, prog_name="vaekit")
    except VaekitError as error:
        sys.stderr.write(f"vaekit: {one_line(error)}\n")
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"vaekit: {one_line(f'{error.filename} cannot be used: {error.strerror}')}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("vaekit: interrupted\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
