"""Every setting of the platform: one table, read once, all problems reported together.

Flags win over `FLOW_*` variables, those over `flow.toml`, those over the defaults. The variable of the field
`data_dir` is `FLOW_DATA_DIR`, its key in `flow.toml` is `data_dir`. A name that is not in the table is an error: a
misspelt setting that is silently ignored is worse than one that stops the start.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flow_platform.default_credentials import known_key, known_password
from flow_platform.domain import client_address, operator_rules
from flow_platform.domain.errors import SettingsError
from flow_sdk.wire.isolation import DEFAULT, Isolation

PREFIX: Final = "FLOW_"
CONFIG_FILE: Final = "flow.toml"
CLIENT_VARIABLES: Final = ("FLOW_URL", "FLOW_TOKEN", "FLOW_ORG", "FLOW_WORKSPACE", "FLOW_RING", "FLOW_CONFIG")
"""Known `FLOW_*` names that are no settings of the platform: where the command line finds one, and the file to read."""

TEST_PREFIX: Final = "FLOW_TEST_"
_RUNNER_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_Parser = Callable[[Any], Any]


def _whole(low: int, high: int) -> _Parser:
    expected = f"a whole number from {low} to {high}"

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?\d+", str(value).strip()):
            raise ValueError(expected)
        if not low <= int(value) <= high:
            raise ValueError(expected)
        return int(value)

    return parse


def _seconds(low: float, high: float) -> _Parser:
    expected = f"seconds from {low:g} to {high:g}"

    def parse(value: Any) -> float:
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if not low <= number <= high:
            raise ValueError(expected)
        return number

    return parse


def _switch(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError("true or false")
    return words[str(value).lower()]


def _one_of(*words: str) -> _Parser:
    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError("one of " + ", ".join(repr(word) for word in words))
        return value

    return parse


def _isolations(value: Any) -> str:
    words = [word.strip() for word in str(value).split(",") if word.strip()]
    if not words or not set(words) <= set(Isolation):
        raise ValueError("a list of " + ", ".join(repr(rung.value) for rung in Isolation) + ", with commas")
    return ",".join(words)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("text")
    return value


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    if not isinstance(value, str) or not value:
        raise ValueError("a path")
    return Path(value).expanduser()


def _optional_path(value: Any) -> Path | None:
    return None if value in ("", None) else _path(value)


def _url(*schemes: str) -> _Parser:
    expected = "a URL that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(value: Any) -> str:
        if value == "":
            return ""
        if not isinstance(value, str) or value.partition("://")[0] not in schemes or not value.partition("://")[2]:
            raise ValueError(expected)
        return value

    return parse


def _api_url(value: Any) -> str:
    if isinstance(value, str) and value.startswith("https://"):
        raise ValueError("a URL that begins with http://: runners speak plain HTTP; end TLS in front of the servers")
    return _url("http")(value)


def _runner_id(value: Any) -> str:
    if value != "" and not (isinstance(value, str) and _RUNNER_ID.fullmatch(value)):
        raise ValueError("1 to 64 letters, digits, '-' and '_'")
    return value


def _words_for(parse: Callable[[str], object]) -> _Parser:
    """Text that another parser takes later; held against it now."""

    def check(value: Any) -> str:
        text = _text(value)
        parse(text)
        return text

    return check


def _setting(default: Any, parse: _Parser, doc: str, *, secret: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "doc": doc}, repr=not secret)


_DEFAULT_CACHE: Final = Path("/var/cache/flow" if os.getuid() == 0 else f"/var/tmp/flow-{os.getuid()}")  # noqa: S108 - the sandbox checks owner and mode.
_DATABASES: Final = ("sqlite", "postgresql", "postgres")


@dataclass(frozen=True)
class Settings:
    """What a process of the platform is told at its start; `load_settings` makes it. Each field is documented in place:
    `documentation` gives the same as rows for people.
    """

    data_dir: Path = _setting(  # noqa: RUF009 - makes a field, as the others do.
        Path(".flow"), _path, "Folder of the database, the streams, logs and the admin token."
    )
    host: str = _setting("127.0.0.1", _text, "Address to listen on.")
    port: int = _setting(8420, _whole(0, 65535), "Port of the API; 0 takes any free one.")
    allow_public: bool = _setting(False, _switch, "Permits a `host` beyond loopback.")
    database_url: str = _setting("", _url(*_DATABASES), "Database; empty: SQLite in the data folder.")
    nats_url: str = _setting("", _url("nats", "tls"), "NATS with its credential; empty: an embedded server.")
    runners: int = _setting(1, _whole(0, 64), "Runner processes that `flow up` starts.")
    slots: int = _setting(0, _whole(0, 4096), "Executions computing at once per runner; 0: twice the cores.")
    max_containers: int = _setting(512, _whole(1, 65536), "Containers per runner, those of waiting parents included.")
    channel: str = _setting("socket", _one_of("socket", "nats"), "How containers exchange input and output.")
    cache_dir: Path = _setting(  # noqa: RUF009
        _DEFAULT_CACHE, _path, "Runtimes, environments. A neutral path: containers see it in their mount table."
    )
    pool_size: int = _setting(4, _whole(0, 256), "Sealed containers that wait per template.")
    isolations: str = _setting(
        DEFAULT.value, _isolations, "Isolations that runners offer: namespaces, docker, gvisor, process; with commas."
    )
    unsafe_processes: bool = _setting(
        False, _switch, "Permits isolation `process`: no isolation at all, for development."
    )
    api_url: str = _setting("", _api_url, "Where a runner reaches the API, http://; empty: this host and port.")
    runner_id: str = _setting("", _runner_id, "Name of a runner, stable over restarts; empty: from the host's name.")
    log_level: str = _setting("info", _one_of("debug", "info", "warning", "error"), "Least important lines to log.")
    log_format: str = _setting("text", _one_of("text", "json"), "Shape of log lines.")
    models_file: Path | None = _setting(  # noqa: RUF009
        None, _optional_path, "Providers, aliases, limits and prices of models, in TOML or JSON."
    )
    rates_file: Path | None = _setting(  # noqa: RUF009
        None, _optional_path, "What CPU and memory cost, and discounts, in TOML or JSON; empty: the card that ships."
    )
    issuers_file: Path | None = _setting(  # noqa: RUF009
        None, _optional_path, "Outside issuers of tokens (OpenID Connect) that are trusted, in TOML."
    )
    ready_file: Path | None = _setting(  # noqa: RUF009
        None, _optional_path, "Written when the platform takes requests."
    )
    lease_seconds: float = _setting(10.0, _seconds(1, 300), "How long a silent runner keeps its executions.")
    heartbeat_seconds: float = _setting(3.0, _seconds(0.1, 100), "Pause between two heartbeats of a runner.")
    suspend_after: float = _setting(
        5.0, _seconds(0.05, 3600), "How long a workflow only waits before its container is given back."
    )
    drain_seconds: float = _setting(30.0, _seconds(0, 3600), "How long a stop waits for running executions.")
    max_body_bytes: int = _setting(33 << 20, _whole(1024, 1 << 30), "Largest body of a request.")
    master_key: str = _setting("", _text, "Key of secrets, 32 bytes in base64; wins over the file.", secret=True)
    previous_master_key: str = _setting("", _text, "Only decrypts what it encrypted before.", secret=True)
    master_key_file: Path | None = _setting(  # noqa: RUF009
        None, _optional_path, "Key of secrets, one per line, newest first; empty: `master.key` in the data folder."
    )
    master_key_command: str = _setting("", _text, "Program that encrypts data keys: a key management service's.")
    lost_master_key: str = _setting("", _text, "Id of a key that is gone for good: deletes what it encrypted.")
    egress_allow: str = _setting(
        "", _words_for(operator_rules.parse_allow), "Closed networks that components may declare, as `10.1.0.0/16`."
    )
    egress_deny: str = _setting(
        "", _words_for(operator_rules.parse_deny), "Networks and hosts that no component reaches."
    )
    egress_bytes: int = _setting(
        1 << 30, _whole(0, 1 << 50), "Bytes that an execution may carry over the network, in each direction."
    )
    docker_host: str = _setting("", _url("unix"), "Socket of a container engine, unix://PATH; empty: Docker's own.")
    docker_image: str = _setting(
        "", _text, "Image with the SDK for an engine's containers; empty: the platform's own, made at the first start."
    )
    runsc: str = _setting("", _text, "Path of gVisor's program; empty: the runsc on PATH.")
    gvisor_pool_size: int = _setting(
        2, _whole(0, 1000), "gVisor's sealed containers that wait per workspace and environment, 60 MB each."
    )
    build_hosts: str = _setting(
        "", _words_for(operator_rules.parse_hosts), "Hosts that builds reach besides the package index."
    )

    audit_days: int = _setting(0, _whole(0, 36_500), "Days that entries of the audit log are kept; 0: for ever.")
    trusted_proxies: str = _setting(
        "", _words_for(client_address.parse_proxies), "Proxies in front whose `X-Forwarded-For` is believed."
    )

    @property
    def offered(self) -> tuple[Isolation, ...]:
        """The isolations that a runner offers, the weakest first."""
        return tuple(rung for rung in Isolation if rung in self.isolations.split(","))

    @property
    def loopback_host(self) -> str:
        """Where processes of this machine reach `host`: a wildcard address is no destination."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound.


