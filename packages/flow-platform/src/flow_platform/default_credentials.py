"""Passwords and keys that everybody knows: the platform does not start with one.

A platform that is reached with `postgres:postgres`, or that encrypts with a key of zeros from somebody's example, is
open, and looks closed. There is no switch that permits it: choosing a password costs less than the switch would.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import unquote, urlsplit

# Of the servers' own documentation and images, and the first tries of every scanner. Source: the lists that Mirai and
# its descendants carry, and the READMEs of PostgreSQL's and NATS's container images.
_KNOWN: Final = frozenset(
    {
        *("password", "passw0rd", "passwort", "pass", "postgres", "postgresql", "mysecretpassword", "nats", "flow"),
        *("admin", "administrator", "root", "toor", "test", "guest", "user", "default", "example", "demo", "local"),
        *("secret", "s3cret", "s3cr3t", "changeme", "change-me", "changeit", "letmein", "qwerty", "welcome", "dev"),
        *("123", "1234", "12345", "123456", "1234567", "12345678", "123456789", "1234567890", "abc123", "pwd"),
        *("system", "master", "windmill", "prefect", "temporal", "airflow", "supabase", "minioadmin", "token"),
    }
)
_FEW_BYTES: Final = 12
"""Different bytes among 32: of random ones there are fewer once in 10^25 keys."""


def known_password(url: str) -> str:
    """What is wrong with the password of a URL; empty: nothing."""
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return ""  # Its own parser says so.
    if not password and parts.scheme in ("nats", "tls"):
        password, user = user, ""  # nats://TOKEN@HOST
    if password.lower() in _KNOWN:
        return "a password of your own: this one is among the first that is tried"
    if password and password == user:
        return "a password that is not the user's name"
    return ""


def known_key(text: str) -> str:
    """What is wrong with a key in base64; empty: nothing, or it is no base64, which its own parser says."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ""
    if len(key) == 32 and len(set(key)) < _FEW_BYTES:
        return "32 random bytes in base64, as `openssl rand -base64 32` prints"
    return ""
