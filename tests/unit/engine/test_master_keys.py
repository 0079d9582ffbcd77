"""Where master keys come from, and what is refused."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from flow_platform.cli.master_key import ensure_master_key, rotate
from flow_platform.domain.errors import SettingsError
from flow_platform.domain.secrets import MasterKeyUnavailable, SecretUnreadable
from flow_platform.engine.master_keys import CommandMasterKey, MasterKeys, load_master_keys, new_key, parse_key
from flow_platform.settings import load_settings

CONTEXT = "flow/data-key/1/org/workspace"
KMS = """\
import base64, sys
verb, context = sys.argv[1:]
data = base64.b64decode(sys.stdin.readline())
if verb == "wrap":
    print(base64.b64encode(context.encode() + b"|" + data[::-1]).decode())
else:
    bound, _, reversed_ = data.partition(b"|")
    if bound != context.encode():
        sys.exit("access denied")
    print(base64.b64encode(reversed_[::-1]).decode())
"""


def load(key: str = "", previous_key: str = "", file: Path | None = None, command: str = "") -> MasterKeys:
    return load_master_keys(key=key, previous_key=previous_key, file=file, command=command, lost_id="")


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_a_key_unwraps_what_it_wrapped_and_nothing_else() -> None:
    one, other = parse_key(new_key(), "one"), parse_key(new_key(), "other")
    wrapped = await one.wrap(b"data key", CONTEXT)

    assert await one.unwrap(wrapped, CONTEXT) == b"data key"
    assert one.id != other.id
    for key, context, bytes_ in ((other, CONTEXT, wrapped), (one, CONTEXT + "2", wrapped), (one, CONTEXT, wrapped[1:])):
        with pytest.raises(SecretUnreadable):
            await key.unwrap(bytes_, context)


@pytest.mark.parametrize(
    "text",
    ["", "short", "A" * 44, base64.b64encode(bytes(32)).decode(), base64.b64encode(b"x" * 31).decode(), "é" * 44],
)
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_key(text, "FLOW_MASTER_KEY")
    assert not text or text not in refused.value.message


def test_the_variable_wins_over_the_file_and_the_file_still_decrypts(tmp_path: Path) -> None:
    newest, second, third, previous = (new_key() for _ in range(4))
    file = private(tmp_path / "master.key", f"# of 2026\n{second}\n\n{third}\n")

    keys = load(newest, previous, file)

    assert keys.require_current().id == parse_key(newest, "").id
    assert [key.id for key in keys.earlier] == [parse_key(key, "").id for key in (second, third, previous)]
    assert keys.find(parse_key(third, "").id) is keys.earlier[1]
    assert keys.find("unknown") is None
    assert newest not in repr(keys)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    keys = load(file=tmp_path / "none")

    assert keys.find("") is None
    with pytest.raises(MasterKeyUnavailable):
        keys.require_current()
    with pytest.raises(SettingsError, match="given alone"):
        load(previous_key=new_key())


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = private(tmp_path / "master.key", new_key())
    file.chmod(0o640)

    with pytest.raises(SettingsError, match="0640") as refused:
        load(file=file)
    assert "chmod 600" in refused.value.hint
    with pytest.raises(SettingsError, match="holds no key"):
        load(file=private(tmp_path / "empty.key", "# nothing\n"))
    with pytest.raises(SettingsError, match="line 2"):
        load(file=private(tmp_path / "damaged.key", f"{new_key()}\nnot a key\n"))


async def test_a_command_wraps_and_unwraps(tmp_path: Path) -> None:
    script = tmp_path / "kms.py"
    script.write_text(KMS)
    keys = load(command=f"{sys.executable} {script}", file=private(tmp_path / "old.key", new_key()))
    key = keys.require_current()

    wrapped = await key.wrap(b"\0 data key", CONTEXT)

    assert (key.id, len(keys.earlier)) == ("command", 1)
    assert b"data key" not in wrapped
    assert await key.unwrap(wrapped, CONTEXT) == b"\0 data key"
    with pytest.raises(MasterKeyUnavailable, match="ended with 1"):
        await key.unwrap(wrapped, CONTEXT + "2")


@pytest.mark.parametrize("command", ["/no/such/program", "/bin/false", "/bin/echo not-base64"])
async def test_a_command_that_fails_says_how(command: str) -> None:
    with pytest.raises(MasterKeyUnavailable, match="the command of the master key"):
        await CommandMasterKey(command).wrap(b"data key", CONTEXT)


def test_the_file_is_made_once_and_led_by_a_new_key_after_a_rotation(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path / "data"}, {}, tmp_path)
    path = settings.master_key_file
    assert path is not None
    ensure_master_key(settings)
    first = path.read_text()
    ensure_master_key(settings)

    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert rotate(path) == 2
    keys = load(file=path)
    assert [key.id for key in keys.earlier] == [parse_key(first, "").id]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [other.name for other in path.parent.iterdir()] == ["master.key"]


def test_no_file_is_made_where_the_key_comes_from_elsewhere(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path}, {"FLOW_MASTER_KEY": new_key()}, tmp_path)

    ensure_master_key(settings)

    assert list(tmp_path.iterdir()) == []
    assert settings.master_key not in repr(settings)
