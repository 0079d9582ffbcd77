"""What the embedded nats-server is started with: its configuration text and the credentials in it.

Two users share one account. The engine may do everything. A runner may claim, report and read payloads, but it cannot
read another runner's work, the engine's replies, or delete a stream: a stolen runner credential is a nuisance, not a
breach. Containers have no user here at all; they meet the gateway.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flow_sdk.wire import subjects

ENGINE_USER: Final = "flow-engine"
RUNNER_USER: Final = "flow-runner"

# Larger bodies travel by object store. One megabyte is the server's own default.
MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_MEMORY_STORE_BYTES: Final = 1 << 30
# The most that may lie on disk; the streams' own limits add up to less. Not reserved, only allowed.
MAX_FILE_STORE_BYTES: Final = 64 << 30
MAX_LOG_BYTES: Final = 10 << 20
# A build answers a request minutes later; the permission to answer must live as long.
REPLY_PERMISSION: Final = '{ max: 1, expires: "30m" }'

_BUCKET_STREAM: Final = f"OBJ_{subjects.PAYLOAD_BUCKET}"
_RUNNER_PUBLISH: Final = (
    subjects.RUNNER_REGISTER,
    subjects.RUNNER_CLAIM,
    subjects.RUNNER_HEARTBEAT,
    subjects.RUNNER_SECRETS,
    f"{subjects.EXEC_INPUT}.*",
    f"{subjects.EXEC_OUTPUT}.*",
    f"{subjects.EXEC_EVENTS}.*",
    f"{subjects.EXEC_STATUS}.*",
    f"$O.{subjects.PAYLOAD_BUCKET}.>",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.STREAM.CREATE.*",  # Idempotent: it makes a deleted stream again, but changes none.
    f"$JS.API.DIRECT.GET.{_BUCKET_STREAM}",
    f"$JS.API.DIRECT.GET.{_BUCKET_STREAM}.>",
    f"$JS.API.STREAM.MSG.GET.{_BUCKET_STREAM}",
    f"$JS.API.STREAM.PURGE.{_BUCKET_STREAM}",
)
_RUNNER_SUBSCRIBE: Final = (
    f"_INBOX.{RUNNER_USER}.>",
    subjects.runner_cancel("*"),
    subjects.runner_alive("*", "*"),
    subjects.ENGINE_STARTED,
    subjects.BUILD_REQUEST,
    f"{subjects.BUILD_REQUEST} {subjects.RUNNER_QUEUE}",
    f"{subjects.BUILD_REQUEST}.*",
    f"{subjects.BUILD_REQUEST}.* {subjects.RUNNER_QUEUE}",
)


@dataclass(frozen=True)
class Credentials:
    """Kept beside the store, readable by the owner only, so that a restart changes nobody's address or password.

    Attributes:
        port: The last one used; 0 before the first start.
    """

    engine_password: str
    runner_password: str
    port: int = 0

    @classmethod
    def load_or_create(cls, path: Path) -> Credentials:
        """Reads the file, or makes new credentials when there is none or it is damaged."""
        try:
            known = json.loads(path.read_text())
            return cls(str(known["engine_password"]), str(known["runner_password"]), int(known["port"]))
        except (OSError, ValueError, KeyError, TypeError):
            fresh = cls(secrets.token_hex(24), secrets.token_hex(24))
            fresh.save(path)
            return fresh

    def save(self, path: Path) -> None:
        write_private(
            path,
            json.dumps(
                {"engine_password": self.engine_password, "runner_password": self.runner_password, "port": self.port}
            ),
        )


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, in one step: never half a file, never readable in between."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def configuration(directory: Path, host: str, port: int, credentials: Credentials) -> str:
    """The nats-server configuration.

    `sync_interval: always`: without it a power cut loses what was acknowledged, and mostly the stream itself.
    `default_max_consumers: -1`: 2.15 allows 1000 per stream, and contract clients leave theirs behind for a while.
    """

    def quoted(path: Path) -> str:
        return json.dumps(str(path))

    def listed(items: tuple[str, ...]) -> str:
        return json.dumps(list(items))

    listen = json.dumps(f"{host}:{port or -1}")
    return f"""\
server_name: flow
listen: {listen}
ports_file_dir: {quoted(directory)}
pid_file: {quoted(directory / "nats.pid")}
log_file: {quoted(directory / "nats.log")}
logfile_size_limit: {MAX_LOG_BYTES}
logfile_max_num: 3
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {quoted(directory / "jetstream")}
  sync_interval: always
  max_memory_store: {MAX_MEMORY_STORE_BYTES}
  max_file_store: {MAX_FILE_STORE_BYTES}
  limits {{ default_max_consumers: -1, max_ack_pending: 100000 }}
}}
authorization {{
  timeout: 5
  users: [
    {{ user: {ENGINE_USER}, password: "{credentials.engine_password}" }}
    {{ user: {RUNNER_USER}, password: "{credentials.runner_password}", permissions: {{
      publish: {{ allow: {listed(_RUNNER_PUBLISH)} }}
      subscribe: {{ allow: {listed(_RUNNER_SUBSCRIBE)} }}
      allow_responses: {REPLY_PERMISSION}
    }} }}
  ]
}}
"""
