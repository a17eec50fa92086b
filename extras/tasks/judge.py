"""
A judge grades a model's answers from 1 to 10: questions in words that no test can decide, such as
the first turns of MT-Bench.

    python -m extras.tasks.judge --ckpt=out/sft --data=mt_bench.jsonl --judge='python ask.py'

judge is a command: it reads a question as JSON on stdin, with all that its line has and, under
"messages", the conversation with the answer, and prints a number. Writes samples.jsonl (every
answer with its grade) into out_dir, and prints the mean grade with its 95% interval.
extras.tasks.compare compares two such samples.jsonl.
"""
import json, os, pathlib, shlex, subprocess
from typing import Literal
from tqdm import tqdm
from configurator import configure, require
from extras.tasks import answers, compare, grading, questions

# --- settings -------------------------------------------------------------------------------------
ckpt = 'out/base'               # a run's folder or a .pt file in it
data = ''                       # questions: a .jsonl or .jsonl.gz file
judge = ''                      # command that gets JSON on stdin and prints a grade
out_dir = ''                    # folder of the results; '' = judged, next to the checkpoint
max_new_tokens = 256            # tokens of an answer
device: Literal['auto', 'cpu', 'cuda', 'mps'] = 'auto'      # auto: the fastest one that is here


def graded(judge, question, text):
    """Return a judge's verdict on an answer: its grade, 1 to 10, and its reply. A model wrote the
    answer and may have learned to ask for a 10, so only a reply of a lone number is a grade."""
    text = grading.final(text)
    if not text.strip():
        return {'outcome': 'empty', 'message': '', 'score': 1.0}
    messages = [*question['messages'], {'role': 'assistant', 'content': text}]
    try:
        done = subprocess.run(
            shlex.split(judge), input=json.dumps(question | {'messages': messages}), timeout=120,
            capture_output=True, encoding='utf-8')
        require(done.returncode == 0, f'it failed: {done.stderr[-200:]}')
        grade = float(done.stdout)
        require(1 <= grade <= 10, f'it printed {grade}')
        return {'outcome': 'judged', 'message': done.stdout, 'score': grade}
    except (OSError, ValueError, subprocess.SubprocessError) as e:      # also no number
        return {'outcome': 'infrastructure', 'score': None,
                'message': f'{str(e)[:300]} (a judge must print a number from 1 to 10)'}


def main():
    require(judge and data, "give --data=questions.jsonl and --judge='python ask.py'")
    lines = questions.read(data, lambda record: record | questions.asked(record),
                           'each line is a question; see the top of extras/tasks/judge.py')
    asked = questions.identified('judge', data, lines)
    [(model, tokenizer, trained)] = answers.open_models(ckpt, device).values()
    who = {'ckpt': ckpt, 'step': model.saved.get('step'), 'chat': 'stage' in trained}
    prompts = [question['messages' if who['chat'] else 'prompt'] for question in asked]
    texts = answers.write(model, tokenizer, prompts, 1, asked[0]['ends'], max_new_tokens)
    rows = answers.rows_of('judge', asked, texts, who)
    folder = pathlib.Path(out_dir or f'{ckpt if os.path.isdir(ckpt) else os.path.dirname(ckpt)}/'
                          'judged')
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for row, question, [text] in zip(tqdm(rows, 'judge', disable=None), asked, texts):
            row |= graded(judge, question, text)
    finally:                    # no answer is lost if the judge can't be asked
        text = ''.join(json.dumps(row) + '\n' for row in rows)
        (folder / 'samples.jsonl').write_text(text, encoding='utf-8')
    grading.check_lost(rows)
    scores = [compare.worth(row) for row in rows if row['score']]       # 0 to 1
    score, low, high = [1 + 9 * x for x in (compare.mean(scores), *compare.bootstrap(scores))]
    print(f'grade {score:.2f} of 10 on {len(scores)} questions, 95% interval '
          f'{low:.2f} to {high:.2f}')


if __name__ == '__main__':
    configure(globals(), {'max_new_tokens': (1, 1e6)})
    main()
