"""The START frame: all that a container is told. Its environment is the client contract's, section 4.

The ring's variables come first and ours last, so a ring cannot redirect a component to another API or execution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from flow_platform.runner import network
from flow_platform.runner.config import Channel
from flow_platform.sandbox.base import API_PORT, INSIDE, NATS_PORT, Whereabouts
from flow_sdk.wire.harness import Mode
from flow_sdk.wire.runner import Assignment
from flow_sdk.wire.status import Kind

SUSPENDING: Final = frozenset({Kind.WORKFLOW, Kind.AGENT})
"""Kinds whose code the platform can run again from its calls."""

MAX_API_TIMEOUT_SECONDS: Final = 300.0  # The client's own default; a shorter execution needs no longer one.


def encode(
    assignment: Assignment,
    channel: Channel,
    input_body: bytes | None,
    secrets: Mapping[str, str],
    suspend_after_seconds: float | None = None,
    where: Whereabouts = INSIDE,
) -> bytes:
    """Makes the frame's body.

    Args:
        input_body: The input as JSON text, when it came as an object: spliced in, as it may have 32 MiB.
        secrets: Variables that win over those of the ring.
        suspend_after_seconds: How long a workflow only waits before it gives its container back; None: never.
        where: The container finds what is outside of it.
    """
    content: dict[str, object] = {
        "mode": Mode.RUN.value,
        "channel": channel,
        "kind": assignment.kind.value,
        "code": assignment.code,
        "entry_point": assignment.entry_point,
        "context": assignment.config,
        "env": environment(assignment, secrets, where),
        "output_bytes": assignment.limits.output_bytes,
    }
    if assignment.agent is not None:
        content["agent"] = assignment.agent
    if suspend_after_seconds is not None and assignment.kind in SUSPENDING:
        content["suspend_after_seconds"] = suspend_after_seconds
    if channel == "nats":
        return _text(content)
    if input_body is None:
        return _text({**content, "input": assignment.input or {}})
    return _text(content)[:-1] + b',"input":' + input_body + b"}"


def environment(assignment: Assignment, secrets: Mapping[str, str], where: Whereabouts = INSIDE) -> dict[str, str]:
    """Variables of the component's process."""
    values = {
        **(network.defaults(where) if assignment.network else {}),
        **assignment.env,
        **secrets,
        **(network.proxies(where) if assignment.network else {}),
        "PLATFORM_API_URL": f"http://127.0.0.1:{where.ports[API_PORT]}",
        "NATS_URL": f"nats://x:{assignment.token}@127.0.0.1:{where.ports[NATS_PORT]}",
        "AUTH_TOKEN": assignment.token,
        "ORG_ID": assignment.org_id,
        "WORKSPACE_ID": assignment.workspace_id,
        "EXECUTION_ID": assignment.execution_id,
        "LIFECYCLE_EVENT": assignment.lifecycle_event,
        "ATTEMPT": str(assignment.attempt),
        "PLATFORM_API_TIMEOUT": f"{min(MAX_API_TIMEOUT_SECONDS, assignment.timeout_seconds):g}",
    }
    optional = {
        "PARENT_BILLING_TXN_ID": assignment.billing_transaction_id,
        "DEPLOYMENT_ID": assignment.deployment_id,
        "RING_ID": assignment.ring_id,
    }
    for name, value in optional.items():
        values.pop(name, None)
        if value is not None:
            values[name] = value
    return values


def _text(content: dict[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
