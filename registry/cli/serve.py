"""Running an instance: one process, or several on one data directory."""

import contextlib
import math
import os
import signal
import sys
from pathlib import Path

from registry.catalog.catalog import PATH
from registry.cli.logs import set_up_logging
from registry.config import Config
from registry.errors import CannotStart
from registry.runtime.certificates import InstanceTls
from registry.runtime.primary import WAYS_OUT, Sockets, Unsupervised, run_primary
from registry.runtime.signals import RELOAD
from registry.runtime.sockets import PREDECESSOR_TIMEOUT_S, listening, locked, raise_file_limit
from registry.runtime.supervisor import Supervisor
from registry.settings.addresses import is_loopback
from registry.settings.environment import unknown_variables
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.config")

MAX_WORKERS = 8
"""The default is at most this many processes, however many cores there are: with more, requests wait for the
primary."""
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def serve(config: Config) -> None:
    """Serve until a signal ends it. Raises CannotStart."""
    set_up_logging(config)
    _warn(config)
    tls = InstanceTls.of(config)
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(listening(config.address))
        internal = stack.enter_context(listening(config.internal_address)) if config.internal_address else None
        stack.enter_context(locked(config.data, PREDECESSOR_TIMEOUT_S))
        _check_catalog(config.data)
        workers = config.workers or _default_processes(_cores())
        if workers == 1:
            _run_alone(config, Sockets(public, internal), tls)
            return
        status = Supervisor(config, public, internal, tls, workers).run()
    if status:
        sys.exit(status)


def _run_alone(config: Config, sockets: Sockets, tls: InstanceTls) -> None:
    """Run the instance in one process. An unexpected exception is logged, as with several processes."""
    if tls:
        signal.signal(RELOAD, signal.SIG_IGN)  # until the instance has started; the files were just read
    try:
        run_primary(config, sockets, (signal.SIGTERM, signal.SIGINT), Unsupervised(), tls)
    except CannotStart:
        raise
    except Exception:
        log.exception(LogEvent.PROCESS_FAILED, "this process has failed")
        sys.exit(1)


def _warn(config: Config) -> None:
    """Log the settings that have no effect, or a dangerous one: each is a mistake."""
    for variable in unknown_variables(os.environ, Config.model_fields):
        message = "the variable %(variable)s is no setting" + ("; did you mean %(meant)s?" if variable.meant else "")
        log.warning(LogEvent.UNKNOWN_SETTING_IGNORED, message, variable=variable.name, meant=variable.meant)
    if exposes_plain_http(config):
        log.warning(
            LogEvent.PLAIN_HTTP_EXPOSED,
            "plain HTTP is served at %(address)s: set --tls-certificate and --tls-key, --trusted-proxies for what "
            "encrypts in front, or --insecure",
            address=config.listen,
        )
    policy = config.rules
    for number, reason in policy.without_effect().items():
        pattern = policy.rules[number].repositories
        log.warning(
            LogEvent.POLICY_RULE_IGNORED,
            "the policy's rule %(rule)d, for %(repositories)r, never applies: %(reason)s",
            rule=number + 1,
            repositories=pattern,
            reason=reason,
        )


def exposes_plain_http(config: Config) -> bool:
    """Return whether clients on the network are served without TLS, and no setting says that something in front
    encrypts."""
    is_private = is_loopback(config.address[0].strip("[]"))
    return not (is_private or config.tls_files or config.trusted_proxies or config.insecure)


def _default_processes(cores: int) -> int:
    """Return the number of processes: one that serves clients for each core, and one that commits for them. On one core
    a single process does both."""
    return 1 if cores == 1 else min(cores, MAX_WORKERS) + 1


def _cores() -> int:
    """Return the number of cores that this process may use, bounded by the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, _, period = CPU_QUOTA.read_text().partition(" ")
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def _check_catalog(data: Path) -> None:
    """Refuse content without a catalog: an empty catalog would look like a registry that has lost everything."""
    if not (data / PATH).exists() and any(data.glob("blobs/*/??/*")):
        raise CannotStart(f"{data} has content and no {PATH}: the catalog is lost; {WAYS_OUT}", "catalog-lost")
