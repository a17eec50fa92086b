"""
Score existing answers without a model, such as answers of another program or an older run.

    python -m extras.tasks.rescore --completions=mine.jsonl --tasks=humaneval \\
        --data=HumanEval.jsonl.gz --allow_code_execution=True
    python -m extras.tasks.rescore --completions=out/sft/samples.jsonl --k=1,8

The first command reads lines of {"task_id", "completion"} and runs them with the tests of --data.
Each question needs as many lines as the largest --k. Without --tasks, each row must have an
`outcome`, as in the samples.jsonl that eval.py writes. Then no program runs: the command only
counts outcomes.

Both commands print pass@k of each task and split, and write eval.json and samples.jsonl to the
folder `scored` next to --completions, or to the folder of --out. Earlier results in this folder
are replaced, but never an input file.
"""
import functools, json, math, os, pathlib, re
from configurator import configure, find_paths, require, require_writable
from extras.tasks import answers, grading, questions, sandbox

# --- settings -------------------------------------------------------------------------------------
completions = ''                # .jsonl file with the answers of one model
tasks = ''                      # as in eval.py, without loss; '' = use the answers' outcomes
data = ''                       # questions: a .jsonl or .jsonl.gz file; several tasks: A,B
n_problems = 0                  # questions; 0 = 100 of each split, or a whole file
splits = 'example,practice,unseen,other'    # of the problems; problems.py lists all splits
out = ''                        # eval.json; '' = scored/eval.json next to the completions
k = '1'                         # k of pass@k; several values: 1,10,100
timeout = 3.0                   # seconds for a program
allow_code_execution = False    # True: run generated programs; first read extras/tasks/sandbox.py


# --- pass@k and its interval: as in eval.py, which explains them ----------------------------------
def pass_at_k(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def interval(scores):
    p = sum(scores) / len(scores)
    w = 1.96 ** 2 / len(scores)
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


if __name__ == '__main__':
    config = configure(globals(), {'timeout': (0.01, 86400)})
    require(re.fullmatch('[1-9][0-9]*(, *[1-9][0-9]*)*', k),
            f'--k={k} must be whole numbers from 1, separated by commas, such as 1,10')
    ks = sorted({1, *map(int, k.split(','))})
    folder = pathlib.Path(completions).parent
    out = pathlib.Path(out or folder / 'scored/eval.json')
    samples_path = out.with_name('samples.jsonl')
    read = {*map(os.path.abspath, [completions, *find_paths(data)])}
    require(read.isdisjoint(map(os.path.abspath, [out, samples_path])),
            f'--out={out} would replace a file that is read; choose another --out')
    require_writable(out)
    rows = grading.read_answers(completions, *['completion'] if tasks else ['prompt', 'outcome'])
    info = {key: rows[0].get(key) for key in ('ckpt', 'step')}
    info['chat'] = any(row.get('messages') for row in rows)
    report = info | {'settings': config, 'tasks': {},
                    'decontaminated': questions.contamination(folder)}
    if tasks:
        given, rows = rows, []
        run = functools.partial(sandbox.run_many, timeout=timeout) if allow_code_execution else None
        questions_of = questions.of_tasks(tasks.split(','), data, n_problems, splits.split(','))
        report |= grading.check_tasks(questions_of, run)
        for task, asked in questions_of.items():
            texts = answers.given_answers(task, asked, given, ks[-1])
            graded = answers.rows_of(task, asked, texts, info)
            grading.grade(asked, graded, run)
            rows += graded

    for task, graded in grading.group(rows, lambda row: row.get('task') or 'answers').items():
        summary = grading.summarize(graded, ks, pass_at_k, interval)
        report['tasks'][task] = summary | info
        for split, part in {'all': summary, **summary.pop('by_split')}.items():
            rounded = re.sub(r'\d\.\d+', lambda m: f'{float(m[0]):.4f}', json.dumps(part))
            print(f'{task}, {split}: {rounded}')
    out.write_text(json.dumps(report, indent=1), encoding='utf-8')
    samples_path.write_text(''.join(json.dumps(row) + '\n' for row in rows), 'utf-8')
    print(f'written to {out}')
