"""The steps of the order graph: ordinary functions, each of which runs in a container of its own."""

from flow_sdk import code_block, transform


@code_block
def check(order: dict) -> dict:
    total = sum(item["price"] * item["count"] for item in order["items"])
    return {"total": total, "needs_review": total > 1000}


@code_block
def reserve(order: dict) -> dict:
    return {"reserved": sum(item["count"] for item in order["items"])}


@code_block
def review(customer: str, total: float) -> dict:
    if customer == "Mallory":
        raise ValueError(f"{customer} is not trusted with {total}")
    return {"approved_by": "the credit desk"}


@transform(examples=[{"input": {"approved_by": "Ada"}, "output": {"approved_by": "Ada"}}])
def ready(data: dict) -> dict:
    return data


@code_block
def ship(customer: str, pieces: int, approved_by: str | None) -> str:
    return f"{pieces} pieces for {customer}, approved by {approved_by or 'nobody'}"


@code_block
def release(reason: str) -> str:
    return f"given back: {reason}"
