"""What engine and runner rely on: acknowledged publishing, requests, services, consumers."""

from __future__ import annotations

import asyncio
import base64

import nats
import pytest

from flow_platform.bus.connection import Bus, Message
from flow_platform.bus.server_config import MAX_PAYLOAD_BYTES
from flow_platform.bus.streams import STREAMS
from flow_platform.domain.errors import BusUnavailable, PayloadTooLarge
from flow_sdk.wire import subjects

OUTPUT = subjects.EXEC_OUTPUT


class Recorder:
    """A handler that keeps what it gets; `fail` makes it raise for the bodies named."""

    def __init__(self) -> None:
        self.batches: list[list[Message]] = []
        self.fail: set[bytes] = set()
        self.calls = 0

    async def __call__(self, messages: list[Message]) -> None:
        self.calls += 1
        if any(message.body in self.fail for message in messages):
            raise RuntimeError("the database is away")
        self.batches.append(messages)

    @property
    def messages(self) -> list[Message]:
        return [message for batch in self.batches for message in batch]

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_a_published_message_reaches_the_consumer_as_it_was(bus, runner_bus, recorder, background, eventually):
    background(bus.consume("EXEC_OUTPUT", "recorder", recorder))
    sequence = await runner_bus.publish(f"{OUTPUT}.a", b"\x00\xff", {"A": "ü"})

    def arrived() -> None:
        assert recorder.bodies == [b"\x00\xff"]

    await eventually(arrived)
    message = recorder.messages[0]
    assert (message.subject, message.delivered, message.sequence) == (f"{OUTPUT}.a", 1, sequence)
    assert message.headers["A"] == "ü"


async def test_messages_come_in_order_and_in_batches_when_the_handler_is_busy(bus, recorder, background, eventually):
    going = asyncio.Event()

    async def slow(messages: list[Message]) -> None:
        await going.wait()
        await recorder(messages)

    background(bus.consume("EXEC_EVENTS", "recorder", slow, batch=64))
    for number in range(200):
        await bus.publish(f"{subjects.EXEC_EVENTS}.a", b"%d" % number)
    going.set()

    def arrived() -> None:
        assert recorder.bodies == [b"%d" % number for number in range(200)]

    await eventually(arrived)
    assert max(len(batch) for batch in recorder.batches) <= 64
    assert len(recorder.batches) < 50


async def test_what_was_acknowledged_does_not_come_again(bus, recorder, background, eventually):
    first = background(bus.consume("EXEC_OUTPUT", "recorder", recorder))
    await bus.publish(f"{OUTPUT}.a", b"1")

    def arrived() -> None:
        assert recorder.bodies == [b"1"]

    await eventually(arrived)
    first.cancel()
    await asyncio.wait({first})
    background(bus.consume("EXEC_OUTPUT", "recorder", recorder))
    await bus.publish(f"{OUTPUT}.a", b"2")

    def only_the_new_one() -> None:
        assert recorder.bodies == [b"1", b"2"]

    await eventually(only_the_new_one)


async def test_a_failed_batch_comes_again_and_a_poisoned_message_holds_up_no_other(
    bus, recorder, background, eventually
):
    recorder.fail = {b"poison"}
    for body in (b"1", b"poison", b"2", b"3"):
        await bus.publish(f"{OUTPUT}.{body.decode()}", body)
    background(bus.consume("EXEC_OUTPUT", "recorder", recorder))

    def others_arrived() -> None:
        assert set(recorder.bodies) == {b"1", b"2", b"3"}

    await eventually(others_arrived)
    recorder.fail = set()

    def all_arrived() -> None:
        assert set(recorder.bodies) == {b"1", b"2", b"3", b"poison"}

    await eventually(all_arrived)
    assert next(message for message in recorder.messages if message.body == b"poison").delivered > 1


async def test_two_consumers_of_one_name_share_the_messages(bus, runner_bus, recorder, background, eventually, server):
    second = await Bus.connect(server.url, name="second engine")
    background(bus.consume("EXEC_OUTPUT", "recorder", recorder))
    background(second.consume("EXEC_OUTPUT", "recorder", recorder))
    await asyncio.gather(*(runner_bus.publish(f"{OUTPUT}.{number}", b"%d" % number) for number in range(300)))

    def arrived() -> None:
        assert {int(body) for body in recorder.bodies} == set(range(300))

    await eventually(arrived)
    await second.drain_and_close()


async def test_one_message_id_is_stored_once(bus):
    first = await bus.publish(f"{OUTPUT}.a", b"1", message_id="a:1")
    assert await bus.publish(f"{OUTPUT}.a", b"1", message_id="a:1") == first
    assert await bus.publish(f"{OUTPUT}.a", b"1", message_id="a:2") == first + 1


