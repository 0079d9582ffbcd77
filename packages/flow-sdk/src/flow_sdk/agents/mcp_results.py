"""What a model reads of the result of an MCP tool. The execution has all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast


def readable(output: Any, execution_id: str | None) -> Any:
    """Its text; what is structured where there is no text; and for pictures and sounds, where they are.

    Args:
        output: Of the server's component: `content` and `structuredContent`, as in the protocol.
        execution_id: The call's.
    """
    if not isinstance(output, dict):
        return output
    result = cast("dict[str, Any]", output)
    content: list[Any] = result.get("content") or []
    blocks = [cast("dict[str, Any]", block) for block in content if isinstance(block, dict)]
    told = [_told(block, f"output.content[{place}] of execution {execution_id}") for place, block in enumerate(blocks)]
    structured = result.get("structuredContent")
    if structured is None or any(block.get("type") == "text" for block in blocks):
        return "\n".join(told)
    return {"structured": structured, "content": told} if told else structured


def _told(block: Mapping[str, Any], where: str) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "image" | "audio" as kind:
            return f"[{kind} {block.get('mimeType')}, {_size(block.get('data'))} bytes: data is {where}]"
        case "resource_link":
            return f"[resource {block.get('uri')} {block.get('title') or block.get('name') or ''}]"
        case "resource":
            found: Any = block.get("resource")
            resource = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
            if isinstance(resource.get("text"), str):
                return f"[resource {resource.get('uri')}]\n{resource['text']}"
            size = _size(resource.get("blob"))
            return f"[resource {resource.get('uri')} {resource.get('mimeType')}, {size} bytes: data is {where}]"
        case other:
            return f"[{other}: {where}]"


def _size(data: Any) -> int:
    """Of what the base64 stands for."""
    return len(data.rstrip("=")) * 3 // 4 if isinstance(data, str) else 0
