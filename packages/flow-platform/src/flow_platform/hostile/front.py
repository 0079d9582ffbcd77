"""The platform from outside: names as weapons, browsers, slow and huge requests, secrets, addresses it shall call."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from flow_platform.hostile.answer import Answer, expect
from flow_platform.hostile.attempt import Attempt
from flow_platform.hostile.world import World

_NAMES: Final = (
    *(
        "../../etc/passwd",
        "..%2f..%2fetc",
        "a\x00b",
        "a/b",
        "'; drop table executions; --",
        "<script>alert(1)</script>",
    ),
    *("{{7*7}}", "${jndi:ldap://x}", "a\r\nX-Injected: 1", "\x1b[2J", "a" * 5_000, "", ".", "%s%n", "\u202eevil"),
)
_FILTERS: Final = ("' OR 1=1 --", "1; drop table executions", "%00", "../", "\ud7ff" * 100, '{"$ne":null}')
_SPEAKS: Final = """
import base64, os, sys, urllib.parse
from flow_sdk.harness.channel import emit_event
def main() -> dict:
    secret = os.environ["HOSTILE_SECRET"]
    print(secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex(), urllib.parse.quote(secret))
    print(base64.b64encode(b"user:" + secret.encode()).decode(), repr(secret.encode()))
    print(secret[:15]); print(secret[15:])
    for character in secret: sys.stderr.write(character); sys.stderr.flush()
    emit_event("said", {"plain": secret, secret: 1, "list": [secret]})
    return {"plain": secret, "in": {"a": [f"Bearer {secret}"]}, "hex": secret.encode().hex()}
