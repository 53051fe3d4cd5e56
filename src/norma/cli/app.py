"""The command line's table of contents: which function answers which command.

A command is a plain function with Typer annotations in ``norma/cli/<command>.py``; it is listed here and nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from norma import __version__
from norma.base.errors import NormaError

# Newer Typers carry their own copy of Click and older ones import it: its base exception is found through Typer either way.
_ClickException: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException" and issubclass(c, Exception)
)

# command (with its group) -> module:function, in the order of `norma --help`
COMMANDS = {
    "init": "norma.cli.init:init",
    "run": "norma.cli.run:run",
    "plan": "norma.cli.plan:plan",
    "status": "norma.cli.status:status",
    "chat": "norma.cli.chat:chat",
    "generate": "norma.cli.generate:generate",
    "predict": "norma.cli.predict:predict",
    "check": "norma.cli.check:check",
    "gate": "norma.cli.gate:gate",
    "evaluate": "norma.cli.evaluate:evaluate",
    "compare": "norma.cli.compare:compare",
    "trace": "norma.cli.trace:trace",
    "serve": "norma.cli.serve:serve",
    "keys add": "norma.cli.keys:add",
    "keys list": "norma.cli.keys:list_",
    "keys revoke": "norma.cli.keys:revoke",
    "studio": "norma.cli.studio:studio",
    "import": "norma.cli.import_:import_",
    "retrieve index": "norma.cli.retrieve:index",
    "retrieve search": "norma.cli.retrieve:search",
    "retrieve measure": "norma.cli.retrieve:measure",
    "export": "norma.cli.export:export",
    "data check": "norma.cli.data:check",
    "spec list": "norma.cli.spec:list_",
    "spec lint": "norma.cli.spec:lint",
    "spec show": "norma.cli.spec:show",
    "spec explain": "norma.cli.spec:explain",
    "spec diff": "norma.cli.spec:diff",
    "spec prompt": "norma.cli.spec:prompt",
    "spec fit": "norma.cli.fit:fit",
    "spec import": "norma.cli.spec:import_",
    "spec export": "norma.cli.spec:export",
    "spec schema": "norma.cli.spec:schema",
    "label import": "norma.cli.label:import_",
    "label export": "norma.cli.label:export",
    "label agree": "norma.cli.label:agree",
    "label queue": "norma.cli.label:queue",
    "bench model": "norma.cli.bench:model",
    "bench train": "norma.cli.bench:train",
    "bench generate": "norma.cli.bench:generate",
    "bench align": "norma.cli.bench:align",
    "bench finetune": "norma.cli.bench:finetune",
    "bench time-to-loss": "norma.cli.bench:time_to_loss",
    "bench serve": "norma.cli.bench:serve",
    "bench parity": "norma.cli.bench:parity",
    "doctor": "norma.cli.doctor:doctor",
}
GROUPS = {
    "retrieve": "An index of your own documents, to answer from.",
    "keys": "API keys of a server.",
    "data": "Look at training data.",
    "spec": "Work on a spec file.",
    "label": "The label store from the shell.",
    "bench": "Measure beside peers, in one run on the same work.",
}


def build(commands: dict[str, str] = COMMANDS) -> typer.Typer:
    """The Typer application."""
    app = typer.Typer(
        name="norma",
        help="Train language models to a written spec.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    groups: dict[str, typer.Typer] = {}
    for path, target in commands.items():
        *group, name = path.split()
        module, _, function = target.partition(":")
        place = app
        if group:
            if group[0] not in groups:
                groups[group[0]] = typer.Typer(help=GROUPS[group[0]], no_args_is_help=True, rich_markup_mode=None)
                app.add_typer(groups[group[0]], name=group[0])
            place = groups[group[0]]
        place.command(name)(getattr(import_module(module), function))
    app.callback()(_root)
    return app


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (at any place in the line).")] = False,
) -> None:
    """Train language models to a written spec: one file of rules becomes prompts, labels, rewards and a report."""


def invoke(arguments: list[str]) -> int:
    """Run one command line; usage errors are one line on stderr."""
    if arguments and arguments[0] == "--version":
        print(f"norma {__version__}")
        return 0
    command = typer.main.get_command(build())
    try:
        code = command.main(args=arguments, prog_name="norma", standalone_mode=False)
    except _ClickException as error:
        context, text = getattr(error, "ctx", None), getattr(error, "format_message", error.__str__)()
        if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
            print(context.get_help())
            return 0
        raise NormaError(str(text).rstrip(".?"), mend=f"For help: {context.command_path if context else 'norma'} --help") from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    return code if isinstance(code, int) else 0