async def stored_bodies(bus: Bus, stream: str, count: int) -> list[bytes]:
    messages = [await bus.api(f"STREAM.MSG.GET.{stream}", {"seq": number}) for number in range(1, count + 1)]
    return [base64.b64decode(message["message"]["data"]) for message in messages]


async def test_many_publishes_at_once_are_stored_in_their_order_and_each_knows_its_number(bus):
    subject = f"{subjects.EXEC_EVENTS}.a"
    sequences = await asyncio.gather(*(bus.publish(subject, b"%d" % number) for number in range(700)))
    assert sequences == list(range(1, 701))
    assert await stored_bodies(bus, "EXEC_EVENTS", 700) == [b"%d" % number for number in range(700)]


async def test_a_repeated_id_among_many_is_stored_once_and_the_others_are_stored(bus):
    first = await bus.publish(f"{OUTPUT}.a", b"x", message_id="50")
    sequences = await asyncio.gather(
        *(bus.publish(f"{OUTPUT}.{number}", b"x", message_id=f"{number % 100}") for number in range(200))
    )
    assert sequences[50] == sequences[150] == first
    assert len(set(sequences)) == 100
    assert (await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))["state"]["messages"] == 100


async def test_a_stream_that_takes_no_batches_takes_messages(bus):
    await bus.api("STREAM.DELETE.EXEC_OUTPUT", {})
    await bus.api("STREAM.CREATE.EXEC_OUTPUT", {**STREAMS["EXEC_OUTPUT"], "allow_atomic": False})
    sequences = await asyncio.gather(*(bus.publish(f"{OUTPUT}.{number}", b"x") for number in range(100)))
    assert sorted(sequences) == list(range(1, 101))


async def test_publishers_that_give_up_leave_the_others_alone(bus):
    publishing = [asyncio.create_task(bus.publish(f"{OUTPUT}.{number}", b"x")) for number in range(200)]
    await asyncio.sleep(0)
    for task in publishing[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*publishing, return_exceptions=True)
    assert all(isinstance(sequence, int) for sequence in outcomes[1::2])


