"""An OpenID Connect issuer on loopback: discovery, keys, and tokens with whatever a test puts in them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

RSA_KEY = rsa.generate_private_key(65537, 2048)  # Once: making one takes a while.


class IdentityProvider:
    """`documents`: what its paths answer; a test changes them. `requests`: what was asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.documents: dict[str, bytes] = {}
        self.key: Any = RSA_KEY
        self.codes: dict[str, tuple[str, str]] = {}
        self.client_secret = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                body = outer.documents.get(self.path)
                if body is not None and body.startswith(b"http"):
                    self.send_response(302)
                    self.send_header("Location", body.decode())
                    self.end_headers()
                    return
                self.send_response(200 if body is not None else 404)
                self.end_headers()
                self.wfile.write(body or b"")

            def do_POST(self) -> None:
                outer.requests.append(self.path)
                sent = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                answer = outer.exchanged(sent, self.headers["Authorization"])
                self.send_response(200 if "id_token" in answer else 400)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.discovers(self.issuer, f"{self.issuer}/keys")
        self.publishes(public_key("one", RSA_KEY))

    def discovers(self, issuer: str, keys: str) -> None:
        document = {
            "issuer": issuer,
            "jwks_uri": keys,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
        }
        self.documents["/.well-known/openid-configuration"] = json.dumps(document).encode()

    def publishes(self, *keys: dict[str, Any]) -> None:
        self.documents["/keys"] = json.dumps({"keys": keys}).encode()

    def signed_in(self, address: str, now: datetime, **claims: Any) -> str:
        """What somebody does there: the code for whom the browser was sent to that address."""
        asked = dict(parse_qsl(urlsplit(address).query))
        code = uuid.uuid4().hex
        given = {"aud": asked["client_id"], "nonce": asked["nonce"], **claims}
        self.codes[code] = (asked["code_challenge"], self.token(now, **given))
        return code

    def exchanged(self, sent: dict[str, str], authorization: str | None) -> dict[str, str]:
        challenge, token = self.codes.pop(sent["code"], ("", ""))
        made = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        basic = "Basic " + base64.b64encode(f"{sent['client_id']}:{self.client_secret}".encode()).decode()
        if made != challenge or (self.client_secret and authorization != basic):
            return {"error": "invalid_grant"}
        return {"id_token": token, "access_token": "opaque", "token_type": "Bearer"}

    def token(
        self, now: datetime, *, algorithm: str = "RS256", key: Any = None, header: Any = None, **claims: Any
    ) -> str:
        given = {
            "iss": self.issuer,
            "aud": "flow",
            "sub": "ada",
            "groups": ["builders"],
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(hours=1)).timestamp()),
            "jti": uuid.uuid4().hex,
            **claims,
        }
        given = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(given, key or self.key, algorithm=algorithm, headers={"kid": "one", **(header or {})})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def public_key(kid: str, key: Any) -> dict[str, Any]:
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    made = (RSAAlgorithm if is_rsa else ECAlgorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig", "alg": "RS256" if is_rsa else "ES256"}


def elliptic_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())
