"""Do the tests notice the usual mistakes? Each line of bench/mutants/*.jsonl changes one file a little.

    python bench/mutants.py                    all of them, each with the cheapest test that notices it
    python bench/mutants.py dpo clip           those with one of these words in their name or file
    python bench/mutants.py --tests=tests      the same mistakes, with other tests: here the whole suite

For each mistake the tracked files are copied into a temporary folder, the change is made there, pytest runs.
"caught" means that a test failed. "SURVIVED" means that all passed: then a test is missing.
A line has "name", "file", "old" (it stands in the file once) and "new".

bench/mutants/killers.json is {name of a mistake: [[test, seconds], ...]}, the cheapest test first. If a
mistake has no entry, --tests adds the tests that noticed it: python bench/mutants.py 'a new mistake'
--tests=tests/test_eval.py. Delete an entry to have it measured again.

Two mistakes run at a time. The exit code is 1 if one was not caught.
"""
import argparse
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('words', nargs='*', help='of names or files; without any, all mistakes')
    parser.add_argument('--tests', default='', help='tests/test_a.py,tests/test_b.py or tests')
    args = parser.parse_args()
    mutants = [json.loads(line) for path in sorted((ROOT / 'bench/mutants').glob('*.jsonl'))
               for line in path.read_text(encoding='utf-8').splitlines()]
    chosen = [m for m in mutants if not args.words or any(w in m['name'] + m['file'] for w in args.words)]
    killers = json.loads(KILLERS.read_text(encoding='utf-8'))
    unmeasured = [m['name'] for m in chosen if m['name'] not in killers]
    if not chosen:
        parser.error(f'no mistake has {" or ".join(args.words)} in its name or file')
    if unmeasured and not args.tests:
        parser.error(f'no killer is known of {", ".join(unmeasured)}: give --tests=tests/test_....py')

    def judged(mutant):
        tests = args.tests.split(',') if args.tests else [killers[mutant['name']][0][0]]
        return result_of(mutant, tests, stop=mutant['name'] not in unmeasured)

    caught = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for mutant, (result, found) in zip(chosen, pool.map(judged, chosen)):
            caught += result == 'caught'
            print(f'{result:<10}{mutant["file"]}: {mutant["name"]}', flush=True)
            if found and mutant['name'] in unmeasured:
                killers[mutant['name']] = found[:3]
    if unmeasured:
        rows = [f'{json.dumps(name)}: {json.dumps(killers[name])}' for name in sorted(killers)]
        KILLERS.write_text('{\n' + ',\n'.join(rows) + '\n}\n', encoding='utf-8')
    print(f'{caught} of {len(chosen)} mistakes were caught')
    sys.exit(caught < len(chosen))


if __name__ == '__main__':
    main()
