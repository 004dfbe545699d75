"""The configuration of simulated instances."""

from typing import Any

from registry.config import Config


def make_config(**options: Any) -> Config:
    """Return a configuration that neither the environment nor a file has a part in, and whose values are not checked.
    Raises TypeError for an option that the registry does not have."""
    unknown = options.keys() - Config.model_fields.keys()
    if unknown:
        raise TypeError(f"unknown options {', '.join(sorted(unknown))}: expected fields of registry.config.Config")
    return Config.model_construct(**options)
