"""The files of one side's TLS, by the settings that name them."""

from typing import NamedTuple


class TlsFiles(NamedTuple):
    """Paths of PEM files; empty where there is none."""

    name: str
    """The beginning of the settings' names: `tls` or `peer_tls`."""
    certificate: str
    key: str
    authorities: str
    """Who signs the certificates of the other side."""

    def option(self, kind: str) -> str:
        """Return the option that names a file: the `certificate`, the `key` or the `authorities`."""
        if kind == "authorities":
            kind = "ca" if self.name == "peer_tls" else "client-ca"
        return f"--{self.name.replace('_', '-')}-{kind}"
