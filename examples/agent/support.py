"""An agent of a shop's support: it looks up orders, says when they come, and remembers the conversation.

It runs on the `test/` provider, which needs no key: its model does what `script` says. With a real model, say
`model="openai/gpt-5-mini"` and leave `settings` out.
"""

from __future__ import annotations

from flow_sdk import agent, code_block

ORDERS = {"A-17": {"item": "kettle", "from": "Bern"}, "B-2": {"item": "lamp", "from": "Oslo"}}
DAYS = {"Bern": 1, "Oslo": 4}


@code_block
def find_order(number: str) -> dict:
    """Finds an order by its number, such as A-17."""
    if number not in ORDERS:
        raise KeyError(f"there is no order {number!r}")
    return {"number": number, **ORDERS[number]}


@code_block
def days_to_deliver(city: str) -> int:
    """How many days a parcel takes from a city."""
    return DAYS[city]


support = agent(
    "support",
    model="test/script",
    prompt="You help customers of {shop}. Look orders up before you say something about them.",
    tools=[find_order, days_to_deliver],
    conversations=True,
    description="Answers questions about orders.",
    settings={
        "metadata": {
            "script": {
                "turns": [
                    {"tool_calls": [{"name": "find_order", "arguments": {"number": "A-17"}}]},
                    {"tool_calls": [{"name": "days_to_deliver", "arguments": {"city": "Bern"}}]},
                    {"text": "Your kettle comes from Bern. It takes {{last_tool}} day.", "chunk_ms": 30},
                    {"tool_calls": [{"name": "find_order", "arguments": {"number": "B-2"}}]},
                    {"text": "As you asked before: A-17 is under way. B-2 is a lamp, from Oslo.", "chunk_ms": 30},
                ]
            }
        }
    },
)