"""
_FAILS: Final = "import os\ndef main() -> int:\n    raise ValueError(f\"401 for {os.environ['HOSTILE_SECRET']!r}\")\n"
_NAMES_NONE: Final = (
    "import os\ndef main() -> list:\n    return [n for n in os.environ if 'SECRET' in n or 'CANARY' in n]\n"
)
_SCREEN: Final = (
    "def main() -> str:\n    print('\\x1b]0;owned\\x07\\x1b[2J\\x9b2J\\u202e log')\n    return '\\x1b[2J\\x9b'\n"
)
_ORIGIN: Final = "http://evil.test"
_SLOW_CONNECTIONS: Final = 100
_PIECE_BYTES: Final = 1 << 20
_ENDLESS_BYTES: Final = 64 << 20
_ANSWER_SECONDS: Final = 15.0
_BASES: Final = (
    *("http://169.254.169.254/latest", "http://127.0.0.1:1/v1", "https://127.0.0.1/v1", "http://[::1]/v1"),
    *("http://2130706433/v1", "https://10.0.0.1/v1", "file:///etc/passwd", "https://metadata.google.internal/v1"),
)
_REQUIREMENTS: Final = (
    *("x @ http://169.254.169.254/x-1.0-py3-none-any.whl", "x @ file:///etc/passwd", "--index-url http://127.0.0.1/"),
    *("-e /etc", "x\n--extra-index-url http://127.0.0.1/", "git+http://127.0.0.1/x", "-r /etc/passwd"),
)


async def _names(world: World) -> list[Answer]:
    """Free text that means something to a database, a file system, a header, a template."""
    first = world.first
    found: list[Answer] = []
    for name in _NAMES:
        answer = await first.http.post(f"{first.path}/code-blocks", json={"slug": name, "code": "def main(): ..."})
        found.append(
            expect(35, f"slug {name[:40]!a}", str(answer.status_code), refused=answer.status_code in (400, 422))
        )
    for text in _FILTERS:
        for name in ("status", "component_id", "cursor"):
            answer = await first.http.get(f"{first.path}/executions", params={name: text})
            refused = answer.status_code < 500 and not answer.json().get("items")
            found.append(expect(35, f"{name}={text[:30]!a}", str(answer.status_code), refused=refused))
    for path in ("/api/v1/../../etc/passwd", "/api/v1/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cetc", "//etc/passwd"):
        status, heard = await _raw(world, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        found.append(
            expect(35, f"path {path}", str(status), refused=status in (400, 401, 404) and "root:" not in heard)
        )
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x0bX-Injected: 1\r\nConnection: close\r\n\r\n"
    _, heard = await _raw(world, head)
    found.append(expect(35, "a header in a request id", "not given back", refused="x-injected" not in heard.lower()))
    return found


async def _screens(world: World) -> list[Answer]:
    """What an execution writes, as the command line shows it: nothing that a terminal obeys."""
    first = world.first
    await first.publish("screen", _SCREEN)
    execution = await first.submit("screen")
    await first.ended(execution)
    where = ["--url", world.base_url, "--token", first.token, "--org", first.org_id, "--workspace", first.workspace_id]

    def shown(command: str) -> str:
        program = [sys.executable, "-P", "-c", "from flow_platform.cli import main; main()", command, execution, *where]
        done = subprocess.run(program, capture_output=True, timeout=300, check=False)
        return (done.stdout + done.stderr).decode()

    texts = await asyncio.gather(*(asyncio.to_thread(shown, command) for command in ("events", "show")))
    found: list[Answer] = []
    for command, text in zip(("events", "show"), texts, strict=True):
        obeyed = [sign for sign in ("\x1b", "\x9b", "\x07", "\u202e") if sign in text]
        found.append(
            expect(15, f"codes shown by `flow {command}`", ascii(obeyed), refused="[2J" in text and not obeyed)
        )
    return found


async def _browser(world: World) -> list[Answer]:
    """A page of another origin, and content that a browser would run."""
    found: list[Answer] = []
    async with world.client() as client:
        for path in ("/", "/healthz", "/api/v1/openapi.json", f"{world.first.path}/executions", "/nothing"):
            answer = await client.get(path, headers={"Origin": _ORIGIN, "Cookie": f"token={world.first.token}"})
            headers = answer.headers
            policy = headers.get("content-security-policy", "")
            safe = headers.get("x-content-type-options") == "nosniff" and "frame-ancestors 'none'" in policy
            safe = safe and "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
            found.append(expect(46, f"frame or sniff {path}", policy[:50], refused=safe))
            shared = headers.get("access-control-allow-origin")
            found.append(expect(46, f"read {path} from another origin", f"allowed: {shared}", refused=shared is None))
        asked = {"Origin": _ORIGIN, "Access-Control-Request-Method": "POST"}
        answer = await client.options(f"{world.first.path}/code-blocks", headers=asked)
        allowed = answer.headers.get("access-control-allow-origin")
        found.append(expect(46, "be allowed to post from another origin", str(allowed), refused=allowed is None))
        cookie = {"Cookie": f"token={world.first.token}", "Content-Type": "text/plain"}
        answer = await client.post(f"{world.first.path}/code-blocks", content=b"{}", headers=cookie)
        found.append(expect(46, "act by a cookie", str(answer.status_code), refused=answer.status_code == 401))
    return found


async def _load(world: World) -> list[Answer]:
    """Requests that never end, that unpack, that nest; the next one is answered all the same."""
    address = urlsplit(world.base_url)
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(_SLOW_CONNECTIONS):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"POST /api/v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nX-Slow: ")
        held.append((reader, writer))
    began = time.monotonic()
    async with world.client() as client:
        alive = (await client.get("/healthz")).status_code
    soon = time.monotonic() - began < _ANSWER_SECONDS or not any(reader.at_eof() for reader, _ in held)
    for _, writer in held:
        writer.close()
    found = [expect(47, f"{_SLOW_CONNECTIONS} slow requests", f"{alive}", refused=alive == 200 and soon)]
    first = world.first
    nested = b'{"slug":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    numbers = b'{"slug":' + b"9" * 100_000 + b"}"
    repeated = b"{" + b",".join(b'"slug":"x"' for _ in range(10_000)) + b"}"
    bodies: dict[str, tuple[bytes, dict[str, str]]] = {
        "100,000 levels of nesting": (nested, {}),
        "a number of 100,000 digits": (numbers, {}),
        "10,000 equal keys": (repeated, {}),
        "a body that unpacks": (gzip.compress(bytes(10 << 20)), {"Content-Encoding": "gzip"}),
        "no JSON": (b"\xff\xfe", {}),
        "not a number": (b'{"slug": NaN}', {}),
        "a body of 40 MiB": (bytes(40 << 20), {}),
    }
    for name, (body, headers) in bodies.items():
        status = await _post(world, f"{first.path}/code-blocks", body, headers)
        found.append(expect(47, name, str(status or "cut"), refused=status < 500 and not 200 <= status < 300))
    heads = {
        "a header of 1 MiB": {"X-Large": "x" * (1 << 20)},
        "5,000 headers": {f"X-{number}": "x" * 20 for number in range(5_000)},
    }
    for name, headers in heads.items():
        status = await _post(world, f"{first.path}/code-blocks", b"{}", headers)
        found.append(expect(47, name, str(status or "cut"), refused=status in (0, 400, 431)))
    found.append(await _endless_header(world))
    async with world.client() as client:
        alive = (await client.get("/healthz")).status_code
    return [*found, expect(47, "the request after all of them", str(alive), refused=alive == 200)]


async def _endless_header(world: World) -> Answer:
    """A header that goes on and on: who gathers it runs out of memory."""
    address = urlsplit(world.base_url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: ")
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            while sent < _ENDLESS_BYTES:
                writer.write(b"x" * _PIECE_BYTES)
                await writer.drain()
                sent += _PIECE_BYTES
    writer.close()
    return expect(47, "a header without end", f"cut after {sent >> 20} MiB", refused=sent < _ENDLESS_BYTES)


async def _post(world: World, path: str, body: bytes, headers: dict[str, str]) -> int:
    import httpx

    given = {"Content-Type": "application/json", **headers}
    try:
        return (await world.first.http.post(path, content=body, headers=given)).status_code
    except httpx.HTTPError:
        return 0


async def _secrets(world: World) -> list[Answer]:
    """A secret, said in every way that programs say one; and by who was not given it."""
    first = world.first
    await first.publish("speaks", _SPEAKS, secrets=["HOSTILE_SECRET"])
    await first.publish("fails", _FAILS, secrets=["HOSTILE_SECRET"])
    await first.publish("names-none", _NAMES_NONE)
    kept: dict[str, str] = {}
    for slug in ("speaks", "fails"):
        execution = await first.submit(slug)
        document = await first.ended(execution)
        kept[f"{slug}: document"] = json.dumps(document)
        kept[f"{slug}: events and logs"] = await first.events(execution)
    found: list[Answer] = []
    for where, text in kept.items():
        said = [name for name, form in _forms(world.secret).items() if form in text]
        refused = not said and ("[redacted]" in text or "speaks" not in where)
        found.append(expect(37, where, f"in it: {said or 'none'}", refused=refused))
    others = await first.run("names-none")
    found.append(expect(37, "a secret that is not declared", str(others or "not there"), refused=not others))
    for path in ("/secrets", "/secrets/HOSTILE_SECRET"):
        answer = await first.http.get(first.path + path)
        found.append(expect(37, f"read GET {path}", str(answer.status_code), refused=world.secret not in answer.text))
    logs = await asyncio.to_thread(_texts_below, world.folder)
    written = [name for name, text in logs.items() if world.secret.encode() in text]
    return [*found, expect(37, "files of the data folder", f"in it: {written or 'none'}", refused=not written)]


def _forms(secret: str) -> dict[str, str]:
    raw = secret.encode()
    return {
        "plain": secret,
        "base64": base64.b64encode(raw).decode().rstrip("="),
        "in a Basic header": base64.b64encode(b"user:" + raw).decode()[10:-4],
        "hexadecimal": raw.hex(),
        "percent-encoded": quote(secret),
        "first half": secret[:15],
        "second half": secret[15:],
    }


def _texts_below(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for where, _, names in os.walk(folder):  # Goes on when a folder of the running platform vanishes on the way.
        for path in (Path(where, name) for name in names):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[str(path.relative_to(folder))] = path.read_bytes()
    return found


async def _calls(world: World) -> list[Answer]:
    """Addresses that the platform itself would call: of models, of packages."""
    first = world.first
    found: list[Answer] = []
    for base in _BASES:
        settings = {"providers": {"evil": {"base_url": base, "key": ""}}}
        answer = await first.http.put(f"{first.path}/model-settings", json=settings)
        if answer.is_success:
            body = {"model": "evil/m", "messages": [{"role": "user", "content": "x"}]}
            answer = await first.http.post("/api/v1/gateway/chat/completions", json=body)
        code = str(answer.json().get("code"))
        refused = answer.status_code in (400, 422) or code in ("upstream_failed", "upstream_unreachable")
        found.append(expect(36, f"models at {base}", f"{answer.status_code} {code}", refused=refused))
    await first.http.put(f"{first.path}/model-settings", json={})
    for text in _REQUIREMENTS:
        body = {"slug": "wants", "code": "def main(): ...", "dependencies": [text]}
        answer = await first.http.post(f"{first.path}/code-blocks", json=body)
        code = str(answer.status_code)
        found.append(expect(36, f"packages from {text[:50]!r}", code, refused=answer.status_code in (400, 422)))
    return found


async def _defaults(world: World) -> list[Answer]:
    """Nothing is open or known beforehand: files that hold keys are the owner's alone, and no default opens the API."""
    found: list[Answer] = []
    for name in (".", "admin-token", "master.key", "flow.db", "ready.json"):
        path = world.folder / name
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            is_covered = name in ("flow.db",) and not stat.S_IMODE(world.folder.stat().st_mode) & 0o077
            found.append(expect(48, f"mode of {name}", oct(mode), refused=not mode & 0o077 or is_covered))
    for token in ("admin", "secret", "flow", "changeme", "null", "undefined"):
        async with world.client(token) as client:
            status = (await client.get(f"{world.first.path}/rings")).status_code
        found.append(expect(48, f"the token {token!r}", str(status), refused=status == 401))
    async with world.client() as client:
        status = (await client.get(f"{world.first.path}/rings")).status_code
    return [*found, expect(48, "no token", str(status), refused=status == 401)]


async def _raw(world: World, request: bytes) -> tuple[int, str]:
    address = urlsplit(world.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request)
    heard = b""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            heard = await reader.read(65536)
    writer.close()
    status = heard.split(b" ")[1] if heard.startswith(b"HTTP/") else b"0"
    return int(status), heard.decode(errors="replace")


ATTEMPTS: Final = (
    Attempt("names as weapons", (35,), _names),
    Attempt("codes on the screen", (15,), _screens),
    Attempt("another origin", (46,), _browser),
    Attempt("slow, huge and countless requests", (47,), _load),
    Attempt("say a secret", (37,), _secrets),
    Attempt("have the platform call", (36,), _calls),
    Attempt("defaults", (48,), _defaults),
)
