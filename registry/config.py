"""What an operator may set: on the command line, as CONCORD_… in the environment, or in a TOML file, in this order."""

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

from registry.addresses import is_wildcard, parse_address, parse_host_name, parse_instance_url
from registry.errors import CannotStart
from registry.forwarded import Network, parse_proxies
from registry.policy import Policy, parse_rule
from registry.redis_address import check_address, split_addresses

Listed = Annotated[list[str], NoDecode]


class PolicyRule(BaseModel, extra="forbid"):
    """One `[[policy]]` table. What it does not say is as it is for every repository."""

    repositories: str
    copies: str | int | None = None
    sites: dict[str, int] | None = None
    acknowledge: str | int | None = None


class Config(BaseSettings):
    """All settings. Lists are given as several options, or separated by commas."""

    model_config = SettingsConfigDict(env_prefix="CONCORD_", extra="forbid", toml_file=None)

    listen: str = Field("127.0.0.1:5000", description="HOST:PORT to serve on")
    data: Path = Field(Path("data"), description="the data directory")
    site: str = Field("", description="the label of the place this instance runs at")
    instance_name: str = Field("", description="what this instance is called wherever its id is shown")
    redis: Listed = Field([], description="Redis servers to gossip through; any one that works is enough")
    advertise: str = Field("", description="this instance's address inside its site")
    advertise_site: str = Field("", description="an address behind which any instance of the site answers other sites")
    peer: Listed = Field([], description="addresses of other instances, to find them without Redis")
    name: Listed = Field([], description="host names this registry goes by, for containerd's ?ns=")
    cluster_key: Annotated[list[SecretStr], NoDecode] = Field(
        [], description="secrets that join a cluster: the first signs, all verify"
    )
    sparse: bool = Field(False, description="accept manifests whose parts are missing")
    hold_s: float = Field(20.0, ge=0, le=50, description="how long a GET waits for a holder of content, in seconds")
    copies: str = Field(
        "on demand", description="how many instances hold content: a number, everywhere, on demand, or eu=2,us=1"
    )
    acknowledge: str = Field(
        "local", description="who must hold a push before it is answered: local, a number of holders, each-site"
    )
    acknowledge_s: float = Field(25.0, gt=0, le=300, description="how long a push waits for that, in seconds")
    policy: list[PolicyRule] = Field([], description="copies and acknowledge for some repositories")
    front_end: bool = Field(False, description="keep no copies here: only fetch, and serve what was fetched")
    disk_budget_gib: float = Field(
        0.0, ge=0, description="evict content that others hold when there is more here, in GiB; 0 for no bound"
    )
    max_uploads: int = Field(10_000, ge=1, description="how many uploads may be under way at once")
    copy_mib_s: float = Field(100.0, gt=0, description="how fast content follows when members come and go, in MiB/s")
    gc_every_s: float = Field(3600.0, ge=0, description="how often unused content is looked for, 0 for only on demand")
    gc_grace_s: float = Field(86400.0, ge=0, description="how long content that no manifest names is kept, in seconds")
    check_after_s: float = Field(
        86400.0, ge=0, description="content is checked as it is read when its last check is so many seconds ago"
    )
    scrub_mib_s: float = Field(20.0, ge=0, description="MiB per second that the background check reads; 0 is off")
    scrub_every_s: float = Field(7 * 86400.0, gt=0, description="seconds after which content is checked again")
    scrub_at_start: bool = Field(False, description="check all content when the instance starts")
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="processes that serve; one owns the instance, the others read; 0: one for each core, at most 8",
    )
    listen_internal: str = Field("", description="HOST:PORT for /_concord, /metrics and health alone")
    trusted_proxies: Listed = Field(
        [], description="addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    drain_s: float = Field(60.0, ge=0, description="how long uploads and requests may go on when told to end")
    log_format: Literal["text", "json"] = Field("text", description="how log lines are written: text or json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    log_requests: bool = Field(False, description="log every request of the OCI API")

    @field_validator("peer", "name", "cluster_key", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        """Split at commas, also within the elements of a list, such as a repeated option has them. Keys in a file's
        list are whole: a secret may hold a comma."""
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
        """Raises ValueError for rules that cannot be meant."""
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
        """Where the other instances of the site reach this one."""
        host, port = self.address
        return self.advertise or f"http://{host}:{port}"

    @property
    def internal_address(self) -> tuple[str, int] | None:
        return parse_address(self.listen_internal) if self.listen_internal else None


def load_config(options: dict[str, Any], file: Path | None, check: bool = True) -> Config:
    """The settings from options, environment and file. Raises CannotStart, in one line, for what is not right; without
    `check`, not for what does not go together."""

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
        raise CannotStart(f"the setting {where} is wrong: {first['msg'].removeprefix('Value error, ')}") from None
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


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
