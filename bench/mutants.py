"""Do the tests notice the usual mistakes? Each line of bench/mutants/*.jsonl changes one file a little.

    python bench/mutants.py                    all of them, each with the tests named beside it
    python bench/mutants.py dpo clip           those with one of these words in their name or file
    python bench/mutants.py --tests=tests      the same mistakes, with other tests: here the whole suite

For each mistake the tracked files are copied into a temporary folder, the change is made there, pytest runs.
"caught" means that a test failed. "SURVIVED" means that all passed: then a test is missing.
A line has "name", "file", "old" (it stands in the file once), "new", and "tests" (a list of paths).
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

ROOT = pathlib.Path(__file__).resolve().parents[1]


def result_of(mutant, tests):
    """'caught', 'SURVIVED', or 'BROKEN: why' when the change or the tests do not fit the code any more."""
    text = (ROOT / mutant['file']).read_text(encoding='utf-8')
    if text.count(mutant['old']) != 1:
        return f'BROKEN: "old" stands {text.count(mutant["old"])} times in {mutant["file"]}, not once'
    with tempfile.TemporaryDirectory() as folder:
        for name in subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).splitlines():
            if (ROOT / name).is_file():
                os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
                shutil.copy(ROOT / name, os.path.join(folder, name))
        changed = text.replace(mutant['old'], mutant['new'])
        pathlib.Path(folder, mutant['file']).write_text(changed, encoding='utf-8')
        data = str(ROOT.parent / 'shared' / 'data')
        env = {'NANOPARROT_TEST_DATA': data, **os.environ, 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, '-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *tests]
        pytest = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if pytest.returncode > 1:                           # 2 to 5: none could run
        return f'BROKEN: pytest ended with {pytest.returncode}\n{pytest.stdout[-500:]}'
    return 'caught' if pytest.returncode else 'SURVIVED'


def main():
    flags = [a for a in sys.argv[1:] if a.startswith('--') and not a.startswith('--tests=')]
    words = [a for a in sys.argv[1:] if not a.startswith('--')]
    other_tests = [a.removeprefix('--tests=').split(',') for a in sys.argv[1:] if a.startswith('--tests=')]
    files = sorted((ROOT / 'bench' / 'mutants').glob('*.jsonl'))
    mutants = [json.loads(line) for path in files for line in path.read_text(encoding='utf-8').splitlines()]
    chosen = [m for m in mutants if not words or any(w in m['name'] + m['file'] for w in words)]
    if flags or not chosen:
        sys.exit(print(__doc__) or 2)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(result_of, m, other_tests[0] if other_tests else m['tests']) for m in chosen]
        results = []
        for mutant, job in zip(chosen, jobs):
            results.append(job.result())
            print(f'{results[-1]:<10}{mutant["file"]}: {mutant["name"]}', flush=True)
    caught = results.count('caught')
    print(f'{caught} of {len(chosen)} mistakes were caught')
    sys.exit(caught < len(chosen))


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    main()
