"""The pages of docs/reference, generated from the code: `make reference` writes them.

Settings come from `Config`, commands from the command line's application, metrics from what a scrape of a running
instance yields, routes from the tables by which requests are dispatched, log events from `LogEvent`.
`tests/test_reference.py` fails if a page is out of date.
"""

import asyncio
import inspect
import re
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_origin

from prometheus_client.core import Metric
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo, CommandInfo

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.adapters.http import HttpTransport
from registry.adapters.no_bus import SilentBus
from registry.app import http_context
from registry.cli.main import app as commands
from registry.config import Config, PolicyRule
from registry.http.access.issuer_keys import NoKeySource
from registry.http.access.rules import Demand, Rule, internal_rule_of, rule_of
from registry.http.admin.metrics import InstanceCollector
from registry.http.admin.paths import TAG_LOCATIONS, TAG_LOCATIONS_TEMPLATE
from registry.http.admin.status_fields import MaintenanceTimes
from registry.http.admin.tag_locations import replication
from registry.http.app import ADMIN_ACTIONS, INTERNAL
from registry.http.oci.paths import TEMPLATES
from registry.http.oci.paths import Path as ApiPath
from registry.http.oci.routes import HANDLERS, SUMMARIES
from registry.http.wire.process_relay import NoOtherProcess
from registry.instance import Instance
from registry.runtime.certificates import CertificateExpiry, InstanceTls
from registry.storage.backup_note import BackupNote
from registry.telemetry.events import LogEvent

DIRECTORY = Path(__file__).parents[2] / "docs" / "reference"
GENERATED = "<!-- Generated from the code by `make reference`. Edit the declarations there. -->"
TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "switch", "Path": "path", "list": "list"}


