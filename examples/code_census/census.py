"""A census of Python modules: how large, how complex, which function is the longest.

`census` is a workflow: plain code that fans out one `measure` per module, each in a container of its own, and hands
what they return to `rank`.
"""

import asyncio
from typing import Any

from flow_sdk import code_block, transform, workflow

AT_ONCE = 16


@code_block(dependencies=["radon==6.0.1"], memory_mb=256, timeout_seconds=120, tags=["example"])
def measure(name: str, source: str) -> dict[str, Any]:
    """Measures one module: lines, functions, cyclomatic complexity, longest function."""
    from radon.complexity import cc_visit
    from radon.raw import analyze

    raw = analyze(source)
    functions = [part for block in cc_visit(source) for part in (block, *getattr(block, "methods", ()))]
    functions = [part for part in functions if part.letter in "FM"]
    unique = {(part.fullname, part.lineno): part for part in functions}.values()
    longest = max(unique, key=lambda part: part.endline - part.lineno, default=None)
    most_complex = max(unique, key=lambda part: part.complexity, default=None)
    return {
        "module": name,
        "lines": raw.loc,
        "source_lines": raw.sloc,
        "comments": raw.comments,
        "functions": len(unique),
        "complexity": sum(part.complexity for part in unique),
        "most_complex": most_complex.fullname if most_complex else "",
        "longest": longest.endline - longest.lineno + 1 if longest else 0,
        "function": longest.fullname if longest else "",
    }


@transform(
    tags=["example"],
    examples=[
        {
            "input": {
                "measures": [
                    {"module": "a", "lines": 10, "functions": 1, "complexity": 2, "longest": 4, "function": "f"},
                    {"module": "b", "lines": 30, "functions": 3, "complexity": 9, "longest": 8, "function": "g"},
                ]
            },
            "output": {
                "ranking": [
                    {
                        "rank": 1,
                        "module": "b",
                        "lines": 30,
                        "functions": 3,
                        "complexity": 9,
                        "longest": 8,
                        "function": "g",
                    },
                    {
                        "rank": 2,
                        "module": "a",
                        "lines": 10,
                        "functions": 1,
                        "complexity": 2,
                        "longest": 4,
                        "function": "f",
                    },
                ],
                "total": {"modules": 2, "lines": 40, "functions": 4, "complexity": 11},
            },
        }
    ],
)
def rank(data: dict[str, Any]) -> dict[str, Any]:
    """Ranks measured modules by complexity, then by name, and adds them up."""
    ordered = sorted(data["measures"], key=lambda measured: (-measured["complexity"], measured["module"]))
    kept = ("module", "lines", "functions", "complexity", "longest", "function")
    return {
        "ranking": [
            {"rank": place, **{field: measured[field] for field in kept}} for place, measured in enumerate(ordered, 1)
        ],
        "total": {
            "modules": len(ordered),
            **{field: sum(measured[field] for measured in ordered) for field in ("lines", "functions", "complexity")},
        },
    }


@workflow(timeout_seconds=600, tags=["example"])
async def census(modules: dict[str, str]) -> dict[str, Any]:
    """Measures all modules in parallel and ranks them."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, source: str) -> dict[str, Any]:
        async with turn:
            return await measure.call(name=name, source=source)

    measures = await asyncio.gather(*(one(name, source) for name, source in modules.items()))
    return await rank.call({"measures": measures})
