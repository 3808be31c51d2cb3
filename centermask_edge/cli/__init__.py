"""The command line: one file per command, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

import centermask_edge
from centermask_edge.cli import (
    build,
    calibrate,
    convert,
    data,
    evaluate,
    export,
    inspect,
    kernels,
    live,
    models,
    parity,
    qat,
    quantize,
    run,
    train,
    verify,
)
from centermask_edge.errors import CenterMaskError

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run.command,
    "live": live.command,
    "data": data.command,
    "train": train.command,
    "evaluate": evaluate.command,
    "export": export.command,
    "calibrate": calibrate.command,
    "quantize": quantize.command,
    "qat": qat.command,
    "build": build.command,
    "inspect": inspect.command,
    "verify": verify.command,
    "models": models.command,
    "convert": convert.command,
    "parity": parity.command,
}

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells write it

# What typer raises for a wrong option or argument; older versions of it take the class from
# click, newer ones carry their own.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"centermask-edge {centermask_edge.__version__}")
        raise typer.Exit


def application() -> typer.Typer:
    """All commands, in the order of the table."""
    app = typer.Typer(
        help="Real-time instance segmentation on the edge.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        """Real-time instance segmentation on the edge."""

    for name, command in COMMANDS.items():
        app.command(name)(command)
    app.add_typer(kernels.application(), name="kernels")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: words after the program's name; those of the process where None.

    Returns:
        Exit code: 0; 2 after an error the user can fix, told in one line on stderr; 130 after
        Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = application()(words, prog_name="centermask-edge", standalone_mode=False)
    except CenterMaskError as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return _complain(
            f"torch is not installed and is needed to {words[0]}; "
            "install it with: pip install 'centermask-edge[train]'"
        )
    except _UsageError as error:
        command = f"{words[0]} " if words[0] in COMMANDS else ""
        message = error.format_message().rstrip(".")
        return _complain(f"{message}; see centermask-edge {command}--help")
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    return code if isinstance(code, int) else 0


def _complain(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return USER_ERROR