def table(head: list[str], rows: list[list[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def page(title: str, *blocks: str) -> str:
    """The blocks, their prose wrapped as in the pages written by hand; tables and code stay as they are."""
    wrapped = (block if block.startswith(("|", "```", "#")) else fill(block) for block in blocks)
    return "\n\n".join([title, GENERATED, *wrapped]) + "\n"


def fill(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def flat(text: str | None) -> str:
    return " ".join((text or "").split())


# Configuration


def configuration() -> str:
    rows = []
    for name, field in Config.model_fields.items():
        flag, variable = f"`--{name.replace('_', '-')}`", f"`CONCORD_{name.upper()}`"
        if name == "cluster_key":
            flag = "none: other users of the host could read it"
        if name == "policy":
            flag, variable = "none", "`CONCORD_POLICY`, as JSON"
        rows.append([f"`{name}`", flag, variable, kind_of(field), default_of(field), field.description or ""])
    rules = [[f"`{name}`", kind_of(rule), rule.description or ""] for name, rule in PolicyRule.model_fields.items()]
    return page(
        "# Configuration",
        "Settings of `concord serve`. Each is an option, a variable of the environment, or a key of the TOML file that "
        "`--config` names. An option overrides the environment, and the environment overrides the file. Give a list by "
        "repeating the option, or separate its elements by commas. A switch is turned off by `--no-…`, and in the "
        "environment by `false`.",
        "Invalid values stop the start with one line that names the setting. A variable that begins with `CONCORD_` "
        "and is no setting, and a rule that can never apply, are warnings in the log.",
        table(["setting", "option", "environment", "type", "default", "description"], rows),
        "## Policy rules",
        "Each `[[policy]]` table of the file is a rule. See [Copies and placement](../concepts/copies.md).",
        table(["key", "type", "description"], rules),
        '```toml\ncopies = 2\n\n[[policy]]\nrepositories = "prod/*"\nsites = { eu = 2, us = 1 }\n'
        'acknowledge = "each-site"\n```',
    )


def kind_of(field: FieldInfo) -> str:
    kinds = [kind for kind in (get_args(field.annotation) or [field.annotation]) if kind is not type(None)]
    if get_origin(field.annotation) is dict:
        return "table of text to whole number"
    if get_origin(field.annotation) is list:
        return "list"
    if all(isinstance(kind, str) for kind in kinds):
        return " or ".join(f"`{kind}`" for kind in kinds)
    text = " or ".join(TYPES.get(getattr(kind, "__name__", ""), "table of text to whole number") for kind in kinds)
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{words} {getattr(bound, sign):g}"
        for bound in field.metadata
        for sign, words in signs.items()
        if getattr(bound, sign, None) is not None
    ]
    return ", ".join([text, *bounds])


def default_of(field: FieldInfo) -> str:
    value = field.default
    if value is False:
        return "off"
    if value in ("", []):
        return "none"
    return f"`{value:.10g}`" if isinstance(value, float) else f"`{value}`"


# Command line


def cli() -> str:
    listed = all_commands()
    return page(
        "# Command line",
        "`concord` runs an instance, asks running instances, and works on data directories.",
        flat(commands.info.epilog),
        table(
            ["command", "purpose"],
            [
                [f"[`{name}`](#concord-{name.replace(' ', '-')})", first_sentence(one.callback)]
                for name, one in listed.items()
            ],
        ),
        *(command_page(name, one) for name, one in listed.items()),
    )


def all_commands() -> dict[str, CommandInfo]:
    """Return the commands by their names, those of groups behind the others."""
    groups = [("", commands), *((f"{one.name} ", one.typer_instance) for one in commands.registered_groups)]
    return {
        prefix + name_of_command(one): one for prefix, group in groups if group for one in group.registered_commands
    }


def name_of_command(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "")


def first_sentence(described: object) -> str:
    return re.split(r"(?<=[.])\s", flat(described.__doc__), maxsplit=1)[0]


def command_page(name: str, command: CommandInfo) -> str:
    assert command.callback is not None
    parameters = inspect.signature(command.callback).parameters
    prose = inspect.cleandoc(command.callback.__doc__ or "").split("\n\n")
    blocks = [f"## concord {name}", *(fill(flat(one)) for one in prose)]
    rows = [parameter_row(one) for one in parameters.values() if name != "serve" or one.name == "config"]
    if rows:
        blocks.append(table(["parameter", "environment", "default", "description"], rows))
    if name == "serve":
        blocks.append("The other options are the [settings](configuration.md).")
    blocks.append(f"Example: `{flat(command.epilog).removeprefix('Example: ')}`")
    return "\n\n".join(blocks)


def parameter_row(parameter: inspect.Parameter) -> list[str]:
    kind, declared = get_args(parameter.annotation)[:2]
    default = parameter.default
    if isinstance(declared, ArgumentInfo):
        spelled = declared.metavar or parameter.name.upper()
        if list[str] in (kind, *get_args(kind)):
            spelled += "…"
    else:
        spelled = ", ".join(declared.param_decls or [f"--{parameter.name.replace('_', '-')}"])
        kinds = [one for one in (get_args(kind) or (kind,)) if one is not type(None)]
        if kinds != [bool]:
            spelled += " " + (declared.metavar or {"Path": "PATH", "float": "NUMBER"}.get(kinds[0].__name__, "TEXT"))
    shown = "" if default in (None, False) else f"`{default}`"
    if default is inspect.Parameter.empty:
        shown = "required"
    return [f"`{spelled}`", f"`{declared.envvar}`" if declared.envvar else "", shown, flat(declared.help)]


# Metrics


def metrics() -> str:
    families = sorted(asyncio.run(scraped()), key=lambda family: family.name)
    rows = [[f"`{name_of(one)}`", one.type, labels_of(one), one.documentation] for one in families]
    return page(
        "# Metrics",
        "`GET /metrics` has these, in the text format of Prometheus or as OpenMetrics. What to alert on is in "
        "[Monitoring](../operate/monitoring.md).",
        "Requests are those of all processes of the instance; those of workers are counted within about a second. "
        "Counters begin at zero when the primary starts, `concord_process_deaths_total` when the instance starts. A "
        "histogram has `_bucket`, `_sum` and `_count`, a summary `_sum` and `_count`. `process_cpu_seconds_total`, "
        "`process_resident_memory_bytes`, `process_open_fds` and the like are of the primary.",
        table(["metric", "type", "labels", "meaning"], rows),
    )


async def scraped() -> list[Metric]:
    """All families of an instance that knows no others, with everything done that is shown once it was done."""
    with tempfile.TemporaryDirectory() as directory:
        config, transport = Config(data=Path(directory)), HttpTransport(None)
        instance = Instance(config, SystemClock(), SystemDisk(config.data), SilentBus(), transport)
        instance.metrics.register(CertificateExpiry(InstanceTls(None, None)))
        await instance.start()
        try:
            done = MaintenanceTimes(0, 0, 0, BackupNote(0, 0, 0, 0, ""))
            return list(
                InstanceCollector(
                    http_context(instance, dict, NoOtherProcess(), NoKeySource()).admin,
                    await instance.catalog.queries.counts(),
                    done,
                ).collect()
            )
        finally:
            await instance.close()
            await transport.close()


def name_of(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def labels_of(family: Metric) -> str:
    names = {label for sample in family.samples for label in sample.labels} - {"le"}
    names |= set(getattr(family, "_labelnames", ()))  # of families without samples; the library shows no other way
    return ", ".join(f"`{name}`" for name in sorted(names))


# HTTP API

DEMANDS = {
    Demand.NOTHING: "—",
    Demand.CREDENTIAL: "any credential",
    Demand.CATALOG: "any credential",
    Demand.METRICS: "as `metrics_access` says",
    Demand.DELEGATED: "admin of what it names",
}


def right(rule: Rule) -> str:
    """Return the right that a rule demands."""
    return DEMANDS.get(rule.demand) or str(rule.right)


def api() -> str:
    oci = [
        [
            f"`{method}`",
            f"`{TEMPLATES[resource]}`",
            right(rule_of(method, ApiPath(resource, "name", ""))),
            SUMMARIES[resource][method],
        ]
        for resource, handlers in HANDLERS.items()
        for method in handlers
        if method != "HEAD"
    ]
    own = [
        [f"`{method}`", f"`{path}`", right(internal_rule_of(method, path)), summary(handler)]
        for (method, path), handler in INTERNAL.items()
    ]
    own.append(
        [
            "`GET`",
            f"`{TAG_LOCATIONS_TEMPLATE}`",
            right(internal_rule_of("GET", TAG_LOCATIONS + "name/tag")),
            summary(replication),
        ]
    )
    acts = [
        [f"`{method}`", f"`{path}`", right(internal_rule_of(method, path)), summary(act)]
        for (method, path), (_, act) in ADMIN_ACTIONS.items()
    ]
    head = ["method", "path", "right", "purpose"]
    return page(
        "# HTTP API",
        "Wherever `GET` is listed, `HEAD` works too. Other methods are answered 405 with `Allow`.",
        "The rights are those that a caller needs where access control is enforced: on the repository in the path, or "
        "on all repositories for what names none. A dash stands for none, not even a credential.",
        "## The OCI API",
        "As the [OCI distribution "
        "specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md) says, with Docker's "
        "media types. Errors are JSON with the specification's codes. `?ns=HOST` is served for the names of "
        "the setting `name`, and is 404 for any other.",
        table(head, oci),
        "## Health, metrics and status",
        "Where access control is not enforced these ask for no credentials. With `--listen-internal` they are on that "
        "listener alone, which keeps them off the public address.",
        table(head, own),
        "## Administration",
        "These change an instance or cost it much. Who may send them: "
        "[Security](../concepts/security.md#administration). A body is a JSON object, with "
        "`Content-Type: application/json`.",
        table(head, acts),
        "## Between instances",
        "`/_concord/peer/…` is for instances of the cluster. Every request carries a proof of the cluster key. See "
        "[Replication](../internals/replication.md#requests-between-instances); it may change with any version.",
    )


def summary(handler: Callable[..., object]) -> str:
    return flat(handler.__doc__)


# Log


def log_events() -> str:
    return page(
        "# Log events",
        "A line of the log has one of these in its field `event`. The names are stable. Select lines by them and by "
        "their other fields; the text of a message may change in any version. See "
        "[Monitoring](../operate/monitoring.md#logs).",
        table(["event", "logged when"], [[f"`{event}`", event.value] for event in sorted(LogEvent, key=str)]),
    )


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "cli.md": cli,
    "metrics.md": metrics,
    "api.md": api,
    "log-events.md": log_events,
}


def write() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for name, generate in PAGES.items():
        (DIRECTORY / name).write_text(generate())


if __name__ == "__main__":
    write()
