"""Components that are given secrets, and say them in every way they know."""

import base64
import hashlib
import os
import sys
from urllib.parse import quote

from flow_sdk import code_block, emit_event


@code_block(secrets=["E2E_TOKEN", "E2E_PASSPHRASE"])
def leaks() -> dict:
    token, phrase = os.environ["E2E_TOKEN"], os.environ["E2E_PASSPHRASE"]
    print("token", token, "and", phrase)  # noqa: T201
    print("basic", base64.b64encode(f"user:{token}:x".encode()).decode(), token.encode().hex(), quote(phrase))  # noqa: T201
    print(token[:11])  # noqa: T201
    print(token[11:])  # noqa: T201
    for character in f"one by one: {phrase}\n":
        sys.stderr.write(character)
        sys.stderr.flush()
    emit_event("progress", {"step": f"with {token}", phrase: 1})
    return {"token": token, "headers": [f"Bearer {token}"], "digest": hashlib.sha256(token.encode()).hexdigest()}


@code_block(secrets=["E2E_TOKEN"], retry={"max_attempts": 2, "initial_interval_seconds": 0})
def raises() -> None:
    secret = os.environ["E2E_TOKEN"]
    raise ValueError(f"401 for {secret!r}")


@code_block(secrets=["E2E_UNSET"], retry={"max_attempts": 3})
def needs() -> None: ...


@code_block
def sees() -> list:
    return sorted(name for name in os.environ if name.startswith("E2E"))


@code_block(secrets=["E2E_PLACE"])
def place() -> int:
    return len(os.environ["E2E_PLACE"])
