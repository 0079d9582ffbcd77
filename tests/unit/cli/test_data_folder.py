import json
import os
import stat
import subprocess
import sys

import pytest

from flow_platform.cli.data_folder import DataFolder, write_atomically
from flow_platform.domain.errors import Conflict, FlowError


def test_it_is_private_and_locked_for_one(tmp_path):
    folder = DataFolder(tmp_path / "a" / "data")
    folder.create()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.lock()
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
        DataFolder(folder.path).lock()
    folder.unlock()
    second = DataFolder(folder.path)
    second.lock()
    second.unlock()


def test_the_lock_lives_as_long_as_one_who_inherited_it(tmp_path):
    folder = DataFolder(tmp_path)
    folder.lock()
    heir = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(folder.lock_descriptor,)
    )
    with heir:
        folder.unlock()
        with pytest.raises(Conflict):
            DataFolder(tmp_path).lock()
        heir.communicate(b"\n")
    again = DataFolder(tmp_path)
    again.lock()
    again.unlock()


def test_the_lock_of_a_dead_holder_is_waited_for(tmp_path):
    """Its server may still be writing: the new one begins when that has gone, and gives up after a while."""
    folder = DataFolder(tmp_path)
    folder.lock()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "lock").write_text(f"{dead.pid}\n")
    instants = iter([0.0, 1.0, 2.0, 6.0])
    with pytest.raises(Conflict, match=f"process {dead.pid}"):
        DataFolder(tmp_path).lock(lambda: next(instants))
    folder.unlock()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FlowError, match=r"data folder .*file/data. cannot be used"):
        DataFolder(tmp_path / "file" / "data").create()


def test_a_document_is_written_whole_and_private(tmp_path):
    path = tmp_path / "ready.json"
    path.write_text("old")
    write_atomically(path, {"token": "t"})
    assert json.loads(path.read_text()) == {"token": "t"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["ready.json"]
    with pytest.raises(FlowError, match="cannot be written"):
        write_atomically(tmp_path / "absent" / "ready.json", {})
