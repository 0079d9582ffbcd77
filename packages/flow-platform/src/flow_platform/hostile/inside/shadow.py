"""Imported beside an environment whose packages shadow the standard library and the SDK: see `supply`."""

from __future__ import annotations

import importlib
import sys

from flow_platform.hostile.inside.trying import Answers

SHADOWED = ("json", "ssl", "socket", "asyncio", "random", "flow_sdk", "flow_sdk.harness.main", "flow_platform")


def main() -> Answers:
    answers: dict[str, str] = {}
    for name in SHADOWED:
        module = importlib.import_module(name)
        path = str(getattr(module, "__file__", ""))
        answers[f"shadow {name}"] = f"OK {path}" if path.startswith("/env") else "not loaded"
    for name in ("sitecustomize", "usercustomize", "evil_by_pth"):
        answers[f"load {name} by itself"] = "OK" if name in sys.modules else "not loaded"
    return {"38": answers}
