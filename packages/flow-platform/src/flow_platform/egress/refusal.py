"""Why a connection was not made, or was cut."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

Verdict = Literal["allowed", "refused", "limit", "failed"]
"""`refused`: by a rule. `limit`: a limit was reached. `failed`: allowed, but the other side could not be reached."""


class Refusal(Exception):
    """Ends a connection. The message is for the component's developer.

    Attributes:
        status: With which the proxy answers.
    """

    def __init__(self, message: str, verdict: Verdict = "refused", status: HTTPStatus = HTTPStatus.FORBIDDEN) -> None:
        super().__init__(message)
        self.message = message
        self.verdict: Verdict = verdict
        self.status = status


def malformed(message: str) -> Refusal:
    return Refusal(message, status=HTTPStatus.BAD_REQUEST)


def limit_reached(message: str) -> Refusal:
    return Refusal(message, "limit", HTTPStatus.TOO_MANY_REQUESTS)


def unreachable(message: str) -> Refusal:
    return Refusal(message, "failed", HTTPStatus.BAD_GATEWAY)
