"""Calling tools of MCP servers, inside of a container.

Our own speaker of the protocol's two shapes: with a handshake (2024-11-05 to 2025-11-25) and without (2026-07-28), over
standard input and output or streamable HTTP. Not the official client: that one takes 1.7 s to import for each call,
and shares its packages with the server, whose own requirements may ask for another version of it.
"""
