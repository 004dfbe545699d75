"""An identity provider for tests: its keys, the tokens that it signs, and its two documents over loopback HTTP."""

import json
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

AUDIENCE = "concord"
_made: dict[str, Key] = {}


def key(name: str, algorithm: str = "ES256") -> Key:
    """Return the key of a name. An RSA key takes a while to make, so each is made once."""
    if (found := _made.get(f"{name} {algorithm}")) is None:
        parameters: Any = {"kid": name, "use": "sig"}
        if algorithm in ("RS256", "PS256", "RS512"):
            found = RSAKey.generate_key(2048, parameters)
        elif algorithm.startswith("ES"):
            found = ECKey.generate_key({"ES256": "P-256", "ES384": "P-384"}[algorithm], parameters)
        else:
            found = OKPKey.generate_key("Ed25519", parameters)
        _made[f"{name} {algorithm}"] = found
    return found


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], with_key: Any) -> str:
    """Return a token with any header."""
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    registry.max_header_length = 16_384
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of old names of algorithms
        return jws.serialize_compact(dict(header), json.dumps(claims), with_key, registry=registry)


class Issuer:
    """Keys and tokens. Without `serve`, the issuer answers no request."""

    def __init__(self, url: str = "https://issuer.example") -> None:
        self.url = url
        self.keys: list[Key] = [key("one")]
        self.requests: Counter[str] = Counter()
        self.is_down = False
        self.configuration: dict[str, Any] = {}
        """Members that stand in place of the right ones."""
        self._server: ThreadingHTTPServer | None = None

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return the claims of a token that counts, but for these. None leaves a claim out."""
        now = int(time.time())
        found = {"iss": self.url, "aud": AUDIENCE, "sub": "workload", "iat": now, "exp": now + 300, **claims}
        return {name: value for name, value in found.items() if value is not None}

    def token(self, algorithm: str = "ES256", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a token signed with the first key."""
        members = {"alg": algorithm, "kid": self.keys[0].kid, **(header or {})}
        return signed(members, self.claims(**claims), self.keys[0])

    def key_set(self) -> bytes:
        """Return the public keys as a JSON Web Key Set."""
        return json.dumps({"keys": [one.as_dict(private=False) for one in self.keys]}).encode()

    def serve(self, port: int = 0) -> "Issuer":
        """Answer requests on loopback until `close`."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests[self.path] += 1
                body = issuer.answer(self.path)
                self.send_response(200 if body is not None else 503)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def answer(self, path: str) -> bytes | None:
        """Return the document at a path; None where there is none, and while the issuer is down."""
        if self.is_down:
            return None
        if path == "/.well-known/openid-configuration":
            right = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            return json.dumps(right | self.configuration).encode()
        return self.key_set() if path == "/keys" else None

    @property
    def fetches(self) -> int:
        """The number of times that its keys were fetched."""
        return self.requests["/keys"]

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> "Issuer":
        return self.serve()

    def __exit__(self, *raised: object) -> None:
        self.close()
