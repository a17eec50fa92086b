"""
Workers: a function of many jobs, computed by several processes, the results in order.

    for result in in_parallel(function, jobs, 2, 'cleaning'):
        print(result)
"""
import concurrent.futures, functools, multiprocessing, os, re, threading, time
from tqdm import tqdm
from parts import Mistake


def part_of(jobs, part):
    """Every sixteenth of some jobs, from the third, for part='3/16'; all for ''."""
    numbers = re.fullmatch(r'(\d+)/(\d+)', part or '1/1')
    if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]):
        raise Mistake(f'part={part!r} must look like 3/16: the third of sixteen parts')
    return jobs[int(numbers[1]) - 1::int(numbers[2])]


@functools.cache
def end_with_parent():
    """From now on, what this process forks ends soon after it, because nobody waits for its
    results; so do the processes that train a tokenizer."""
    def watch(parent):
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=lambda: threading.Thread(
            target=watch, args=[os.getppid()], daemon=True).start())


def in_parallel(function, jobs, n_workers, what):
    """Yield function(job) for each job, in order. The workers (0: one per core) are forked, so they
    see all that the caller has defined. Windows cannot fork: this process does it all."""
    end_with_parent()
    bar = functools.partial(tqdm, total=len(jobs), desc=what, unit=' shards', disable=None)
    n = min(n_workers or os.cpu_count(), len(jobs))
    if n <= 1 or 'fork' not in multiprocessing.get_all_start_methods():
        yield from bar(map(function, jobs))
        return

    fork = multiprocessing.get_context('fork')
    with concurrent.futures.ProcessPoolExecutor(n, fork) as pool:
        try:
            yield from bar(pool.map(function, jobs))
        except concurrent.futures.process.BrokenProcessPool as e:
            raise Mistake('a process was killed, perhaps because memory ran out; what is done is '
                          f'kept, try again with fewer, --num_workers={(n + 1) // 2}') from e
