"""
Workers: a function of many jobs, computed by several processes, the results in order.

    for result in in_parallel(function, jobs, processes=2, what='cleaning'):
        print(result)

Copy this file alone: it needs tqdm.
"""
import concurrent.futures, functools, multiprocessing, os, re, threading, time
from tqdm import tqdm


def part_of(jobs, part):
    """Every sixteenth of some jobs, from the third, for part='3/16'; all for ''. Else ValueError."""
    found = re.fullmatch(r'(\d+)/(\d+)', part or '1/1')
    first, step = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= step:
        raise ValueError(f'part={part!r} must look like 3/16: the third of sixteen parts')
    return jobs[first - 1::step]


def in_parallel(function, jobs, processes, what):
    """Yield function(job) for each job, in order. processes: how many share the work, 0 = one per core. They
    are forked, so they see all that the caller has defined. Windows cannot fork: this process does it all."""
    def watch(parent):
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    bar = functools.partial(tqdm, total=len(jobs), desc=what, unit=' shards', disable=None)
    n = min(processes or os.cpu_count(), len(jobs))
    if n <= 1 or 'fork' not in multiprocessing.get_all_start_methods():
        yield from bar(map(function, jobs))
        return
    with concurrent.futures.ProcessPoolExecutor(
            n, multiprocessing.get_context('fork'), initargs=(os.getpid(),),
            initializer=lambda pid: threading.Thread(target=watch, args=(pid,), daemon=True).start()) as pool:
        try:
            yield from bar(pool.map(function, jobs))
        except GeneratorExit:               # the caller has enough: do not wait for jobs that have begun
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        except ValueError as e:             # raised by our own code there: raise it here, as one line
            path, line = re.findall(r'\n  File "(.*)", line .*\n +(.*)', str(e.__cause__))[-1]
            home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            if line.startswith('raise ') and os.path.dirname(path).startswith(home):
                raise ValueError(str(e)) from e
            raise
        except concurrent.futures.process.BrokenProcessPool as e:
            raise OSError('a process was killed, perhaps because memory ran out; what is done is kept, try '
                          f'again with fewer, --processes={(n + 1) // 2}') from e
