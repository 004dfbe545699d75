"""The command: running an instance or a demo; the rest of the commands are in `look`,
`upkeep`, `accounts`, `access`, `login`, `audit` and `directory`."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic.fields import FieldInfo

from registry import __version__
from registry.cli.client import NoAnswer
from registry.cli.commands import app
from registry.cli.demo import demo as run_demo
from registry.cli.start_errors import refuse, wants_json
from registry.config import Config, load_config
from registry.errors import CannotStart

_USAGE_ERRORS = typer.BadParameter.__bases__
"""The base class of all usage errors, for which the library has no public name."""


def run() -> None:
    """The entry point: errors that a person can act on are one line."""
    as_json = wants_json(sys.argv[1:])
    try:
        if as_json:
            _run_plainly()
        app()
    except CannotStart as error:
        refuse(str(error), as_json, error.reason)
    except NoAnswer as error:
        refuse(str(error), as_json)
    except OSError as error:
        if error.filename is None:
            raise
        refuse(f"{error.filename} cannot be used: {error.strerror}", as_json)
    except KeyboardInterrupt:
        sys.exit(130)


def _run_plainly() -> NoReturn:
    """Run a command without the library's own display of usage errors. Raises CannotStart for a usage error."""
    try:
        status = app(standalone_mode=False)
    except Exception as error:
        if not isinstance(error, _USAGE_ERRORS):
            raise
        raise CannotStart(error.format_message()) from None  # type: ignore[attr-defined]  # its base has it
    sys.exit(status if isinstance(status, int) else 0)


def _settings_as_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every setting but those that are secret or a table, beside its own."""
    own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "settings"]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name, field))
        for name, field in Config.model_fields.items()
        if name not in ("cluster_key", "policy")
    ]
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in [*own, *options]}
    return command


def _option(name: str, field: FieldInfo) -> Any:
    dashed = "--" + name.replace("_", "-")
    is_list, is_flag = field.annotation == list[str], field.annotation is bool
    kind: Any = field.annotation if is_list or field.annotation in (bool, float, Path) else str
    default = "" if is_list or is_flag or field.default == "" else f" (default: {field.default})"
    spelled = f"{dashed}/--no-{dashed.removeprefix('--')}" if is_flag else dashed
    summary = (field.description or "").partition(". ")[0].removesuffix(".").replace("`", "")  # the reference has all
    return Annotated[kind | None, typer.Option(spelled, help=f"{summary}{default}", show_default=False)]


@app.command(
    epilog="Example: concord serve --listen 0.0.0.0:5000 --data /var/lib/concord --advertise http://10.0.0.5:5000"
)
@_settings_as_options
def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file with these settings")] = None, **settings: Any
) -> None:
    """Run an instance. Every option but --config can also be set as CONCORD_… in the environment. CONCORD_CLUSTER_KEY
    is the secret that joins a cluster."""
    from registry.cli.serve import serve as run_server  # the server's parts are not needed by the other commands

    run_server(load_config({name: value for name, value in settings.items() if value not in (None, [])}, config))


@app.command(epilog="Example: concord demo")
def demo(
    data: Annotated[Path | None, typer.Option(help="keep the data here [default: a directory that is removed]")] = None,
    auth: Annotated[
        bool, typer.Option("--auth", help="with TLS, accounts, and access control that is enforced")
    ] = False,
) -> None:
    """Run three instances at sites eu, us and ap on 127.0.0.1:5001 to 5003, with a Redis between them."""
    run_demo(data, auth)


def _show_version(value: bool) -> None:
    if value:
        print(f"concord {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Options of all commands."""


from registry.cli import look, upkeep, accounts, access, login, audit, directory  # noqa: E402, I001  # their commands, in this order behind ours

__all__: list[Any] = ["access", "accounts", "app", "audit", "directory", "login", "look", "run", "upkeep"]