async def test_a_message_beyond_the_limit_is_refused_with_both_sizes(bus):
    body = bytes(MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(PayloadTooLarge, match=f"{len(body)} bytes .* {MAX_PAYLOAD_BYTES}"):
        await bus.publish(f"{OUTPUT}.a", body)
    with pytest.raises(PayloadTooLarge):
        await bus.publish_core(f"{OUTPUT}.a", body)


async def test_a_stream_captures_what_is_sent_without_waiting(bus, runner_bus, recorder, background, eventually):
    background(bus.consume("EXEC_STATUS", "recorder", recorder))
    await runner_bus.publish_core(f"{subjects.EXEC_STATUS}.a", b"running", {"Flow-Attempt": "1"})

    def arrived() -> None:
        assert recorder.bodies == [b"running"]

    await eventually(arrived)


async def test_requests_are_held_side_by_side(bus, runner_bus):
    everybody_is_here = asyncio.Barrier(20)

    async def claim(body: bytes) -> bytes:
        await everybody_is_here.wait()
        return body.upper()

    await bus.serve(subjects.RUNNER_CLAIM, subjects.ENGINE_QUEUE, claim)
    answers = await asyncio.gather(
        *(runner_bus.request(subjects.RUNNER_CLAIM, b"a%d" % number, timeout=60) for number in range(20))
    )
    assert answers == [b"A%d" % number for number in range(20)]


async def test_a_runner_answers_the_engine(bus, runner_bus):
    async def build(body: bytes) -> bytes:
        return body + b" built"

    await runner_bus.serve(subjects.BUILD_REQUEST, subjects.RUNNER_QUEUE, build)
    assert await bus.request(subjects.BUILD_REQUEST, b"x", timeout=60) == b"x built"


async def test_a_failed_handler_is_told_at_once(bus, runner_bus):
    async def broken(_: bytes) -> bytes:
        raise ValueError("no such runner")

    await bus.serve(subjects.RUNNER_REGISTER, subjects.ENGINE_QUEUE, broken)
    with pytest.raises(BusUnavailable, match="no such runner"):
        await runner_bus.request(subjects.RUNNER_REGISTER, b"", timeout=60)


async def test_a_request_that_nobody_serves_fails_at_once(runner_bus):
    with pytest.raises(BusUnavailable, match="nobody serves"):
        await runner_bus.request(subjects.RUNNER_HEARTBEAT, b"", timeout=60)


async def test_a_request_without_an_answer_ends_at_its_timeout(bus, runner_bus):
    async def never(_: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    await bus.serve(subjects.RUNNER_CLAIM, subjects.ENGINE_QUEUE, never)
    with pytest.raises(BusUnavailable, match=r"within 0\.1 s"):
        await runner_bus.request(subjects.RUNNER_CLAIM, b"", timeout=0.1)


@pytest.mark.parametrize("is_served", [True, False])
async def test_a_cancel_that_comes_with_the_answer_is_obeyed(bus, runner_bus, is_served):
    """Whoever cancels a loop of requests and waits for its end would else wait for ever."""

    async def answer(body: bytes) -> bytes:
        return body

    if is_served:
        await bus.serve(subjects.RUNNER_HEARTBEAT, subjects.ENGINE_QUEUE, answer)
    asking = asyncio.create_task(runner_bus.request(subjects.RUNNER_HEARTBEAT, b"", timeout=60))
    while not (waiting := list(runner_bus._client._resp_map.values())):  # noqa: ASYNC110 - until it is sent.
        await asyncio.sleep(0)
    waiting[0].add_done_callback(lambda _: asking.cancel())
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_runner_hears_its_cancel_notices_in_order(bus, runner_bus, eventually):
    heard: list[bytes] = []

    async def cancel(message: Message) -> None:
        heard.append(message.body)
        if message.body == b"0":
            raise RuntimeError("one bad notice")

    await runner_bus.subscribe(subjects.runner_cancel("r1"), cancel)
    for number in range(5):
        await bus.publish_core(subjects.runner_cancel("r1"), b"%d" % number)

    def heard_all() -> None:
        assert heard == [b"0", b"1", b"2", b"3", b"4"]

    await eventually(heard_all)


async def test_ensuring_the_streams_again_changes_nothing(bus):
    await bus.publish(f"{OUTPUT}.a", b"kept")
    await asyncio.gather(*(bus.ensure_streams() for _ in range(5)))
    information = await bus.api("STREAM.INFO.EXEC_OUTPUT", {})
    assert information["state"]["messages"] == 1


async def test_a_stream_with_another_configuration_is_changed_or_made_anew(bus):
    changed = {**STREAMS["EXEC_OUTPUT"], "max_msgs_per_subject": 3}
    await bus.api("STREAM.UPDATE.EXEC_OUTPUT", changed)
    await bus.publish(f"{OUTPUT}.a", b"kept")
    await bus.api("STREAM.DELETE.EXEC_STATUS", {})
    await bus.api("STREAM.CREATE.EXEC_STATUS", {**STREAMS["EXEC_STATUS"], "storage": "file"})
    await bus.ensure_streams()
    for name, wanted in STREAMS.items():
        present = await bus.api(f"STREAM.INFO.{name}", {})
        assert wanted.items() <= present["config"].items()
    assert (await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))["state"]["messages"] == 1


async def test_a_runner_may_neither_read_nor_destroy_what_is_not_its_own(bus, server, eventually):
    refused: list[str] = []

    async def note(error: Exception) -> None:
        refused.append(str(error).lower())

    runner = await nats.connect(server.runner_url, error_cb=note, inbox_prefix="_INBOX.flow-runner")
    subscriptions = (">", "exec.>", "flow.runner.claim", "_INBOX.>", "_INBOX.flow-engine.>", "$JS.>", "$O.>")
    for subject in subscriptions:
        await runner.subscribe(subject)
    requests = (
        "$JS.API.STREAM.DELETE.EXEC_OUTPUT",
        "$JS.API.STREAM.PURGE.EXEC_OUTPUT",
        "$JS.API.STREAM.UPDATE.EXEC_OUTPUT",
        "$JS.API.CONSUMER.CREATE.EXEC_OUTPUT.thief",
        "$JS.API.DIRECT.GET.EXEC_INPUT.exec.input.x",
        subjects.runner_cancel("other"),
        subjects.BUILD_REQUEST,
    )
    for subject in requests:
        await runner.publish(subject, b"{}")

    def all_refused() -> None:
        assert sum("permissions violation" in reason for reason in refused) == len(subscriptions) + len(requests)

    await eventually(all_refused)
    await runner.close()
    assert (await bus.api("STREAM.INFO.EXEC_OUTPUT", {}))["config"]["name"] == "EXEC_OUTPUT"


async def test_the_first_connection_fails_with_the_address_but_without_the_password():
    with pytest.raises(BusUnavailable, match=r"127\.0\.0\.1:1") as caught:
        await Bus.connect("nats://user:secret@127.0.0.1:1", name="lost")
    assert "secret" not in str(caught.value)


async def test_a_wrong_password_is_refused(server):
    # Whether its reason is read before the connection is reset is a matter of luck.
    with pytest.raises(BusUnavailable, match=f"no connection to NATS at .*{server.port}"):
        await Bus.connect(f"nats://flow-engine:wrong@127.0.0.1:{server.port}", name="thief")
