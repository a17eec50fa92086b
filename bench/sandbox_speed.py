"""
Programs per second: HumanEval's references through sandbox.run_many, beside a plain `python -c` of
the program and its tests, without limits, as many at once. Both in turn, round after round.

    python bench/sandbox_speed.py HumanEval.jsonl.gz
"""
import concurrent.futures, os, subprocess, sys, time

import peers  # noqa: F401, this checkout's leaves on the path
from parts.eval import sandbox
from parts.train import records


def plain(job):
    program, test, entry_point = job
    return subprocess.run([sys.executable, '-c', f'{program}\n{test}\ncheck({entry_point})'],
                          capture_output=True).returncode == 0


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    if len(sys.argv) != 2:
        sys.exit(print(__doc__) or 2)
    problems = records.read_jsonl(sys.argv[1], dict, 'expected HumanEval.jsonl.gz')
    jobs = [(p['prompt'] + p['canonical_solution'], p['test'], p['entry_point']) for p in problems]
    processes = len(os.sched_getaffinity(0))
    print(f'{len(jobs)} programs, {processes} at once, load {os.getloadavg()[0]:.1f}; programs a second')
    for _ in range(int(os.environ.get('ROUNDS', 3))):
        start = time.perf_counter()
        results = list(sandbox.run_many(jobs, timeout=20, processes=processes))
        middle = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(processes) as pool:
            passed = sum(pool.map(plain, jobs))
        end = time.perf_counter()
        ours = sum(r.outcome == 'passed' for r in results)
        print(f'sandbox {len(jobs) / (middle - start):6.1f} ({ours} passed)   '
              f'plain {len(jobs) / (end - middle):6.1f} ({passed} passed)')
