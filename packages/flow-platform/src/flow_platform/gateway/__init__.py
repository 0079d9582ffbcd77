"""The model gateway: one OpenAI-compatible way to every model, with keys, retries, limits and metering on our side."""
