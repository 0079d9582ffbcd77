"""What the fault tests run."""

import time

from flow_sdk import code_block, workflow


@code_block
def square(number: int, seconds: float = 0.0, padding: str = "") -> int:
    time.sleep(seconds)
    return number * number


@workflow
async def squares(numbers: list[int]) -> list:
    return [await square.call(number=number, seconds=0.2) for number in numbers]
