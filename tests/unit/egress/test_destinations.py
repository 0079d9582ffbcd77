from __future__ import annotations

import pytest

from flow_platform.domain.destination import normal_host, parse_destination

SHOWN = {
    "api.example.com": "api.example.com",
    "API.Example.COM.": "api.example.com",
    "example.com:8443": "example.com:8443",
    "*.example.com": "*.example.com",
    "*.Example.com:443": "*.example.com:443",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "straße.example": "xn--strae-oqa.example",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "db:5432": "db:5432",
    "my_service.internal": "my_service.internal",
    "93.184.215.14": "93.184.215.14",
    "93.184.215.14:5432": "93.184.215.14:5432",
    "[2600:0:0::1]:5432": "[2600::1]:5432",
    "[2600::1]": "[2600::1]",
}

REFUSED = [
    "", "*", "*.", "*.com", "*.93.184.215.14", "*.[2600::1]", "a.*.example.com", "**.example.com", "http://example.com",
    "example.com/", "example.com:", "example.com:0", "example.com:65536", "example.com:http", "example.com:1:2", "a b",
    "example..com", ".example.com", "example.com..", "-x.example.com", "x-.example.com", "é" * 64 + ".example",
    "a" * 64 + ".example", ".".join(["a" * 60] * 5), "user@example.com", "example.com\n", "example.com\x00",
    "x%00.example",
    "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "a.0x1f", "0x",
    "2600::1", "[2600::1", "[2600::1]5432", "[example.com]", "[::ffff:1.2.3.4]", "[fe80::1%eth0]", "[]", "[1.2.3.4]",
    "*:443", "example.com:+80", "example.com: 80", "example.com:8\uff10",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), SHOWN.items())
def test_destinations_have_one_form(text: str, shown: str) -> None:
    assert str(parse_destination(text)) == shown
    assert parse_destination(shown) == parse_destination(text)


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_destination(text)


@pytest.mark.parametrize(
    ("declared", "host", "port", "expected"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "example.com", 80, True),
        ("example.com", "example.com", 8443, False),
        ("example.com", "www.example.com", 443, False),
        ("example.com", "badexample.com", 443, False),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("*.example.com", "www.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "badexample.com", 443, False),
        ("*.example.com", "example.com.evil.test", 443, False),
        ("93.184.215.14", "93.184.215.14", 443, True),
        ("[2600::1]:5432", "2600::1", 5432, True),
    ],
)
def test_what_a_destination_allows(declared: str, host: str, port: int, expected: bool) -> None:
    assert parse_destination(declared).allows(normal_host(host), port) is expected
