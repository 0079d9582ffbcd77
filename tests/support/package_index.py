"""A package index of our own on loopback: wheels and source archives made by hand, served as PEP 503 pages."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flow_platform.build.index import Index


class PackageIndex:
    """Serves files until closed; use as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.files_at = ""  # Of another server, whose files its pages link to.
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                body, kind = index.page(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    with contextlib.suppress(ConnectionError):  # Who only wanted the beginning has it.
                        self.wfile.write(body or b"")

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def index(self) -> Index:
        """As the operator would have configured it."""
        url = f"http://127.0.0.1:{self.port}/simple"
        return Index({"UV_DEFAULT_INDEX": url}, frozenset({("127.0.0.1", self.port)}), (url,))

    def __enter__(self) -> PackageIndex:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add_wheel(self, name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> None:
        self.files.setdefault(name, {})[f"{name}-{version}-py3-none-any.whl"] = wheel(name, version, modules, requires)

    def add_source(self, name: str, version: str, backend: str) -> None:
        """A source archive whose build backend is the given code."""
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        project = (
            f'[project]\nname = "{name}"\nversion = "{version}"\n'
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        content = {"PKG-INFO": metadata, "pyproject.toml": project, "backend.py": backend}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path, text in content.items():
                entry = tarfile.TarInfo(f"{name}-{version}/{path}")
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
        self.files.setdefault(name, {})[f"{name}-{version}.tar.gz"] = packed.getvalue()

    def page(self, path: str) -> tuple[bytes | None, str]:
        parts = path.strip("/").split("/")
        files = self.files.get(parts[1].replace("-", "_"), {}) if len(parts) > 1 else {}
        if len(parts) == 2 and files:
            folder = f"{self.files_at}/files/{parts[1]}"
            links = "".join(
                f'<a href="{folder}/{name}#sha256={hashlib.sha256(body).hexdigest()}">{name}</a>'
                for name, body in files.items()
            )
            return f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
        if len(parts) == 3 and parts[2] in files:
            return files[parts[2]], "application/octet-stream"
        return None, "text/plain"


def wheel(name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> bytes:
    """The bytes of a wheel, the same for the same arguments."""
    folder = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    content = {
        **modules,
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text.encode())}\n" for path, text in content.items())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in {**content, f"{folder}/RECORD": f"{record}{folder}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return packed.getvalue()


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
