import os
import subprocess
import sys

from flow_platform.cli.bench_process import cpu_ms, installed_mib, memory_mib, tree


def test_a_tree_is_counted_with_what_ended_in_it():
    before = cpu_ms(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert cpu_ms(os.getpid()) > before


def test_children_are_in_the_tree_and_their_memory_is_counted():
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        assert child.pid in tree(os.getpid())
        mib, processes = memory_mib(os.getpid())
        assert processes == len(tree(os.getpid()))
        assert mib > memory_mib(child.pid)[0] > 1
        child.communicate(b"\n")


def test_what_is_installed_has_a_size():
    assert installed_mib() > installed_mib("pydantic") > 1
