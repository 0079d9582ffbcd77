"""The audit log: who changed what and who was refused, each entry bound to the one before it by its hash.

The hash is over the entry as canonical JSON, which holds the hash of the entry before. So nobody changes, removes or
inserts an entry without changing all hashes after it, and whoever noted the newest hash elsewhere notices.

    entry N    {..., "sequence": N, "previous": hash of N-1}   hash N = SHA-256 of that text
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from flow_platform.domain import errors

GENESIS: Final = "0" * 64
"""What stands for the hash before the first entry."""

RETENTION: Final = "retention"
"""Kind of the entries that say that those before were removed: `removed` has sequence and hash of the last of them."""

MAX_TEXT: Final = 200  # Of a value that an entry shows; of longer ones only the length.
MAX_ITEMS: Final = 50  # Of a list or object.
MAX_DEPTH: Final = 6
MAX_ENTRY_BYTES: Final = 16_384
HIDDEN: Final = "(hidden)"

_SECRET_WORDS: Final = (
    *("secret", "password", "passwd", "token", "value", "credential", "private", "cipher", "sealed", "nonce"),
    *("key", "env", "header", "input", "payload", "config", "example", "script", "code", "source"),
    *("authorization", "cookie"),
)
"""A field with such a word in its name is hidden: it is a secret, or somebody's data, which may hold one."""

_PLAIN: Final = frozenset({"key_id", "api_key_id", "token_id", "kid", "error_code", "concurrency_per_key"})
_INSIDE: Final = re.compile(
    r"(?<=://)[^/?#\s@]+(?=@)"  # User and password of a URL.
    r"|(?<=[Bb]earer )\S+|(?<=[Bb]asic )\S+"
    r"|\beyJ[\w-]{10,}\.[\w-]+(?:\.[\w-]*)?"  # A JSON Web Token.
    r"|\b(?:fl|fls|sk|ghp|xox[abp])[_-][\w-]{16,}"  # Keys whose issuers give them a name to be found by.
)
"""What is hidden within text, whatever the field is called."""

_NAMES_ONLY: Final = frozenset({"env"})
"""Of these the names are shown, and that a value is there."""


@dataclass(frozen=True)
class AuditEntry:
    """One entry, as it is kept.

    Attributes:
        text: Canonical JSON, which is what is hashed.
        hash: Of it, in hexadecimal.
    """

    org_id: str
    sequence: int
    text: str
    hash: str

    @property
    def document(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.text))


def seal(org_id: str, sequence: int, previous: str, content: Mapping[str, Any]) -> AuditEntry:
    """The entry that follows on the one with the hash `previous`."""
    text = _canonical({**content, "org_id": org_id, "sequence": sequence, "previous": previous})
    if len(text) > MAX_ENTRY_BYTES:  # Who may write much may not fill the log with it.
        kept = {name: value for name, value in content.items() if name not in ("request", "before", "after", "changed")}
        text = _canonical(
            {**kept, "org_id": org_id, "sequence": sequence, "previous": previous, "left_out": f"{len(text)} bytes"}
        )
    return AuditEntry(org_id, sequence, text, hash_of(text))


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def verify(entries: Iterable[AuditEntry], *, after: tuple[int, str] = (0, GENESIS)) -> tuple[int, str]:
    """Checks a chain from behind a known entry on.

    Args:
        entries: In their order.
        after: Sequence and hash of the entry before the first of them.

    Returns:
        Sequence and hash of the last.

    Raises:
        Conflict: `audit_broken`: at the first entry that does not follow on the one before.
    """
    sequence, previous = after
    for entry in entries:
        sequence += 1
        try:
            document = entry.document
        except ValueError as error:
            raise _broken(sequence, "is not JSON") from error
        if entry.sequence != sequence or document.get("sequence") != sequence:
            raise _broken(sequence, f"is missing: {entry.sequence} is in its place")
        if document.get("previous") != previous:
            raise _broken(sequence, "does not follow on the one before it")
        if document.get("org_id") != entry.org_id or hash_of(entry.text) != entry.hash:
            raise _broken(sequence, "was changed")
        previous = entry.hash
    return sequence, previous


def verify_log(entries: Iterable[AuditEntry]) -> tuple[int, int, str]:
    """Checks a whole log, which may begin behind entries that were removed when they were old enough, as it says then.

    Returns:
        How many were removed before the first one; sequence and hash of the last.

    Raises:
        Conflict: `audit_broken`.
    """
    begin = (0, GENESIS)
    removed: list[Any] = [{"sequence": 0, "hash": GENESIS}]

    def watched() -> Generator[AuditEntry]:
        for entry in itertools.chain(first, rest):
            yield entry
            if f'"{RETENTION}"' in entry.text and (document := entry.document).get("kind") == RETENTION:
                removed.append(document.get("removed"))

    rest = iter(entries)
    first = list(itertools.islice(rest, 1))
    if first and first[0].sequence > 1:
        begin = (first[0].sequence - 1, _previous_of(first[0]))
    sequence, digest = verify(watched(), after=begin)
    if {"sequence": begin[0], "hash": begin[1]} not in removed:
        raise _broken(begin[0], "is missing, and no entry says that it was removed")
    return begin[0], sequence, digest


def _previous_of(entry: AuditEntry) -> str:
    try:
        return str(entry.document.get("previous"))
    except ValueError as error:
        raise _broken(entry.sequence, "is not JSON") from error


def shown(value: Any, name: str = "", depth: int = 0) -> Any:
    """What an entry shows of a JSON value: nothing that may be secret, and nothing long."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return HIDDEN if _is_hidden(name) and "tokens" not in name else value  # Of models: how many, not which.
    if name in _NAMES_ONLY and isinstance(value, dict):
        return dict.fromkeys(sorted(map(str, cast("dict[Any, Any]", value)))[:MAX_ITEMS], HIDDEN)
    if _is_hidden(name):
        return HIDDEN
    match value:
        case str():
            return _INSIDE.sub(HIDDEN, value) if len(value) <= MAX_TEXT else {"length": len(value)}
        case dict() if depth < MAX_DEPTH:
            items = list(cast("dict[Any, Any]", value).items())[:MAX_ITEMS]
            return {str(each): shown(inner, str(each), depth + 1) for each, inner in items}
        case list() | tuple() if depth < MAX_DEPTH:
            return [shown(inner, "", depth + 1) for inner in list(cast("list[Any]", value))[:MAX_ITEMS]]
        case _:
            return f"({type(value).__name__})"


def changed_fields(before: Any, after: Any) -> list[str]:
    """The fields in which two documents differ, hidden ones too; those of variables each for itself."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
    names: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        inner = changed_fields(old.get(name), new.get(name)) if name in _NAMES_ONLY else []
        names += [f"{name}.{each}" for each in inner] or [name]
    return names[:MAX_ITEMS]


def _is_hidden(name: str) -> bool:
    lowered = name.lower()
    return lowered not in _PLAIN and any(word in lowered for word in _SECRET_WORDS)


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def _broken(sequence: int, what: str) -> errors.Conflict:
    return errors.Conflict(f"entry {sequence} of the audit log {what}", code="audit_broken")
