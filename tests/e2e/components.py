"""What the end-to-end tests publish."""

import time

from flow_sdk import code_block, transform, workflow


@code_block
def hello(name: str = "you") -> dict:
    print("saying hello to", name)  # noqa: T201
    return {"hello": name}


@code_block
def fails(reason: str) -> None:
    raise ValueError(f"it fails: {reason}")


@code_block(slug="sleeper")
def sleep_long(seconds: float) -> None:
    time.sleep(seconds)


@transform(examples=[{"input": {"n": 1}, "output": {"n": 2}}])
def increment(data: dict) -> dict:
    return {"n": data["n"] + 1}


@workflow
async def greetings(names: list[str]) -> list:
    return [await hello.call(name=name) for name in names]
