"""Messages that only their recipient can read, over a bus that many may listen to.

The recipient makes a key pair for one answer and sends the public half with its question. Whoever reads the wire, a
stream or a log of NATS sees neither the answer nor anything that would open it later.

The construction: an ephemeral X25519 agreement, HKDF-SHA256 over it and both public keys, AES-256-GCM with an all-zero
nonce, as each key encrypts once. Source: RFC 7748, RFC 5869; the shape is that of RFC 9180 (HPKE), base mode.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flow_platform.domain import errors

_PUBLIC_BYTES: Final = 32
_NONCE: Final = bytes(12)
_PURPOSE: Final = b"flow sealed answer 1"


class Recipient:
    """Asks one question, and opens one answer."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def open(self, sealed: str, context: bytes) -> bytes:
        """Opens what `seal` made for this recipient and context.

        Raises:
            BusUnavailable: It is something else.
        """
        try:
            raw = base64.b64decode(sealed, validate=True)
            sender = X25519PublicKey.from_public_bytes(raw[:_PUBLIC_BYTES])
            key = _derived(self._private, sender, raw[:_PUBLIC_BYTES] + self._private.public_key().public_bytes_raw())
            return AESGCM(key).decrypt(_NONCE, raw[_PUBLIC_BYTES:], context)
        except (InvalidTag, ValueError) as error:  # `binascii.Error` is a ValueError.
            raise errors.BusUnavailable("a sealed answer cannot be opened: it is for somebody else") from error


def seal(public_key: str, message: bytes, context: bytes) -> str:
    """Encrypts a message for the holder of the private half.

    Raises:
        InvalidInput: That is no public key.
    """
    try:
        raw = base64.b64decode(public_key, validate=True)
        private, recipient = X25519PrivateKey.generate(), X25519PublicKey.from_public_bytes(raw)
        own = private.public_key().public_bytes_raw()
        key = _derived(private, recipient, own + raw)
    except (binascii.Error, ValueError) as error:
        raise errors.InvalidInput("public_key is not valid: expected an X25519 public key in base64") from error
    return base64.b64encode(own + AESGCM(key).encrypt(_NONCE, message, context)).decode()


def _derived(private: X25519PrivateKey, public: X25519PublicKey, both: bytes) -> bytes:
    shared = private.exchange(public)
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE + both).derive(shared)
