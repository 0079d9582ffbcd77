"""Components that call models, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import urlsplit

from flow_sdk import code_block


@code_block
def ask(text: str, key: str) -> dict:
    """Asks twice with one key, then streams."""

    def post(body: dict, headers: dict) -> tuple[bytes, str | None]:
        connection = http.client.HTTPConnection(urlsplit(os.environ["PLATFORM_API_URL"]).netloc, timeout=20)
        headers = {"Authorization": "Bearer " + os.environ["AUTH_TOKEN"], "Content-Type": "application/json", **headers}
        connection.request("POST", "/api/v1/gateway/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return answer.read(), answer.headers["Idempotent-Replayed"]

    body = {"model": "test/echo", "messages": [{"role": "user", "content": text}]}
    first, _ = post(body, {"Idempotency-Key": key})
    again, replayed = post(body, {"Idempotency-Key": key})
    stream, _ = post({**body, "stream": True}, {})
    keys = [name for name in os.environ if name.endswith("_API_KEY")]
    said = json.loads(first)["choices"][0]["message"]["content"]
    return {"said": said, "same": first == again, "replayed": replayed, "chunks": stream.count(b"data: "), "keys": keys}
