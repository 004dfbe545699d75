"""The settings of an instance: from the command line, CONCORD_… in the environment, or a TOML file, in this order."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from registry.errors import CannotStart
from registry.settings.addresses import (
    is_wildcard,
    parse_address,
    parse_host_name,
    parse_instance_url,
    parse_key_file,
    parse_token_url,
)
from registry.settings.policy import Policy, parse_rule
from registry.settings.redis_address import check_address, split_addresses
from registry.settings.tls_files import TlsFiles
from registry.settings.trusted_proxies import Network, parse_proxies

Listed = Annotated[list[str], NoDecode]


class PolicyRule(BaseModel, extra="forbid"):
    """One `[[policy]]` table. Settings apply to what it leaves out."""

    repositories: str = Field(
        description="Repositories that the rule is for. `*` stands for any characters, slashes included."
    )
    copies: str | int | None = Field(None, description="As the setting `copies`. A rule has `copies` or `sites`.")
    sites: dict[str, int] | None = Field(None, description="How many instances hold content at each site.")
    acknowledge: str | int | None = Field(None, description="As the setting `acknowledge`.")


class Config(BaseSettings):
    """All settings. Lists are given as several options, or separated by commas."""

    model_config = SettingsConfigDict(env_prefix="CONCORD_", extra="forbid", toml_file=None)

    listen: str = Field(
        "127.0.0.1:5000",
        description="HOST:PORT to serve on. An IPv6 address stands in brackets; `[::]` accepts IPv4 too.",
    )
    data: Path = Field(
        Path("data"), description="Data directory. It must be on a local file system: SQLite keeps a write-ahead log."
    )
    site: str = Field("", description="Label of the place this instance runs at, such as `eu`.")
    instance_name: str = Field(
        "",
        description="Name shown beside the instance id in status, metrics and logs of all instances. The host's name "
        "is a good choice.",
    )
    redis: Listed = Field(
        [],
        description="Redis servers to gossip through; one that works is enough. `redis://`, `rediss://` (TLS, with "
        "`?ssl_ca_certs=FILE`), `unix://`, or Sentinels: `redis+sentinel://HOST:PORT,HOST:PORT/NAME`. A database "
        "number (`/3`) separates channels. Percent-encode special characters of a password (`%2F` for `/`).",
    )
    advertise: str = Field(
        "",
        description="URL at which other instances of the site reach this one; `http://` and `--listen` by default. "
        "It must lead here also while this instance is not ready.",
    )
    advertise_site: str = Field(
        "",
        description="URL behind which any instance of the site answers other sites. Instances with the same URL are "
        "one site, also while the site is renamed.",
    )
    peer: Listed = Field([], description="URLs of other instances, to find them without Redis.")
    name: Listed = Field(
        [],
        description="Host names (HOST or HOST:PORT) of this registry, for containerd's `?ns=`. Requests for any other "
        "name are answered 404.",
    )
    cluster_key: Annotated[list[SecretStr], NoDecode] = Field(
        [],
        description="Secrets that join a cluster, 16 characters or more each: the first signs, all verify. Separate "
        "keys by commas in the environment; in a file, a list holds each key whole.",
    )
    bootstrap: bool = Field(
        False,
        description="Serve clients before a member of the cluster was met: for the first instance of a new cluster. "
        "Without it, a new instance with a cluster key, and a Redis or peers, waits for a member.",
    )
    admin_password_file: str = Field(
        "",
        description="File with the password of the account `admin`, which an instance makes at its first start as an "
        "administrator. The account ends for good once there is another administrator.",
    )
    sparse: bool = Field(False, description="Accept manifests whose blobs or child manifests are missing.")
    holder_wait_s: float = Field(20.0, ge=0, le=50, description="Seconds that a GET waits for a holder of the content.")
    copies: str = Field(
        "on demand",
        description="How many instances hold content: a number, `everywhere`, `on demand`, or by site: `eu=2,us=1`.",
    )
    acknowledge: str = Field(
        "local",
        description="Write concern: the holders that a push needs before it is acknowledged. `local`, `each-site` or a "
        "number of holders.",
    )
    acknowledge_timeout_s: float = Field(
        25.0, gt=0, le=300, description="Seconds that a push waits for its write concern before it is answered 503."
    )
    policy: list[PolicyRule] = Field(
        [],
        description="Rules for some repositories, as `[[policy]]` tables in the file. The first that matches counts.",
    )
    proxy_instance: bool = Field(
        False, description="Run as a proxy instance: keep no copies here, only fetch content and serve it."
    )
    fetch_whole: Literal["assigned", "reused", "always"] = Field(
        "reused",
        description="When the whole blob follows a range of a blob that another instance holds, in the background: "
        "`assigned`: if the policy assigns it to this instance; `reused`: also once ranges of it have moved half "
        "as many bytes again as it has; `always`.",
    )
    disk_budget_gib: float = Field(
        0.0,
        ge=0,
        description="GiB that content and uploads may take; 0 for no bound. Above nine tenths of it, content that "
        "other instances hold is evicted, least recently used first; what would exceed it is refused.",
    )
    max_uploads: int = Field(
        10_000,
        ge=1,
        description="Uploads under way at once. One more preempts the longest idle upload of the client network that "
        "has the most.",
    )
    copy_mib_s: float = Field(
        100.0, gt=0, description="MiB/s at which content is replicated when instances join or go."
    )
    gc_interval_s: float = Field(
        3600.0, ge=0, description="Seconds between garbage collections; 0 to collect by command only."
    )
    gc_grace_s: float = Field(
        86400.0, ge=0, description="Grace period in seconds: unreferenced content is kept for so long."
    )
    verify_after_s: float = Field(
        86400.0,
        ge=0,
        description="Content is verified as it is read if its last check is so many seconds ago; 0: always.",
    )
    scrub_mib_s: float = Field(
        20.0,
        ge=0,
        description="MiB/s that the scrubber reads at most; 0 is off. A scrub by command then reads 20 MiB/s.",
    )
    scrub_interval_s: float = Field(
        7 * 86400.0, gt=0, description="Seconds after which the scrubber verifies content again."
    )
    scrub_at_start: bool = Field(False, description="Scrub all content when the instance starts, while it serves.")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes: one primary, which commits, the others workers, which serve clients. 1 does both in "
        "one process. 0 is a worker for each core, or each core of a container's share, at most 8, and the primary. "
        "Each worker keeps up to 16 MiB of answers in memory.",
    )
    listen_internal: str = Field(
        "",
        description="HOST:PORT for `/_concord`, `/metrics`, `/healthz` and `/readyz` alone. Other instances must reach "
        "it: `--advertise` names it.",
    )
    tls_certificate: str = Field(
        "",
        description="File (PEM) with the certificate that clients see on `--listen`, and the intermediate ones behind "
        "it. `--listen` then speaks HTTPS alone. A changed file is read again within seconds, and on SIGHUP.",
    )
    tls_key: str = Field(
        "",
        description="File (PEM) with the private key of `--tls-certificate`, without a passphrase.",
    )
    tls_client_ca: str = Field(
        "",
        description="File (PEM) with the authorities whose certificates identify clients. A client may present none. "
        "TLS 1.3 is then required, and no session is resumed.",
    )
    peer_tls_certificate: str = Field(
        "",
        description="File (PEM) with the certificate of this instance among instances. `--listen-internal` then speaks "
        "HTTPS alone, and a request of an instance without a certificate of `--peer-tls-ca` is refused.",
    )
    peer_tls_key: str = Field("", description="File (PEM) with the private key of `--peer-tls-certificate`.")
    peer_tls_ca: str = Field(
        "",
        description="File (PEM) with the authorities that sign the certificates of instances. Without "
        "`--peer-tls-certificate` it only names who is trusted at `https://` addresses of other instances.",
    )
    insecure: bool = Field(
        False,
        description="Serve plain HTTP on an address other than loopback without a warning: the network is private, or "
        "TLS ends in front.",
    )
    trusted_proxies: Listed = Field(
        [],
        description="Addresses of load balancers whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted. Never "
        "name a network that clients are in: they could then choose the address that they are known by.",
    )
    token_url: str = Field(
        "",
        description="URL of the token endpoint (`/v2/token`) as clients reach it. By default the scheme and the `Host` "
        "of each request make it; set it where a proxy rewrites `Host`.",
    )
    oidc_audience: str = Field(
        "concord",
        description="Audience that ID tokens of identity providers must name, the same at every instance. Name it "
        "after the registry's host, so that no token for another registry counts here.",
    )
    oidc_ca: str = Field(
        "",
        description="File (PEM) with authorities of identity providers, trusted beside those of the system, such as "
        "that of a Kubernetes cluster.",
    )
    oidc_keys: Listed = Field(
        [],
        description="Files with the keys (JSON Web Key Sets) of identity providers that cannot be reached from here: "
        "`ISSUER=PATH`. They are read again as fetched keys are fetched again.",
    )
    metrics_access: Literal["admin", "account", "anyone"] = Field(
        "admin",
        description="Who reads `/metrics` where access control is enforced: administrators of all repositories, any "
        "account, or anyone. The listener of `--listen-internal` answers anyone.",
    )
    drain_s: float = Field(
        60.0,
        ge=0,
        description="Seconds that uploads and requests may go on after SIGTERM; the image sets 6. Whatever stops the "
        "instance must wait 3 s longer before it kills.",
    )
    log_format: Literal["text", "json"] = Field("text", description="Format of log lines.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    audit: Literal["off", "writes", "all"] = Field(
        "writes",
        description="Requests in the audit log while access control is enforced: writes are those that change "
        "something, sign in, or are refused. With all, reads take the slow path, at a fifth of the requests a second.",
    )
    audit_mib: int = Field(
        256,
        ge=16,
        description="MiB of the audit log that each process keeps; beyond that its oldest files go.",
    )
    log_requests: bool = Field(
        False,
        description="Log every request of the OCI API. Manifests and small blobs then take the slow path, at a fifth "
        "of the requests a second.",
    )

    @field_validator("peer", "name", "cluster_key", "trusted_proxies", "oidc_keys", mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        """Split at commas, also within the elements of a list, which a repeated option gives. Keys in a file's list are
        whole: a secret may hold a comma."""
        if isinstance(value, list) and info.field_name != "cluster_key":
            return [part for one in value for part in (_parts(one) if isinstance(one, str) else [one])]
        return _parts(value) if isinstance(value, str) else value

    @field_validator("redis", mode="before")
    @classmethod
    def _split_redis(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [part for one in value for part in (split_addresses(one) if isinstance(one, str) else [one])]
        return split_addresses(value) if isinstance(value, str) else value

    @field_validator("*")
    @classmethod
    def _check_finite(cls, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is no amount: expected a finite number")
        return value

    @field_validator("copies", "acknowledge", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value  # a file has numbers

    @field_validator("data", mode="before")
    @classmethod
    def _check_data(cls, value: Any) -> Any:
        if value == "" or value == Path(""):
            raise ValueError("the data directory has no name")  # else it would be the working directory
        return value

    @field_validator("site", "instance_name")
    @classmethod
    def _check_label(cls, value: str, info: ValidationInfo) -> str:
        if not re.fullmatch(r"[a-zA-Z0-9._-]{0,63}", value):
            what = "a site" if info.field_name == "site" else "the name of an instance"
            raise ValueError(f"{what} is at most 63 letters, digits, dots, dashes and underscores")
        return value

    @field_validator("listen", "listen_internal")
    @classmethod
    def _check_address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name == "listen":
            parse_address(value)
        return value

    @field_validator("advertise", "advertise_site")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return parse_instance_url(value) if value else value

    @field_validator("token_url")
    @classmethod
    def _check_token_url(cls, value: str) -> str:
        return parse_token_url(value) if value else value

    @field_validator("peer")
    @classmethod
    def _check_urls(cls, value: list[str]) -> list[str]:
        return [parse_instance_url(url) for url in value]

    @field_validator("name")
    @classmethod
    def _check_names(cls, value: list[str]) -> list[str]:
        return [parse_host_name(name) for name in value]

    @field_validator("redis")
    @classmethod
    def _check_redis(cls, value: list[str]) -> list[str]:
        for url in value:
            check_address(url)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: list[str]) -> list[str]:
        parse_proxies(value)
        return value

    @field_validator("oidc_audience")
    @classmethod
    def _check_audience(cls, value: str) -> str:
        if not value:
            raise ValueError("the audience is empty: expected a name of this registry")
        return value

    @field_validator("oidc_keys")
    @classmethod
    def _check_key_files(cls, value: list[str]) -> list[str]:
        for one in value:
            parse_key_file(one)
        return value

    @field_validator("cluster_key")
    @classmethod
    def _check_keys(cls, value: list[SecretStr]) -> list[SecretStr]:
        if any(len(key.get_secret_value()) < 16 for key in value):
            raise ValueError("a cluster key has at least 16 characters")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def rules(self) -> Policy:
        """Raises ValueError for rules that contradict themselves."""
        for rule in self.policy:
            if rule.copies is not None and rule.sites is not None:
                raise ValueError(f"the rule for {rule.repositories} has copies and sites: say one of them")
        rules = [
            parse_rule(
                rule.repositories,
                self.copies if rule.copies is None and rule.sites is None else rule.sites or rule.copies or "",
                self.acknowledge if rule.acknowledge is None else rule.acknowledge,
            )
            for rule in self.policy
        ]
        return Policy((*rules, parse_rule("*", self.copies, self.acknowledge)))

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The networks whose forwarded fields are believed."""
        return parse_proxies(self.trusted_proxies)

    @property
    def address(self) -> tuple[str, int]:
        return parse_address(self.listen)

    @property
    def own_url(self) -> str:
        """The URL at which the other instances of the site reach this one."""
        host, port = self.address
        return self.advertise or f"{'https' if self.tls_files else 'http'}://{host}:{port}"

    @property
    def internal_address(self) -> tuple[str, int] | None:
        return parse_address(self.listen_internal) if self.listen_internal else None

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of the TLS that clients see; None for plain HTTP."""
        if not self.tls_certificate:
            return None
        return TlsFiles("tls", self.tls_certificate, self.tls_key, self.tls_client_ca)

    @property
    def peer_tls_files(self) -> TlsFiles | None:
        """The files of the TLS between instances; None where the authorities of the system are trusted."""
        if not self.peer_tls_ca:
            return None
        return TlsFiles("peer_tls", self.peer_tls_certificate, self.peer_tls_key, self.peer_tls_ca)

    @property
    def has_mutual_tls(self) -> bool:
        """True if instances prove themselves to each other by certificates."""
        return bool(self.peer_tls_certificate)


def load_config(options: dict[str, Any], file: Path | None, check: bool = True) -> Config:
    """Return the settings from options, environment and file. Raises CannotStart, with a message of one line, for an
    invalid setting; and with `check`, for settings that contradict each other."""

    class Loaded(Config):
        model_config = SettingsConfigDict(toml_file=file)

    if file is not None and not file.is_file():
        raise CannotStart(f"there is no configuration file {file}")
    try:
        config = Loaded(**options)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            raise CannotStart(f"{file}: there is no setting {where}") from None
        raise CannotStart(f"the setting {where} is wrong: {first.get('ctx', {}).get('error', first['msg'])}") from None
    except ValueError as error:
        raise CannotStart(f"{file or 'the configuration'} cannot be read: {error}") from None
    if check:
        _check_together(config)
    return config


def _check_together(config: Config) -> None:
    try:
        policy = config.rules
    except ValueError as error:
        raise CannotStart(f"the policy is wrong: {error}") from None
    if policy.copies_anything and not config.cluster_key:
        raise CannotStart("copies are kept by the instances of a cluster, and a cluster needs CONCORD_CLUSTER_KEY")
    clustered = config.redis or config.peer or config.advertise or config.advertise_site
    if clustered and not config.cluster_key:
        raise CannotStart("a cluster needs a key: set CONCORD_CLUSTER_KEY to the same secret at every instance")
    if config.cluster_key and not config.advertise and is_wildcard(config.address[0]):
        raise CannotStart("an instance of a cluster that listens on every address must say its own: set --advertise")
    if config.cluster_key and not config.advertise and config.listen_internal:
        raise CannotStart("with --listen-internal, say the address at which others reach it: set --advertise")
    _check_tls(config)


def _check_tls(config: Config) -> None:
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise CannotStart("TLS needs a certificate and its key: set --tls-certificate and --tls-key")
    if config.tls_client_ca and not config.tls_certificate:
        raise CannotStart("certificates of clients need TLS: with --tls-client-ca, set --tls-certificate and --tls-key")
    own = (config.peer_tls_certificate, config.peer_tls_key, config.peer_tls_ca)
    if any(own[:2]) and not all(own):
        raise CannotStart("mutual TLS between instances needs --peer-tls-certificate, --peer-tls-key and --peer-tls-ca")
    if not config.has_mutual_tls:
        return
    if not config.listen_internal:
        raise CannotStart(
            "with --peer-tls-certificate, instances reach each other at a port of their own: set --listen-internal"
        )
    for option, urls in (
        ("advertise", [config.advertise]),
        ("advertise-site", [config.advertise_site]),
        ("peer", config.peer),
    ):
        for url in filter(None, urls):
            if not url.startswith("https://"):
                raise CannotStart(
                    f"invalid address {url!r} in --{option}: expected https://, for --peer-tls-certificate is set"
                )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
