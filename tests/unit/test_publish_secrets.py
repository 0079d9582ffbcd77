from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flow_platform.domain.errors import InvalidInput
from flow_platform.engine.publish_request import PublishRequest, definition_of
from flow_sdk.wire.injected import InjectedSecret
from flow_sdk.wire.status import Kind

INJECT = {"host": "API.example.com", "header": "Authorization", "format": "Bearer {value}"}


def definition(*secrets: Any, network: tuple[str, ...] = ("api.example.com", "other.example.com:8080")) -> Any:
    body = {"slug": "pay", "code": "def main(): ...", "network": list(network), "secrets": list(secrets)}
    return definition_of(Kind.CODE_BLOCK, PublishRequest.model_validate(body))


def injected(name: str = "KEY", **changes: Any) -> dict[str, Any]:
    return {"name": name, "inject": {**INJECT, **changes}}


def test_a_secret_is_handed_over_or_added_to_requests() -> None:
    made = definition("PLAIN", injected())

    assert made.secrets == ("PLAIN",)
    assert made.injected == (
        InjectedSecret(name="KEY", host="api.example.com", header="Authorization", format="Bearer {value}"),
    )


def test_what_is_injected_decides_the_digest() -> None:
    assert definition(injected()).digest() != definition(injected(header="X-Key")).digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "*.example.com"}, "expected one host"),
        ({"host": "127.1"}, "expected a host such as"),
        ({"header": "Host"}, "expected another header"),
        ({"header": "Proxy-Authorization"}, "expected another header"),
        ({"header": "X Key"}, "expected the name of a header"),
        ({"format": "Bearer"}, "'{value}' once"),
        ({"format": "{value}{value}"}, "'{value}' once"),
        ({"format": "{value}\r\nX-Other: 1"}, "one line"),
        ({"tls": "no"}, "bool"),
        ({"value": "x"}, "not permitted"),
    ],
)
def test_what_is_no_place_for_a_secret_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        definition(injected(**changes))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        (("KEY", injected()), "'KEY' is handed to the component as well"),
        ((injected(host="elsewhere.example"),), "expected it in network, on port 443"),
        ((injected(host="other.example.com"),), "expected it in network, on port 443"),
        ((injected(tls=False), injected("B", header="X-Key")), "expected the same port and tls"),
        ((injected(), injected("B", header="authorization")), "is injected as 'Authorization'"),
    ],
)
def test_what_does_not_go_together_is_refused(secrets: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        definition(*secrets)
    assert words in refused.value.message
    assert refused.value.details[0]["field"].startswith("secrets.")
