"""A supervised process, with small real programs."""

import asyncio
import os

import pytest

from flow_platform.cli.child import Child, ChildFailed, Program, tail_of

READY = """
import json, os, sys, time
number = int(sys.argv[sys.argv.index("--ready-fd") + 1])
with os.fdopen(number, "w") as pipe:
    json.dump({report}, pipe)
"""


@pytest.fixture
def said():
    return []


@pytest.fixture
def child(tmp_path, said):
    def make(code: str, first_pause_seconds: float = 0.005) -> Child:
        program = Program("part", ("-c", code), dict(os.environ), tmp_path / "part.log")
        return Child(program, said.append, first_pause_seconds)

    return make


async def test_a_child_is_started_again_and_given_up_when_it_always_dies(child, said):
    dying = child("import sys; print('so it ends'); sys.exit(3)")
    with pytest.raises(ChildFailed, match="the part ended with exit code 3, the 8th time within 60 s") as caught:
        await dying.keep_running()
    assert dying.starts == 8
    assert caught.value.tail.splitlines() == ["so it ends"] * 8
    assert len(said) == 7
    assert "starting it again in 0.005 s" in said[0]


async def test_its_report_is_heard(child):
    ready = child(READY.format(report='{"name": "x"}') + "time.sleep(60)")
    keeping = asyncio.create_task(ready.keep_running())
    assert await asyncio.wait_for(ready.ready, 20) == {"name": "x"}
    ready.terminate()
    await asyncio.wait_for(keeping, 20)
    assert not ready.is_running


async def test_one_that_refuses_to_work_is_not_started_again(child, said):
    refusing = child(READY.format(report='{"error": "no user namespaces", "hint": "allow them"}') + "sys.exit(78)")
    with pytest.raises(ChildFailed, match="no user namespaces") as caught:
        await refusing.keep_running()
    assert caught.value.hint == "allow them"
    assert refusing.starts == 1
    assert said == []


async def test_one_that_is_stopped_while_it_pauses_stays_down(child, said):
    dying = child("raise SystemExit(1)", first_pause_seconds=1.0)  # Long enough to be found in it.
    keeping = asyncio.create_task(dying.keep_running())
    while not said:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    dying.terminate()
    await asyncio.wait_for(keeping, 20)
    assert dying.starts == 1


async def test_it_inherits_nothing_but_what_it_is_given(child, tmp_path):
    listing = child(READY.format(report='{"open": os.listdir("/proc/self/fd")}'))
    extra = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(extra, True)
    keeping = asyncio.create_task(listing.keep_running())
    try:
        report = await asyncio.wait_for(listing.ready, 20)
    finally:
        os.close(extra)
        listing.terminate()
        await asyncio.gather(keeping, return_exceptions=True)
    # Standard three, the two pipes, and the one that the listing itself opens.
    assert len(report["open"]) == 6


def test_the_tail_of_a_long_log_is_its_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    lines = tail_of(log).splitlines()
    assert lines[-1] == "line 9999"
    assert len(lines) == 20
    assert tail_of(tmp_path / "absent") == ""


async def test_the_life_pipe_closes_with_the_supervisor(child):
    waiting = child(
        READY.format(report='{"pid": os.getpid()}')
        + "life = int(sys.argv[sys.argv.index('--life-fd') + 1])\nos.read(life, 1)\n"
    )
    keeping = asyncio.create_task(waiting.keep_running())
    await asyncio.wait_for(waiting.ready, 20)
    keeping.cancel()  # As the supervisor's end would: the other end of the pipe is closed.
    await asyncio.gather(keeping, return_exceptions=True)
    await asyncio.wait_for(waiting.wait_gone(), 20)


async def test_the_address_of_nats_comes_by_pipe_when_it_is_known(tmp_path, said):
    url = asyncio.get_running_loop().create_future()
    code = READY.format(report='{"url": os.fdopen(int(sys.argv[sys.argv.index("--nats-fd") + 1])).read()}')
    program = Program("part", ("-c", code + "time.sleep(60)"), dict(os.environ), tmp_path / "log", nats_url=url)
    child = Child(program, said.append)
    keeping = asyncio.create_task(child.keep_running())
    url.set_result("nats://user:password@host:1")
    assert await asyncio.wait_for(child.ready, 20) == {"url": "nats://user:password@host:1"}
    child.terminate()
    await asyncio.wait_for(keeping, 20)


async def test_an_error_after_it_was_ready_is_a_death_like_any_other(tmp_path, said):
    """A database that is away for a moment must not end the platform."""
    marker = tmp_path / "started"
    report = '{"error": "away"} if os.path.exists(sys.argv[1]) else {"name": "x"}'
    code = READY.format(report=report) + "open(sys.argv[1], 'w').close()\nsys.exit(1)"
    child = Child(Program("part", ("-c", code, str(marker)), dict(os.environ), tmp_path / "log"), said.append, 0.005)
    with pytest.raises(ChildFailed, match="the 8th time"):
        await child.keep_running()
