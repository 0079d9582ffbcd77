"""What an agent's container is given in the place of code."""

from __future__ import annotations

from typing import Any

from flow_platform.domain.component import Version


def agent_of(version: Version) -> dict[str, Any] | None:
    """An `AgentDocument`, with the schema that was made of its output's type; None for everything else."""
    definition = version.definition
    if definition.agent is None or not definition.entry_point:
        return definition.agent
    return {**definition.agent, "output_schema": version.output_schema}
