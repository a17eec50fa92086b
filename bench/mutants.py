"""Do the tests notice the usual mistakes? Each line of bench/mutants/*.jsonl changes one file a little.

    python bench/mutants.py                    all of them, each with the cheapest test that notices it
    python bench/mutants.py dpo clip           those with one of these words in their name or file
    python bench/mutants.py --killers          measure which tests notice those without a killer, and how soon
    python bench/mutants.py --tests=tests      the same mistakes, with other tests: here the whole suite

For each mistake the tracked files are copied into a temporary folder, the change is made there, pytest runs.
"caught" means that a test failed. "SURVIVED" means that all passed: then a test is missing.
A line has "name", "file", "old" (it stands in the file once) and "new".

bench/mutants/killers.json is {name of a mistake: [[test, seconds], ...]}, the cheapest test first. --killers
adds to it. It first asks coverage.py which test files execute the changed lines (pip install coverage; twice
the time of the suite). Then it runs these files, the quickest first, up to the first one that notices the
mistake. Delete an entry to have it measured again.

Two mistakes run at a time. The exit code is 1 if one was not caught.
"""
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
KILLERS = ROOT / 'bench/mutants/killers.json'
# Scripts run in forks of the tests' process, so coverage has to follow forks.
COVERAGE = '''[run]
parallel = True
patch = fork, subprocess, _exit
data_file = {0}/.coverage
source = {0}
'''


def copy_of_the_project(folder):
    for name in subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copy(ROOT / name, os.path.join(folder, name))


def pytest(folder, *arguments, python=(sys.executable,)):
    """Run pytest in a copy of the project."""
    data = str(ROOT.parent / 'shared' / 'data')
    env = {'NANOPARROT_TEST_DATA': data, **os.environ, 'OMP_NUM_THREADS': '1'}
    command = [*python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def result_of(mutant, tests, stop=True):
    """Return 'caught', 'SURVIVED', or 'BROKEN: why' when change or tests do not fit the code any more.
    With it come the tests that noticed the mistake, [[test, seconds], ...], the cheapest first."""
    text = (ROOT / mutant['file']).read_text(encoding='utf-8')
    if text.count(mutant['old']) != 1:
        return f'BROKEN: {mutant["file"]} has "old" {text.count(mutant["old"])} times, not once', []
    with tempfile.TemporaryDirectory() as folder:
        copy_of_the_project(folder)
        changed = text.replace(mutant['old'], mutant['new'])
        pathlib.Path(folder, mutant['file']).write_text(changed, encoding='utf-8')
        results = pathlib.Path(folder, 'results.xml')
        run = pytest(folder, f'--junitxml={results}', *['-x'] * stop, *tests)
        if run.returncode > 1:                          # 2 to 5: none could run
            return f'BROKEN: pytest ended with {run.returncode}\n{run.stdout[-500:]}', []
        cases = xml.etree.ElementTree.parse(results).iter('testcase')
        failed = [case for case in cases if {part.tag for part in case} & {'failure', 'error'}]
        killers = [[f'{case.get("classname").replace(".", "/")}.py::{case.get("name")}',
                    float(case.get('time'))] for case in failed]
    return 'caught' if killers else 'SURVIVED', sorted(killers, key=lambda killer: killer[1])


def lines_of_each_test_file():
    """Return {test file: (seconds, {source file: its lines that the tests execute})}."""
    import coverage
    with tempfile.TemporaryDirectory() as folder:
        def measured(test):
            home = pathlib.Path(folder, test.stem)
            home.mkdir()
            copy_of_the_project(home)
            (home / 'rc').write_text(COVERAGE.format(home), encoding='utf-8')
            began = time.perf_counter()
            watched = sys.executable, '-m', 'coverage', 'run', f'--rcfile={home}/rc'
            pytest(home, f'tests/{test.name}', python=watched)
            seconds = time.perf_counter() - began
            whole = coverage.Coverage(config_file=str(home / 'rc'))
            whole.combine([str(home)])
            data = whole.get_data()
            lines = {os.path.relpath(path, home): set(data.lines(path)) for path in data.measured_files()}
            return f'tests/{test.name}', (seconds, lines)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return dict(pool.map(measured, sorted((ROOT / 'tests').glob('test_*.py'))))


def measure_killers(mutants, killers):
    """Add to killers the tests that notice each of these mutants."""
    executed = lines_of_each_test_file()

    def measured(mutant):
        before, _, _ = (ROOT / mutant['file']).read_text(encoding='utf-8').partition(mutant['old'])
        first = before.count('\n') + 1
        changed = set(range(first, first + mutant['old'].count('\n') + 1))
        tests = [test for test, (_, lines) in executed.items() if changed & lines.get(mutant['file'], set())]
        for test in sorted(tests, key=lambda test: executed[test][0]):
            result, found = result_of(mutant, [test], stop=False)
            if found or result.startswith('BROKEN'):
                return mutant, result, found
        return mutant, 'SURVIVED', []

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for mutant, result, found in pool.map(measured, mutants):
            print(f'{result:<10}{mutant["file"]}: {mutant["name"]}: {found[:1]}', flush=True)
            if found:
                killers[mutant['name']] = found[:3]
                rows = [f'{json.dumps(name)}: {json.dumps(killers[name])}' for name in sorted(killers)]
                KILLERS.write_text('{\n' + ',\n'.join(rows) + '\n}\n', encoding='utf-8')


def main():
    flags = [a for a in sys.argv[1:] if a.startswith('--') and not a.startswith('--tests=')]
    words = [a for a in sys.argv[1:] if not a.startswith('--')]
    other_tests = [a.removeprefix('--tests=').split(',') for a in sys.argv[1:] if a.startswith('--tests=')]
    files = sorted((ROOT / 'bench' / 'mutants').glob('*.jsonl'))
    mutants = [json.loads(line) for path in files for line in path.read_text(encoding='utf-8').splitlines()]
    chosen = [m for m in mutants if not words or any(w in m['name'] + m['file'] for w in words)]
    if flags not in ([], ['--killers']) or not chosen:
        print(__doc__)
        sys.exit(0 if '--help' in flags else 2)
    killers = json.loads(KILLERS.read_text(encoding='utf-8')) if KILLERS.exists() else {}
    if flags:
        measure_killers([m for m in chosen if m['name'] not in killers], killers)
        sys.exit(not all(m['name'] in killers for m in chosen))

    unmeasured = [m['name'] for m in chosen if m['name'] not in killers]
    if unmeasured and not other_tests:
        sys.exit(f'no killer is known of {", ".join(unmeasured)}: python bench/mutants.py --killers')

    def tests_of(mutant):
        return other_tests[0] if other_tests else [killers[mutant['name']][0][0]]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(result_of, m, tests_of(m)) for m in chosen]
        results = []
        for mutant, job in zip(chosen, jobs):
            results.append(job.result()[0])
            print(f'{results[-1]:<10}{mutant["file"]}: {mutant["name"]}', flush=True)
    caught = results.count('caught')
    print(f'{caught} of {len(chosen)} mistakes were caught')
    sys.exit(caught < len(chosen))


if __name__ == '__main__':
    main()
