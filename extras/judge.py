"""
A judge grades a model's answers from 1 to 10: questions in words that no test can decide, such as
the first turns of MT-Bench.

    python -m extras.judge --ckpt=out/sft --data=mt_bench.jsonl --judge='python ask.py'

judge is a command: it reads {"messages", "reference", "category"} as JSON on stdin and prints a
number. Writes judged.json and samples.jsonl (every answer with its grade) into out_dir, and prints
the mean grade with its 95% interval. extras.compare compares two such samples.jsonl.
"""
import json, os, pathlib, re, shlex, subprocess
from typing import Literal
from tqdm import tqdm
from configurator import configure, require
from extras import answers, compare, grading, questions

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'               # a run's folder or a .pt file in it
data = ''                       # questions: a .jsonl or .jsonl.gz file
judge = ''                      # command that gets JSON on stdin and prints a grade
out_dir = ''                    # folder of the results; '' = judged, next to the checkpoint
num_samples = 1                 # answers to a question
max_new_tokens = 256            # tokens of an answer
batch_size = 16                 # answers at a time
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here
seed = 1337                     # seed of the answers


def graded(judge, question, text):
    """Return a judge's verdict on an answer: its grade, 1 to 10, and its reply. A model wrote the
    answer and may have learned to ask for a 10, so only a reply of a lone number is a grade."""
    text = grading.final(text)
    if not text.strip():
        return {'outcome': 'empty', 'message': '', 'score': 1.0}
    messages = [*question['messages'], {'role': 'assistant', 'content': text}]
    conversation = {'messages': messages, 'reference': question.get('reference'),
                    'category': question.get('category')}
    try:
        done = subprocess.run(shlex.split(judge), input=json.dumps(conversation), timeout=120,
                              capture_output=True, encoding='utf-8', errors='replace')
        reply = f'it failed: {done.stderr}' if done.returncode else done.stdout
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:   # ValueError: an open quotation
        reply = f'it cannot be asked: {e}'
    grade = re.fullmatch(r'\s*(\[\[)?(\d+(?:\.\d+)?)(?(1)\]\])\s*', reply)
    if grade and 1 <= float(grade[2]) <= 10:
        return {'outcome': 'judged', 'message': reply[:200], 'score': float(grade[2])}
    return {'outcome': 'infrastructure', 'score': None,
            'message': f'{reply[:200]} (a judge must reply with a number from 1 to 10)'}


def main():
    require(judge and data, "give --data=questions.jsonl and --judge='python ask.py'")
    lines = questions.read(data, lambda record: record | questions.asked(record),
                           'each line is a question; see the top of extras/judge.py')
    asked = questions.identified('judge', data, lines)
    [(model, tokenizer, trained)] = answers.open_models(ckpt, device).values()
    who = {'ckpt': ckpt, 'step': model.saved.get('step'), 'chat': 'stage' in trained}
    prompts = [question['messages' if who['chat'] else 'prompt'] for question in asked]
    texts = answers.write(model, tokenizer, prompts, num_samples, asked[0]['ends'], max_new_tokens,
                          seed, batch_size)
    rows = grading.rows_of('judge', asked, texts, who)
    cases = [(question, text) for question, several in zip(asked, texts) for text in several]
    folder = pathlib.Path(out_dir or f'{ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt)}/'
                          'judged')
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for row, case in zip(tqdm(rows, 'judge', disable=None), cases):
            row |= graded(judge, *case)
    finally:                    # no answer is lost if the judge can't be asked
        text = ''.join(json.dumps(row) + '\n' for row in rows)
        (folder / 'samples.jsonl').write_text(text, encoding='utf-8')
    lost = [row['message'] for row in rows if row['outcome'] == 'infrastructure']
    require(len(lost) <= len(rows) / 50, f'no score: {len(lost)}/{len(rows)} could not be graded: '
            f'{lost[-1:]}')

    # of each question, 0 to 1
    scores = [compare.mean([*map(compare.worth, some)])
              for some in compare.read(str(folder)).values()]
    low, high = compare.bootstrap(scores)
    result = who | {'n': len(scores), 'score': 1 + 9 * compare.mean(scores),
                    'interval': [1 + 9 * low, 1 + 9 * high]}
    (folder / 'judged.json').write_text(json.dumps(result, indent=1), encoding='utf-8')
    print('grade {score:.2f} of 10 on {n} questions, 95% interval {interval}'.format(**result))


if __name__ == '__main__':
    configure(globals(), {'num_samples': (1, 10000), 'max_new_tokens': (1, 1e6),
                          'batch_size': (1, 1e6)})
    main()
