"""The walls around a program: what the result says of them holds, and what they leave open is known."""
import ctypes
import os
import socket

import pytest
from test_sandbox_attacks import LINUX, NAMESPACES, without

from parts.eval import sandbox
from parts.eval.sandbox import run_code


def test_the_network_is_denied_where_the_result_says_so():
    with socket.create_server(('127.0.0.1', 0)) as server:
        program = f'import socket\nsocket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1)'
        result = run_code(program)
    assert result.outcome == ('exception' if result.network_denied else 'passed'), result


def test_files_are_safe_where_the_result_says_so(tmp_path):
    (tmp_path / 'mine').write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    result = run_code(f'import shutil\nopen("here", "w").write("x")\nshutil.rmtree({str(tmp_path)!r})')
    assert (tmp_path / 'mine').exists() == result.writes_denied, result


SPECIAL = """import os, socket
for name in PATHS:
    try:
        os.write(os.open(name, os.O_WRONLY | os.O_NONBLOCK), b'EVIL')
        print('wrote to', name)
    except OSError: pass
for family in (socket.AF_VSOCK, socket.AF_UNIX, socket.AF_INET):
    try: print('has', socket.socket(family))
    except PermissionError: pass
open('mine', 'w').write('x'), open('/dev/null', 'w').write('x'), open('/dev/urandom', 'rb').read(9)
os.mkdir('a'), os.rename('mine', 'a/mine'), os.remove('a/mine'), socket.socketpair()
"""


@LINUX
@pytest.mark.parametrize('walls', [(), (NAMESPACES,)], ids=['all walls', 'no namespaces'])
def test_terminals_pipes_with_a_name_and_sockets_are_closed(walls, tmp_path, monkeypatch):
    """By Landlock and seccomp: a read-only mount and a network namespace leave them open."""
    abi = ctypes.CDLL(None).syscall(444, None, 0, 1)
    if abi < 6 or os.uname().machine not in ('x86_64', 'aarch64'):
        pytest.skip('needs Landlock of Linux 6.12')
    monkeypatch.setattr(sandbox, 'TRIAL', without(tmp_path / 'trial.py', *walls))
    ours, terminal = os.openpty()
    os.mkfifo(tmp_path / 'fifo')
    fifo = os.open(tmp_path / 'fifo', os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / 'file').write_text('kept', encoding='utf-8')
    tmp_path.chmod(0o777)
    paths = [os.ttyname(terminal), f'{tmp_path}/fifo', f'{tmp_path}/file', '/dev/tty']
    result = run_code(SPECIAL.replace('PATHS', repr(paths)))
    for fd in ours, terminal, fifo:
        os.close(fd)
    assert (result.outcome, result.stdout) == ('passed', ''), result
    assert result.network_denied and result.writes_denied and result.processes_denied
    assert (tmp_path / 'file').read_text(encoding='utf-8') == 'kept'


@LINUX
def test_the_caller_can_be_read_again_when_no_program_runs():
    prctl = ctypes.CDLL(None).prctl
    before = prctl(3, 0, 0, 0, 0)
    first, second = sandbox.run_many([('pass',)] * 2), sandbox.run_many([('pass',)] * 2)
    next(first), next(second)
    list(first)                                         # calls that overlap
    assert prctl(3, 0, 0, 0, 0) == 0
    list(second)
    assert prctl(3, 0, 0, 0, 0) == before
