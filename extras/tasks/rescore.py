"""
Score answers that exist already, without a model: those of another program, or of an older run.

    python -m extras.tasks.rescore --completions=mine.jsonl --tasks=humaneval \\
        --data=HumanEval.jsonl.gz --allow_code_execution=True
    python -m extras.tasks.rescore --completions=out/sft/samples.jsonl --k=1,8

The first command reads lines of {"task_id", "completion"}, of which each question of --data needs
as many as the largest --k. It runs them with the tests of --data, prints eval.py's table, and
writes eval.json and samples.jsonl. Without --tasks, the answers must have been scored: each row has
an `outcome`, as in the samples.jsonl that eval.py writes. Then nothing runs, and only eval.json is
written.

The results go to the folder `scored` next to --completions, or to --out. No file that is read is
ever replaced.
"""
import functools, json, math, os, pathlib, re
from configurator import configure, require, require_writable
from extras.tasks import answers, grading, questions, sandbox
from extras.tasks.compare import mean

# --- settings -------------------------------------------------------------------------------------
completions = ''                # .jsonl file of one model's answers
tasks = ''                      # as in eval.py, without loss; '' = the answers have scores
data = ''                       # questions: a .jsonl or .jsonl.gz file; of several tasks: A,B
n_problems = 0                  # questions; 0 = 100 of each split, or a whole file
splits = 'example,practice,unseen,other'    # of the problems; others are in problems.py
k = '1'                         # answers drawn for pass@k; several: 1,10,100
timeout = 3.0                   # seconds for a program
allow_code_execution = False    # True: run a model's programs; first read extras/tasks/sandbox.py
out = ''                        # file for the results; '' = scored/eval.json, see above


# --- pass@k and the table: as in eval.py, which explains them -------------------------------------
def pass_at_k(n, c, k):
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def interval(scores):
    p = mean(scores)
    w = 1.96 ** 2 / len(scores)
    half = math.sqrt(w * (p * (1 - p) + w / 4))
    return [max(0.0, (p + w / 2 - half) / (1 + w)), min(1.0, (p + w / 2 + half) / (1 + w))]


def summarise(rows, ks):
    verdicts = [[row['outcome'] == 'passed' for row in some]
                for some in grading.by_problem(rows).values()]
    result = {'n': len(verdicts), 'samples': sum(map(len, verdicts))}
    for k in ks:
        chances = [pass_at_k(len(each), sum(each), k) for each in verdicts if len(each) >= k]
        result[f'pass@{k}'] = mean(chances) if chances else None
        if k == 1:
            result['interval'] = interval([*map(mean, verdicts)]) if verdicts else None
    return result | {'failures': grading.failures(rows)}


def print_table(title, rows):
    width = max(26, *map(len, rows))
    print(f'{title:<{width}}', *[f'{head:>14}' for head in next(iter(rows.values()))])
    for name, row in rows.items():
        cells = []
        for value in row.values():
            if isinstance(value, list):             # an interval
                value = ' to '.join(f'{end:.3f}' for end in value)
            if isinstance(value, dict):             # why answers failed
                value = ', '.join(f'{key} {n}' for key, n in value.items())
            cells.append(f'{value:.4f}' if isinstance(value, float) else str(value))
        print(f'{name:<{width}}', *[f'{cell:>14}' for cell in cells])
    print()


if __name__ == '__main__':
    config = configure(globals(), {'timeout': (0.01, 86400)})
    split = lambda names: names.split(',')
    asking = split(tasks) if tasks else []
    require(re.fullmatch('[1-9][0-9]*(, *[1-9][0-9]*)*', k),
            f'--k={k} must be whole numbers from 1, separated by commas, such as 1,10')
    ks = sorted({1, *map(int, split(k))})
    folder = pathlib.Path(completions).parent
    out = pathlib.Path(out or folder / 'scored/eval.json')
    samples_path = out.with_name('samples.jsonl')
    require(out.suffix == '.json', f'--out={out} must end with .json')
    written = {*map(os.path.abspath, [out, samples_path] if asking else [out])}
    require(written.isdisjoint(map(os.path.abspath, [*split(data), completions])),
            f'--out={out} would replace a file that is read; choose another --out')
    require_writable(out)

    given = grading.read_answers(completions, *['completion'] if asking else ['prompt', 'outcome'])
    who = {key: given[0].get(key) for key in ('ckpt', 'step')}
    who['chat'] = any(row.get('messages') for row in given)
    report = who | {'settings': config, 'tasks': {},
                    'decontaminated': questions.contamination(folder)}
    samples = {}            # {task: its rows}
    if asking:
        run = functools.partial(sandbox.run_many, timeout=timeout) if allow_code_execution else None
        questions_of = questions.of_tasks(asking, data, n_problems, split(splits))
        report |= grading.check_tasks(questions_of, run)
        for task, asked in questions_of.items():
            texts = answers.given_answers(task, asked, given, ks[-1])
            samples[task] = answers.rows_of(task, asked, texts, who)
            grading.grade(asked, samples[task], run)
    else:
        for row in given:
            samples.setdefault(row.get('task') or 'answers', []).append(row)
    if asking:
        samples_path.unlink(missing_ok=True)        # what was scored before is scored again
        answers.replace_rows(samples_path, sum(samples.values(), []))
    for task, rows in samples.items():
        parts = {split: summarise(some, ks) for split, some in grading.by_split(rows).items()}
        total = summarise(rows, ks)
        report['tasks'][task] = total | {'by_split': parts} | who
        print_table(task, {f'{who["ckpt"] or completions}, step {who["step"]}: {split}': part
                           for split, part in {'all': total, **parts}.items()})
    out.write_text(json.dumps(report, indent=1), encoding='utf-8')
    print(f'written to {out}')
