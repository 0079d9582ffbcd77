"""What is planted around a sandbox: whoever reads or reaches it has left his container."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "HOSTILE_CANARY"


@dataclass(frozen=True)
class Canaries:
    """Attributes:
    environment: Stands in the environment of this process, with "!" behind it.
    execution: For the input of another execution of the same component.
    tenant: For the input of an execution of another tenant.
    path: A file of the host, readable for everybody.
    port: Listens on the host's loopback; `abstract_name` too.
    """

    environment: str
    execution: str
    tenant: str
    path: Path
    port: int
    abstract_name: str

    def needles(self) -> dict[str, str]:
        """What to look for, changed so that the text itself is no find."""
        return {
            "secret in the server's environment": changed(self.environment),
            "secret of an execution of the same component": changed(self.execution),
            "secret of another tenant": changed(self.tenant),
        }


def changed(text: str) -> str:
    """The text so that it is no find itself."""
    return bytes(byte ^ 1 for byte in text.encode()).hex()


@contextlib.contextmanager
def planted() -> Generator[Canaries]:
    """Plants them, and takes them away at the end."""
    environment, execution, tenant = (secrets.token_hex(16) for _ in range(3))
    name = f"flow-hostile-{secrets.token_hex(4)}"
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = environment + "!"
    with (
        tempfile.TemporaryDirectory(prefix="flow-hostile-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        path = Path(folder, "canary")
        path.write_text("secret of the host\n")
        Path(folder).chmod(0o755)
        abstract.bind("\0" + name)
        abstract.listen()
        try:
            yield Canaries(environment, execution, tenant, path, listener.getsockname()[1], name)
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before
