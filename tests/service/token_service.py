"""A stand-in for an OpenID Connect provider: it gives signed tokens to clients with the right secret, and shows its key."""

from __future__ import annotations

import base64
import http.server
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.http_server import listening

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIENCE = "kafka"
KEY_ID = "key-1"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenService:
    """Its clients and their secrets, its key, and the tokens that it has given."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.lifetime_s = 300
        self.audience = AUDIENCE
        self.given: list[tuple[str, str]] = []
        """Client and scope of each token."""
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    @property
    def jwks(self) -> dict[str, object]:
        """The public key, as a JSON Web Key Set."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID}
        key |= {"n": _base64url(numbers.n.to_bytes(256)), "e": _base64url(numbers.e.to_bytes(3))}
        return {"keys": [key]}

    def answer(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Status and body for the request of a token."""
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client, _, secret = (unquote(part) for part in given.partition(":"))
        if form.get("grant_type") != ["client_credentials"] or self.secrets.get(client) != secret:
            return 401, {"error": "invalid_client", "error_description": "the client or its secret is wrong"}
        self.given.append((client, "".join(form.get("scope", ()))))
        return 200, {"access_token": self._token(client), "token_type": "Bearer", "expires_in": self.lifetime_s}

    def _token(self, client: str) -> str:
        now_s = int(time.time())
        header = {"alg": "RS256", "kid": KEY_ID, "typ": "JWT"}
        claims = {"sub": client, "aud": self.audience, "iat": now_s, "exp": now_s + self.lifetime_s, "scope": "log"}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_base64url(signature)}"


@contextmanager
def token_service(secrets: dict[str, str]) -> Iterator[tuple[TokenService, str]]:
    """A provider and its address for the length of a block; tokens are at `/token`, and the key at `/keys`."""
    service = TokenService(secrets)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._send(*service.answer(self.headers["Authorization"], parse_qs(form)))

        def do_GET(self) -> None:
            self._send(200, service.jwks)

        def _send(self, status: int, body: dict[str, object]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield service, url
