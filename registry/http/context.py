"""The collaborators of the ASGI application, and by it of all handlers. `registry.app` builds the context."""

import asyncio
from dataclasses import dataclass

from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.site_lease import SiteLease
from registry.http.access.gate import Gate
from registry.http.admin.context import AdminContext
from registry.http.drain_state import DrainState
from registry.http.oci.context import OciContext
from registry.http.peer.context import PeerContext
from registry.http.wire.fast_path import FastPath
from registry.ports import Clock
from registry.settings.trusted_proxies import TrustedProxies
from registry.telemetry.counters import Traffic


@dataclass(frozen=True, slots=True)
class HttpContext:
    """For the application."""

    oci: OciContext
    peer: PeerContext
    admin: AdminContext
    fast_path: FastPath
    gate: Gate
    clock: Clock
    traffic: Traffic
    proxies: TrustedProxies
    drain: DrainState
    lease: ReadLease
    site_lease: SiteLease
    answers_clients: asyncio.Event
    """Set when the instance may answer clients."""
    logs_requests: bool
