"""
Runs scripts in forks of a process that has imported torch already: an import takes seconds, and a
fork does not. conftest.run() starts this process and sends it a job a line, the arguments of
result_of() as JSON; the answer is a line, too: [exit code, stdout, stderr].

become() is the fork. It does what `python SCRIPT ARGUMENTS` does, with two differences: `before`,
a text, is executed first, and sees the modules that are imported here; and it ends with os._exit,
because taking an interpreter down takes longer than many a run. What the interpreter does at its
end is therefore done by hand: an error goes to sys.excepthook, threads are waited for, what the
script has registered with atexit is called, and both streams are flushed.
"""
import atexit, json, os, runpy, signal, socket, sys, tempfile, threading
import torch, torch._dynamo, torch.distributed.checkpoint.state_dict, torch.distributed.fsdp  # noqa: F401

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
import model, tokenizer                 # noqa: F401, E402


def become(script, arguments, before, cwd, env, outputs):
    for number, file in enumerate([open(os.devnull), *outputs]):
        os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.update(env)
    sys.argv = [script, *arguments]
    code = 0
    atexit._clear()                                 # of what was imported before the fork
    try:
        exec(before, globals())
        if script.endswith('.py'):
            sys.path[0] = os.path.dirname(script)
            runpy.run_path(script, run_name='__main__')
        else:
            runpy.run_module(script, run_name='__main__', alter_sys=True)
    except SystemExit as e:
        code = e.code
    except BaseException:
        code = 1
        try:
            sys.excepthook(*sys.exc_info())
        except SystemExit as e:                 # configurator.py's hook
            code = e.code
    if isinstance(code, str):                   # sys.exit('a sentence')
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()                           # the interpreter, too, waits for threads, and ends pools
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def result_of(script, arguments, before, cwd, env, processes, timeout, grace):
    """Run it in as many processes. -> the code of the first that failed, or 0; all of stdout; all
    of stderr. When one has failed, the others have `grace` seconds to end, too."""
    outputs = [[tempfile.NamedTemporaryFile() for _ in ('stdout', 'stderr')]
               for _ in range(processes)]
    if processes > 1:                           # what torchrun would say
        with socket.create_server(('127.0.0.1', 0)) as s:
            port = s.getsockname()[1]
        env |= {'WORLD_SIZE': str(processes), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    running = set()
    for rank in range(processes):
        if processes > 1:
            env |= {'RANK': str(rank), 'LOCAL_RANK': str(rank)}
        pid = os.fork()
        if pid == 0:
            become(script, arguments, before, cwd, env, outputs[rank])
        running.add(pid)

    signal.signal(signal.SIGALRM, lambda *_: [os.kill(pid, signal.SIGKILL) for pid in running])
    signal.alarm(timeout)
    failure = 0
    while running:
        pid, status = os.wait()
        running.remove(pid)
        failure = failure or os.waitstatus_to_exitcode(status)
        if failure:
            signal.alarm(grace)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    read = lambda file: open(file.name, encoding='utf-8', errors='replace').read()
    stdout, stderr = (''.join(map(read, files)) for files in zip(*outputs))
    return failure, stdout, stderr


if __name__ == '__main__':
    for line in sys.stdin:
        print(json.dumps(result_of(**json.loads(line))), flush=True)
