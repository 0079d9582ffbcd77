"""Code in a real container calls a model through the platform, and finds no key of a provider."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.flow_program import running

COMPONENTS = Path(__file__).parent / "model_components.py"


def test_a_container_calls_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-containers")
    with running(tmp_path) as platform:
        published = platform.flow("publish", COMPONENTS)
        assert published.returncode == 0, published.stderr
        output = platform.output_of("run", "code-blocks/ask", "--input", '{"text": "hello world", "key": "k"}')
        ready = platform.wait_ready()
        calls = httpx.get(
            f"{ready['base_url']}/api/v1/orgs/{ready['org_id']}/workspaces/{ready['workspace_id']}/model-calls",
            headers={"Authorization": f"Bearer {ready['token']}"},
            trust_env=False,
        ).json()["items"]

    # Two words, the end, and [DONE].
    assert output == {"said": "hello world", "same": True, "replayed": "true", "chunks": 4, "keys": []}
    assert [call["is_streamed"] for call in calls] == [True, False]
    assert calls[0]["execution_id"] == calls[1]["execution_id"] is not None
    assert calls[0]["transaction_id"] is not None
