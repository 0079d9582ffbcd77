"""What the tests of large payloads publish."""

from flow_sdk import code_block


@code_block
def echo(value: str) -> str:
    return value


@code_block(slug="count-items")
def count_items(items: list) -> int:
    return len(items)


@code_block
def fill(size: int) -> str:
    return "x" * size
