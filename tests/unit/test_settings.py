import base64
import dataclasses
from pathlib import Path

import pytest

from flow_platform.domain.errors import SettingsError
from flow_platform.settings import Settings, as_environment, documentation, load_settings


def test_defaults_are_complete(tmp_path):
    settings = load_settings(environ={}, folder=tmp_path)
    assert settings.data_dir == Path.cwd() / ".flow"
    assert settings.database_url == f"sqlite:///{Path.cwd() / '.flow' / 'flow.db'}"
    assert settings.host == "127.0.0.1"
    assert settings.port == 8420
    assert settings.slots >= 2
    assert settings.runner_id


def test_flags_win_over_environment_over_file_over_defaults(tmp_path):
    (tmp_path / "flow.toml").write_text("port = 1\nslots = 1\npool_size = 1\n")
    environ = {"FLOW_PORT": "2", "FLOW_SLOTS": "2"}
    settings = load_settings({"port": 3, "slots": None}, environ, tmp_path)
    assert (settings.port, settings.slots, settings.pool_size) == (3, 2, 1)


def test_the_named_file_is_read_and_must_exist(tmp_path):
    named = tmp_path / "other.toml"
    named.write_text('log_level = "debug"\n')
    assert load_settings(environ={"FLOW_CONFIG": str(named)}, folder=tmp_path).log_level == "debug"
    with pytest.raises(SettingsError, match=r"absent\.toml: expected a TOML file"):
        load_settings(environ={"FLOW_CONFIG": str(tmp_path / "absent.toml")}, folder=tmp_path)


def test_all_problems_are_reported_together(tmp_path):
    (tmp_path / "flow.toml").write_text('chanel = "nats"\nallow_public = 7\n')
    environ = {"FLOW_PORT": "90000", "FLOW_DATADIR": "/x", "FLOW_LOG_LEVEL": "loud", "FLOW_SLOTS": "many"}
    with pytest.raises(SettingsError) as caught:
        load_settings({"host": "0.0.0.0"}, environ, tmp_path)
    lines = caught.value.message.splitlines()
    assert len(lines) == 7
    text = caught.value.message
    assert "FLOW_DATADIR='/x': no such setting, did you mean FLOW_DATA_DIR?" in text
    assert "chanel = 'nats': no such setting, did you mean channel?" in text
    assert "allow_public=7: expected true or false" in text
    assert "FLOW_PORT='90000': expected a whole number from 0 to 65535" in text
    assert "FLOW_LOG_LEVEL='loud': expected one of 'debug', 'info', 'warning', 'error'" in text
    assert "FLOW_SLOTS='many': expected a whole number from 0 to 4096" in text
    assert "host='0.0.0.0': expected a loopback address" in text


def test_the_api_is_reached_over_plain_http(tmp_path):
    assert load_settings({"api_url": "http://flow:81"}, {}, tmp_path).api_url == "http://flow:81"
    with pytest.raises(SettingsError, match=r"--api-url='https://flow': expected a URL that begins with http://: run"):
        load_settings({"api_url": "https://flow"}, {}, tmp_path)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.org", "::", ""])
def test_a_public_host_needs_the_flag(host, tmp_path):
    with pytest.raises(SettingsError, match="--allow-public"):
        load_settings({"host": host}, {}, tmp_path)
    assert load_settings({"host": host, "allow_public": True}, {}, tmp_path).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_flag(host, tmp_path):
    assert load_settings({"host": host}, {}, tmp_path).host == host


def test_passwords_are_not_shown(tmp_path):
    environ = {"FLOW_DATABASE_URL": "mysql://ada:secret@db/flow", "FLOW_TOKN": "eyJhbGciOi"}
    with pytest.raises(SettingsError) as caught:
        load_settings(environ=environ, folder=tmp_path)
    assert "secret" not in caught.value.message
    assert "FLOW_DATABASE_URL='mysql://...@db/flow': expected a URL that begins with sqlite://" in caught.value.message
    assert "FLOW_TOKN='...': no such setting, did you mean FLOW_TOKEN?" in caught.value.message


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        (
            "database_url",
            "postgresql://flow:Postgres@db/flow",
            "database_url='postgresql://...@db/flow': expected a password of",
        ),
        ("database_url", "postgresql://ada:ada@db/flow", "expected a password that is not the user's name"),
        ("database_url", "postgresql://ada:p%61ssword@db/flow", "expected a password of your own"),
        ("nats_url", "nats://engine:changeme@nats:4222", "expected a password of your own"),
        ("nats_url", "nats://s3cr3t@nats:4222", "expected a password of your own"),
        ("master_key", base64.b64encode(bytes(32)).decode(), "master_key='...': expected 32 random bytes"),
        ("previous_master_key", base64.b64encode(b"0123456789" * 3 + b"01").decode(), "expected 32 random bytes"),
    ],
)
def test_a_password_or_key_that_everybody_knows_stops_the_start(setting, value, expected, tmp_path):
    with pytest.raises(SettingsError) as refused:
        load_settings({setting: value}, {}, tmp_path)
    assert expected in refused.value.message
    assert value not in refused.value.message


@pytest.mark.parametrize(
    "url", ["postgresql://ada@db/flow", "postgresql:///flow?host=/run", "postgresql://ada:x7@db/f"]
)
def test_a_password_of_ones_own_or_none_is_taken(url, tmp_path):
    assert load_settings({"database_url": url}, {}, tmp_path).database_url == url


def test_an_unreadable_number_of_a_flag_is_named_as_the_flag(tmp_path):
    with pytest.raises(SettingsError, match=r"--lease-seconds='nan': expected seconds from 1 to 300"):
        load_settings({"lease_seconds": "nan"}, {}, tmp_path)


def test_heartbeats_must_fit_into_the_lease(tmp_path):
    with pytest.raises(SettingsError, match="heartbeat_seconds=6: expected at most half of lease_seconds=10"):
        load_settings({"heartbeat_seconds": 6}, {}, tmp_path)


def test_a_child_reads_the_same_settings_from_its_environment(tmp_path):
    flags = {"port": 0, "host": "::", "allow_public": True, "ready_file": "r.json", "nats_url": "nats://a:b@h:1"}
    settings = load_settings(flags, {}, tmp_path)
    assert load_settings(environ=as_environment(settings), folder=tmp_path) == settings


def test_variables_of_clients_and_tests_are_known(tmp_path):
    environ = {"FLOW_URL": "x", "FLOW_TOKEN": "x", "FLOW_ORG": "x", "FLOW_WORKSPACE": "x", "FLOW_TEST_POSTGRES": "x"}
    load_settings(environ=environ, folder=tmp_path)


def test_every_setting_is_documented():
    assert [row[0] for row in documentation()] == [
        "FLOW_" + field.name.upper() for field in dataclasses.fields(Settings)
    ]
    assert all(row[2].endswith(".") for row in documentation())