def load_settings(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """Reads the settings once, from all sources, and fills in what follows from others.

    Args:
        flags: By field name; None means not given.
        environ: The process's environment when None.
        folder: Where `flow.toml` is looked for; the working directory when None.

    Raises:
        SettingsError: One line per problem, each with the value and what was expected.
    """
    environ = os.environ if environ is None else environ
    problems = unknown_variables(environ)
    given: dict[str, tuple[str, Any]] = {}
    given.update(_from_file(environ, folder or Path.cwd(), problems))
    for field in dataclasses.fields(Settings):
        variable = variable_of(field.name)
        if variable in environ:
            given[field.name] = (variable, environ[variable])
        if flags and flags.get(field.name) is not None:
            given[field.name] = ("--" + field.name.replace("_", "-"), flags[field.name])
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        if field.name in given:
            source, value = given[field.name]
            try:
                values[field.name] = field.metadata["parse"](value)
            except ValueError as error:
                problems.append(f"{source}={_shown(field.name, value)}: expected {error}")
    settings = Settings(**values)
    problems += _contradictions(settings)
    if problems:
        raise SettingsError("\n".join(problems))
    return _completed(settings)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """One line for each `FLOW_*` variable that nobody reads."""
    known = [variable_of(field.name) for field in dataclasses.fields(Settings)] + list(CLIENT_VARIABLES)
    return [
        f"{name}={_shown(name + _suggestion(name, known), environ[name])}: no such setting" + _suggestion(name, known)
        for name in sorted(environ)
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in known
    ]


def variable_of(field_name: str) -> str:
    return PREFIX + field_name.upper()


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables from which `load_settings` makes the same ones: how a child process gets them."""
    result: dict[str, str] = {}
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        result[variable_of(field.name)] = "" if value is None else str(value)
    return result


def documentation() -> list[tuple[str, str, str]]:
    """For each setting: its variable, its default as text, and what it means."""
    return [
        (variable_of(field.name), "" if field.default is None else str(field.default), field.metadata["doc"])
        for field in dataclasses.fields(Settings)
    ]


def _from_file(environ: Mapping[str, str], folder: Path, problems: list[str]) -> dict[str, tuple[str, Any]]:
    named = environ.get("FLOW_CONFIG")
    path = Path(named) if named else folder / CONFIG_FILE
    if not named and not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        problems.append(f"{path}: expected a TOML file: {error}")
        return {}
    known = [field.name for field in dataclasses.fields(Settings)]
    problems += [
        f"{path}: {name} = {_shown(name, value)}: no such setting" + _suggestion(name, known)
        for name, value in table.items()
        if name not in known
    ]
    return {name: (f"{path}: {name}", value) for name, value in table.items() if name in known}


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else "; flow up --help lists every setting"


def _shown(name: str, value: Any) -> str:
    """The value as text for people, without the password of a URL or a token."""
    if any(word in name.lower() for word in ("token", "secret", "password", "key")):
        return "'...'"
    return re.sub(r"://[^@/\s]*@", "://...@", repr(value))


def _contradictions(settings: Settings) -> list[str]:
    problems: list[str] = []
    if not settings.allow_public and not _is_loopback(settings.host):
        problems.append(
            f"host={settings.host!r}: expected a loopback address such as '127.0.0.1'; "
            "to listen beyond this machine say --allow-public"
        )
    for name in ("database_url", "nats_url"):
        expected = known_password(getattr(settings, name))
        problems += [f"{name}={_shown(name, getattr(settings, name))}: expected {expected}"] if expected else []
    for name in ("master_key", "previous_master_key"):
        expected = known_key(getattr(settings, name))
        problems += [f"{name}={_shown(name, '')}: expected {expected}"] if expected else []
    if Isolation.PROCESS in settings.offered and not settings.unsafe_processes:
        problems.append(
            f"isolations={settings.isolations!r}: expected no 'process': its executions are plain processes of this "
            "user, which can do all that it can; to permit them for development set FLOW_UNSAFE_PROCESSES=1"
        )
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        problems.append(
            f"heartbeat_seconds={settings.heartbeat_seconds:g}: expected at most half of "
            f"lease_seconds={settings.lease_seconds:g}, so that one lost heartbeat loses no work"
        )
    return problems


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _completed(settings: Settings) -> Settings:
    data_dir = settings.data_dir.absolute()
    return dataclasses.replace(
        settings,
        data_dir=data_dir,
        cache_dir=settings.cache_dir.absolute(),
        database_url=settings.database_url or f"sqlite:///{data_dir / 'flow.db'}",
        slots=settings.slots or 2 * (os.cpu_count() or 1),
        models_file=settings.models_file.absolute() if settings.models_file else None,
        rates_file=settings.rates_file.absolute() if settings.rates_file else None,
        issuers_file=settings.issuers_file.absolute() if settings.issuers_file else None,
        ready_file=settings.ready_file.absolute() if settings.ready_file else None,
        master_key_file=(settings.master_key_file or data_dir / "master.key").absolute(),
        runner_id=settings.runner_id or re.sub(r"[^A-Za-z0-9_-]", "-", os.uname().nodename)[:64] or "runner",
    )
