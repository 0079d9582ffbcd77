"""Asks the platform's API, with the token of this execution or another one."""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

API_PORT = 8420


def main(requests: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Name -> method, path, body, token (None: our own); answers with status and the beginning of the text."""
    return {name: ask(*request) for name, request in requests.items()}


def ask(method: str, path: str, body: Any = None, token: str | None = None) -> list[Any]:
    connection = http.client.HTTPConnection("127.0.0.1", API_PORT, timeout=120)
    headers = {"Authorization": f"Bearer {token or os.environ['AUTH_TOKEN']}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return [answer.status, answer.read(4000).decode(errors="replace")]
    except OSError as error:
        return [0, type(error).__name__]
    finally:
        connection.close()
