"""Runs a published agent inside its container, with pydantic-ai. Begin at `runner`.

The model is called through the platform's gateway with a key per call, tools are child executions: an agent whose
container is lost or given back runs again from its start and gets what it got before.
"""
