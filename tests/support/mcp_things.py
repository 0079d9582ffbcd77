"""A real MCP server, of the official SDK: `python mcp_things.py` over stdio, `app()` over HTTP."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

from mcp.server.mcpserver import Image, MCPServer
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, Field

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cfc0f01f00050001ff"
    "56c72f0d0000000049454e44ae426082"
)


class Place(BaseModel):
    city: str
    degrees: int


def make() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("things", version="1.2")

    @server.tool()
    def weather(city: Annotated[str, Field(min_length=2)]) -> Place:
        """The weather of a city."""
        return Place(city=city, degrees=21)

    @server.tool()
    def shout(text: str) -> str:
        return text.upper()

    @server.tool(name="files.read", structured_output=False)
    def picture() -> list[Any]:
        """A picture, and words."""
        return ["one pixel", Image(data=PIXEL, format="png")]

    @server.tool()
    def fails(reason: str) -> str:
        raise ValueError(reason)

    @server.tool()
    def variables() -> dict[str, str]:
        """What the server was given."""
        sys.stderr.write("looked at the variables\n")
        return dict(os.environ)

    @server.tool()
    def whole() -> CallToolResult:
        """Only structured content."""
        return CallToolResult(content=[], structured_content={"n": 3})

    @server.tool()
    def says(text: str) -> list[TextContent]:
        return [TextContent(type="text", text=text), TextContent(type="text", text="and more")]

    return server


if __name__ == "__main__":
    make().run(transport="stdio")
