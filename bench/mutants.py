"""Do the tests notice the usual mistakes? Each line of bench/mutants/*.jsonl changes one file a little.

    python bench/mutants.py                    all of them, each with the cheapest test that notices it
    python bench/mutants.py dpo clip           those with one of these words in their name or file
    python bench/mutants.py --tests=tests      the same mistakes, with other tests: here the whole suite

For each mistake the tracked files are copied into a temporary folder, the change is made there, pytest runs.
"caught" means that a test failed. "SURVIVED" means that all passed: then a test is missing.
A line has "name", "file", "old" (it stands in the file once) and "new".

bench/mutants/killers.json is {name of a mistake: [[test, seconds], ...]}, the cheapest test first. Of a
mistake that is not there, --tests adds the tests that noticed it: python bench/mutants.py 'a new mistake'
--tests=tests/test_eval.py. Delete an entry to have it measured again.

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
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
KILLERS = ROOT / 'bench/mutants/killers.json'


def copy_of_the_project(folder):
    for name in subprocess.check_output(['git', 'ls-files'], cwd=ROOT, text=True).splitlines():
        if (ROOT / name).is_file():
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copy(ROOT / name, os.path.join(folder, name))


def result_of(mutant, tests, stop):
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
        data = str(ROOT.parent / 'shared' / 'data')
        env = {'NANOPARROT_TEST_DATA': data, **os.environ, 'OMP_NUM_THREADS': '1'}
        command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', f'--junitxml={results}']
        run = subprocess.run([*command, *['-x'] * stop, *tests], cwd=folder, env=env, capture_output=True,
                             text=True)
        if run.returncode > 1:                          # 2 to 5: none could run
            return f'BROKEN: pytest ended with {run.returncode}\n{run.stdout[-500:]}', []
        cases = xml.etree.ElementTree.parse(results).iter('testcase')
        failed = [case for case in cases if {part.tag for part in case} & {'failure', 'error'}]
        killers = [[f'{case.get("classname").replace(".", "/")}.py::{case.get("name")}',
                    float(case.get('time'))] for case in failed]
    return 'caught' if killers else 'SURVIVED', sorted(killers, key=lambda killer: killer[1])


def main():
    flags = [a for a in sys.argv[1:] if a.startswith('--') and not a.startswith('--tests=')]
    words = [a for a in sys.argv[1:] if not a.startswith('--')]
    other_tests = [a.removeprefix('--tests=').split(',') for a in sys.argv[1:] if a.startswith('--tests=')]
    files = sorted((ROOT / 'bench' / 'mutants').glob('*.jsonl'))
    mutants = [json.loads(line) for path in files for line in path.read_text(encoding='utf-8').splitlines()]
    chosen = [m for m in mutants if not words or any(w in m['name'] + m['file'] for w in words)]
    if flags or not chosen:
        print(__doc__)
        sys.exit(0 if '--help' in flags else 2)
    killers = json.loads(KILLERS.read_text(encoding='utf-8'))
    unmeasured = [m['name'] for m in chosen if m['name'] not in killers]
    if unmeasured and not other_tests:
        sys.exit(f'no killer is known of {", ".join(unmeasured)}: give --tests=tests/test_....py')

    def judged(mutant):
        tests = other_tests[0] if other_tests else [killers[mutant['name']][0][0]]
        return result_of(mutant, tests, stop=mutant['name'] not in unmeasured)

    results = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for mutant, (result, found) in zip(chosen, pool.map(judged, chosen)):
            results.append(result)
            print(f'{result:<10}{mutant["file"]}: {mutant["name"]}', flush=True)
            if found and mutant['name'] in unmeasured:
                killers[mutant['name']] = found[:3]
    if unmeasured:
        rows = [f'{json.dumps(name)}: {json.dumps(killers[name])}' for name in sorted(killers)]
        KILLERS.write_text('{\n' + ',\n'.join(rows) + '\n}\n', encoding='utf-8')
    caught = results.count('caught')
    print(f'{caught} of {len(chosen)} mistakes were caught')
    sys.exit(caught < len(chosen))


if __name__ == '__main__':
    main()
