"""Declaring agents: records that say which model is asked what, and what it may call.

class Ticket(BaseModel):
team: str
urgent: bool

triage = agent(
"triage", model="openai/gpt-5-mini", prompt="Sort what customers of {company} write.",
tools=[find_customer, tool(refund, approval=True)], output=Ticket,
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypedDict, cast

from flow_sdk.declare import Declaration, Declared, Retry, check_isolation, check_retry, check_slug, check_timeout
from flow_sdk.wire.isolation import Isolation
from flow_sdk.wire.status import Kind


class AgentLimits(TypedDict, total=False):
    """What ends a run: calls of the model and of tools, tokens, cost; and how often an answer is asked for again.

    `history_messages` bounds what of an earlier conversation the model is shown. What is left out has the platform's
    default.
    """

    turns: int
    tool_calls: int
    tokens: int
    cost_micro_credits: int
    output_retries: int
    history_messages: int
    memory_bytes: int


class AgentState(TypedDict, total=False):
    """What is kept between runs.

    `persistence` is `none`, `session` or `long_term`, `key` the field of the input that says whose long-term state it
    is (default: `user_id`), `initial` the state where there is none yet.
    """

    persistence: str
    key: str
    initial: Mapping[str, Any]


class Approval(TypedDict, total=False):
    """Who allows a call: `approvers` are subjects or roles."""

    approvers: Sequence[str]
    message: str
    timeout_seconds: float


LIMITS: Final = frozenset(AgentLimits.__annotations__)
STATE: Final = frozenset(AgentState.__annotations__)
APPROVAL: Final = frozenset(Approval.__annotations__)


@dataclass(frozen=True)
class ToolDeclaration:
    """A tool with wishes of its own. `ref`: what it is, as the platform finds it."""

    ref: str
    name: str | None = None
    description: str | None = None
    approval: bool | Approval = False
    timeout_seconds: float | None = None

    def publish_body(self) -> dict[str, Any] | str:
        wishes: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "approval": self.approval,
            "timeout_seconds": self.timeout_seconds,
        }
        given = {key: value for key, value in wishes.items() if value}
        return {"ref": self.ref, **given} if given else self.ref


@dataclass(frozen=True)
class AgentDeclaration:
    """A declared agent. It is only a record: an agent has no code of its own.

    Attributes:
        tools: What it may call.
        output: The type that its answer is validated against; None for text.
        conversations: Sessions remember what was said.
    """

    slug: str
    model: str
    prompt: str
    name: str
    description: str = ""
    tools: tuple[ToolDeclaration, ...] = ()
    output: Any = None
    tags: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    fallbacks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state: AgentState | None = None
    conversations: bool = False
    limits: AgentLimits | None = None
    retry: Retry | None = None
    dependencies: tuple[str, ...] = ()
    isolation: Isolation | None = None
    kind: Kind = field(default=Kind.AGENT, init=False)

    def publish_body(self, code: str | None, output_type: str | None) -> dict[str, Any]:
        """The JSON body that publishes this agent; defaults are left to the platform.

        Args:
            code: The file that has the type of its output, and how that is called there; None: it answers with text.
        """
        body: dict[str, Any] = {"slug": self.slug, "name": self.name, "model": self.model, "prompt": self.prompt}
        optional: dict[str, Any] = {
            "description": self.description,
            "tags": list(self.tags),
            "fallbacks": list(self.fallbacks),
            "settings": dict(self.settings),
            "tools": [tool.publish_body() for tool in self.tools],
            "timeout_seconds": self.timeout_seconds,
            "retry": self.retry,
            "limits": self.limits,
            "state": self.state,
            "enable_conversations": self.conversations,
            "isolation": self.isolation.value if self.isolation else None,
        }
        if output_type is not None:
            optional |= {"code": code, "output_type": output_type, "dependencies": list(self.dependencies)}
        return body | {key: value for key, value in optional.items() if value}

    async def call(self, prompt: str, *, session_id: str | None = None, **fields: Any) -> Any:
        """Runs the deployed agent in a container of its own and returns its output.

        Args:
            fields: Of the input, for the variables of the prompt.

        Raises:
            PlatformExecutionError: It did not complete, or there is no platform; `execution` has the status document.
            PlatformClientError: The platform could not be asked.
        """
        from flow_sdk import calling

        named = {} if session_id is None else {"session_id": session_id}
        return await calling.call_agent(self.slug, {"prompt": prompt, **named, **fields}, self.timeout_seconds)


class Referred(Protocol):
    """What says itself how the platform finds it, such as a declared service."""

    @property
    def ref(self) -> str: ...


Callee = Declared[..., Any] | AgentDeclaration | ToolDeclaration | Referred | str


def tool(
    called: Declared[..., Any] | AgentDeclaration | Referred | str,
    *,
    name: str | None = None,
    description: str | None = None,
    approval: bool | Approval = False,
    timeout_seconds: float | None = None,
) -> ToolDeclaration:
    """Says more of a tool than what it is.

    Args:
        called: A declared function, an agent, a service, or a reference: `kind/slug`, `service:ID/ENDPOINT`,
            `mcp:SERVER/TOOL`.
        name: As the model sees it; default: its slug.
        description: As the model sees it; default: its own.
        approval: A person allows each call.
        timeout_seconds: Of one call.

    Raises:
        ValueError: An option is unknown or has no meaning.
    """
    check_timeout(timeout_seconds, None)
    if not isinstance(approval, bool):
        _check_known("approval", approval, APPROVAL)
    return ToolDeclaration(ref_of(called), name, description, approval, timeout_seconds)


def agent(
    slug: str,
    *,
    model: str,
    prompt: str,
    tools: Sequence[Callee] = (),
    output: Any = None,
    name: str | None = None,
    description: str = "",
    tags: Sequence[str] = (),
    timeout_seconds: float | None = None,
    fallbacks: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    state: AgentState | None = None,
    conversations: bool = False,
    limits: AgentLimits | None = None,
    retry: Retry | None = None,
    dependencies: Sequence[str] = (),
    isolation: str | None = None,
) -> AgentDeclaration:
    """Declares an agent.

    Args:
        slug: Names it in its workspace.
        model: As `provider/model`.
        prompt: What it is told first; `{name}` stands for a field of the input.
        tools: Declared functions, other agents, services, `tool(...)`, or references such as `code_block/slug`.
        output: A type for structured answers: whatever pydantic knows.
        name: For people; default: the slug.
        description: For people and for agents that may call it.
        tags: For finding it.
        timeout_seconds: Counts from acceptance.
        fallbacks: Models to try when the first one fails.
        settings: Further fields of each request to the model, e.g. `temperature`.
        state: What is kept between runs.
        conversations: Sessions remember what was said.
        limits: What ends a run.
        retry: When a failed run is repeated.
        dependencies: What the file needs to be loaded, for the type of the output. The agent runs without them.
        isolation: What stands at least between it and the machine; default: `namespaces`.

    Raises:
        ValueError: An option is unknown or has no meaning.
    """
    check_timeout(timeout_seconds, None)
    _check_known("limits", limits or {}, LIMITS)
    _check_known("state", state or {}, STATE)
    return AgentDeclaration(
        slug=check_slug(slug),
        model=model,
        prompt=prompt,
        name=name or slug,
        description=description,
        tools=tuple(one if isinstance(one, ToolDeclaration) else ToolDeclaration(ref_of(one)) for one in tools),
        output=output,
        tags=tuple(tags),
        timeout_seconds=timeout_seconds,
        fallbacks=tuple(fallbacks),
        settings=dict(settings or {}),
        state=state,
        conversations=conversations,
        limits=limits,
        retry=check_retry(retry),
        dependencies=tuple(dependencies),
        isolation=check_isolation(isolation),
    )


def ref_of(called: Declared[..., Any] | AgentDeclaration | Referred | str) -> str:
    """How the platform finds what is called."""
    if isinstance(called, str):
        return called
    if isinstance(called, AgentDeclaration):
        return f"{called.kind.value}/{called.slug}"
    declaration: Declaration | None = getattr(called, "declaration", None)
    if declaration is not None:
        return f"{declaration.kind.value}/{declaration.slug}"
    return cast("Referred", called).ref


def _check_known(what: str, given: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{what} has no option {unknown[0]!r}: expected one of {', '.join(sorted(known))}")
