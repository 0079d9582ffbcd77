"""An agent as its container is given it: everything that its version froze, references resolved.

It travels as `agent` in the assignment and in the START frame, in the place of code.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from pydantic import Field

from flow_sdk.wire.execution import Document

PACKAGES: Final = ("pydantic-ai-slim[openai]==2.68.0", "jsonschema>=4.24,<5")
"""What agents run with: pip requirements, locked and built as any component's."""

MODULES: Final = (
    "pydantic_ai",
    "pydantic_ai.models.openai",
    "pydantic_ai.models.wrapper",
    "pydantic_ai.providers.openai",
    "jsonschema",
    "openai.resources.chat.completions",
    "flow_sdk.agents.rehearsal",
)
"""What a template imports for agents, before any container is forked from it. Of `PACKAGES` and of ours only."""


class ToolTarget(enum.StrEnum):
    """What a tool is. The first four are kinds of components."""

    CODE_BLOCK = "code_block"
    TRANSFORM = "transform"
    AGENT = "agent"
    WORKFLOW = "workflow"
    SERVICE = "service"
    MCP = "mcp"


class Persistence(enum.StrEnum):
    """What is kept of a conversation: nothing, the session, or also the state across sessions."""

    NONE = "none"
    SESSION = "session"
    LONG_TERM = "long_term"


class ToolApproval(Document):
    """That a person has to allow each call.

    Attributes:
        approvers: Subjects or roles; empty: every admin and builder.
        timeout_seconds: After that the call is refused; None: the agent's own deadline.
    """

    approvers: list[str] = Field(default_factory=list[str])
    message: str = ""
    timeout_seconds: float | None = None


class AgentTool(Document):
    """A tool as the model sees it, and what is called then.

    Attributes:
        ref: Slug of the component; of a service `id/endpoint`; of an MCP server `server/tool`.
        parameters: JSON Schema of the arguments, always of an object.
        wrapped: The component's input is no object: it is the argument `input`.
        timeout_seconds: Of one call.
    """

    name: str
    description: str = ""
    target: ToolTarget
    ref: str
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    wrapped: bool = False
    approval: ToolApproval | None = None
    timeout_seconds: float = 300.0


class AgentLimits(Document):
    """What ends a run. Each is looked at before the next call: an answer that is there counts.

    Attributes:
        turns: Calls of the model.
        history_messages: Of an earlier conversation, handed to the model.
    """

    turns: int = 20
    tool_calls: int = 50
    tokens: int = 1_000_000
    cost_micro_credits: int | None = None
    output_retries: int = 2
    history_messages: int = 200


class StateRule(Document):
    """Attributes:
    key: Field of the input that says whose the long-term state is, e.g. `user_id`.
    initial: Where there is no state yet.
    """

    persistence: Persistence = Persistence.NONE
    key: str = "user_id"
    initial: dict[str, Any] = Field(default_factory=dict[str, Any])


class AgentDocument(Document):
    """Attributes:
    models: The model, and those to try when it fails.
    settings: Further fields of each request to the model, e.g. `temperature`.
    prompt: What the model is told first; `{name}` stands for a field of the input.
    output_schema: JSON Schema of the answer; None: text.
    """

    models: list[str]
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    prompt: str = ""
    tools: list[AgentTool] = Field(default_factory=list[AgentTool])
    output_schema: dict[str, Any] | None = None
    state: StateRule = StateRule()
    conversations: bool = False
    limits: AgentLimits = AgentLimits()

    @property
    def keeps_state(self) -> bool:
        return self.state.persistence is not Persistence.NONE
