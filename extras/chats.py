"""
Chats for sft.py and pairs for dpo.py: records in the usual forms become lines of train.jsonl and
val.jsonl.

    python prepare.py --kind=sft                            # 2,000 conversations of problems.py
    python prepare.py --kind=sft --source=chats.json --min_score=3 --out_dir=data/chats
    python prepare.py --kind=preference --source=pairs.jsonl --min_margin=0.5 --out_dir=data/pairs

forms.py says which forms are read. In prepare.py a conversation is a document of several texts,
{'texts': ['Hi!', 'Hello.'], 'roles': ['user', 'assistant']}; the last roles of the last two lines
are chosen, rejected and bad. Documents of both kinds pass the same stages as a text, with rules of
their own. judged_answers.py adds the answers that eval.py judged.
"""
import contextlib, itertools, json, math, os, pathlib, re, shlex, textwrap
from configurator import Mistake, require
from extras import judged_answers
from extras.forms import Record, messages_of, pair_of

# Two rules for you to edit: an answer of another length is dropped, and so is one with such a
# phrase.
LENGTHS = 0, math.inf               # characters of an answer
UNWANTED = ()                       # in lower case: 'as an ai language model', ...
# what a record raises that has another form than the one it is read as
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


# --- what prepare.py asks for ---------------------------------------------------------------------
def documents(entries, reject, kind, prefer):
    """Yield the documents of entries, tuples (path, line, record). A record that has another form
    is skipped, after reject(place, error). Answers that eval.py judged become records first."""
    for _, of_file in itertools.groupby(entries, lambda entry: entry[0]):
        for path, line, record in judged_answers.with_records(of_file, reject, kind, prefer):
            try:
                if line == 0:
                    raise ValueError(f'{kind} needs records, in .jsonl or .json')
                fields = fields_of(record, kind)
            except MALFORMED as error:
                kind_of = '' if type(error) is ValueError else f'{type(error).__name__}: '
                reject(f'{path}:{line or 1}', f'{kind_of}{error}')
                continue
            # A record of judged answers comes from several lines, and line is None.
            yield {**fields, 'record': record, 'path': f'{path}:{line}' if line else path,
                   'line': line or 1}


def fields_of(record, kind):
    """Return the texts and roles of a record, and perhaps its score."""
    record = Record(record)
    if kind == 'preference':
        return {**pair_of(record), 'unused': record.unused()}
    # a label 0 may be the number of a class
    if str(record.columns.get('label')).lower() in ('false', 'bad', 'undesirable'):
        raise ValueError('"label": false is a thumb down, and every answer is learned: leave it '
                         'out, or take --kind=preference, for dpo.py --loss_type=kto')
    turns = messages_of(record)
    fields = {'texts': [m['content'] for m in turns], 'roles': [m['role'] for m in turns]}
    score = record.get('score')
    fields['unused'] = record.unused()
    if score not in (None, ''):
        fields['score'] = math.nan          # what is no number reaches no limit
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            fields['score'] = float(score)
    return fields


def stage(kind, compiles, min_score, min_margin, min_agreement):
    """Return the rules for a kind of documents, as a stage of prepare.py. compiles(program):
    whether it is Python; None keeps all programs."""
    def check_rules(document, notes):
        if unused := document.pop('unused'):
            notes['columns that were not used'].update(unused)
        if document['mode'] == 'raw':
            return None
        if kind == 'preference':
            return reason_of_pair(document, min_margin, min_agreement)
        return reason_of(document, compiles, min_score)

    return check_rules


def to_line(document):
    """Return a document as a line of train.jsonl, without its end: {'messages'}, {'prompt',
    'chosen', 'rejected'} or {'prompt', 'completion', 'label'}, with the margin and agreement."""
    texts, roles = document['texts'], document['roles']
    n_answers = {'rejected': 2, 'good': 1, 'bad': 1}.get(roles[-1], 0)      # to one prompt
    messages = [{'role': role, 'content': text} for role, text in zip(roles, texts)]
    messages = messages[:len(messages) - n_answers]
    prompt = texts[0] if len(messages) == 1 else messages
    record = {'messages': messages}
    if n_answers == 1:
        record = {'prompt': prompt, 'completion': texts[-1], 'label': roles[-1] == 'good'}
    elif n_answers:
        record = {'prompt': prompt, 'chosen': texts[-2], 'rejected': texts[-1]}
    scores = {name: document[name] for name in ('margin', 'agreement') if name in document}
    return json.dumps(record | scores, ensure_ascii=False)


def examples(kind, n, typed):
    """Without a source: return {'train': lines of n conversations about small Python problems,
    'val': 300 others}. Other settings could do nothing."""
    require(kind == 'sft', '--kind=preference needs --source=FILE with pairs or labels, such as '
            'the samples.jsonl that eval.py writes')
    for name in typed - {'kind', 'out_dir', 'n_examples', 'overwrite'}:
        raise Mistake(f'--{name} needs conversations of your own; add --source=FILE')
    from extras import problems
    sides = {'train': problems.problems(n, with_tests=False),
             'val': problems.problems(300, 0, 'validation', with_tests=False)}
    return {side: problems.to_jsonl(rows).rstrip().split('\n') for side, rows in sides.items()}


# --- rules ----------------------------------------------------------------------------------------
def reason_of(document, compiles, min_score):
    """Return why a conversation is dropped, or None. min_score holds for the score that a judge
    gave; without a score a conversation stays."""
    texts, roles = document['texts'], document['roles']
    answers = [text for text, role in zip(texts, roles) if role == 'assistant']
    turns = [role for role in roles if role != 'system']
    if turns[0] != 'user' or any(a == b and b != 'tool' for a, b in zip(turns, turns[1:])):
        return 'roles do not alternate'
    if not all(map(str.strip, answers)):
        return 'empty answer'
    if not all(map(str.strip, texts)):
        return 'empty message'
    if min_score is not None and not document.get('score', math.inf) >= min_score:  # nan is not
        return 'low score'
    if min(map(len, answers)) < LENGTHS[0]:
        return 'short answer'
    if max(map(len, answers)) > LENGTHS[1]:
        return 'long answer'
    words = '\n'.join(answers).lower()
    if any(phrase in words for phrase in UNWANTED):
        return 'unwanted phrase'
    if compiles and not all(map(compiles, programs(answers))):
        return 'code does not parse'


PYTHON_BLOCK = re.compile(r'```(?:python|py)\n(.*?)```', re.S)        # may be indented, in a list


def programs(answers):
    """Return the ```python blocks in answers, but not sessions of the interpreter (>>>)."""
    blocks = PYTHON_BLOCK.findall('\n'.join(answers))
    return [textwrap.dedent(block) for block in blocks if '>>>' not in block]


def reason_of_pair(document, min_margin, min_agreement):
    """Return why a pair is dropped, or None. One without margin or agreement stays."""
    texts = [*map(str.strip, document['texts'])]
    is_pair = document['roles'][-1] == 'rejected'       # for kto there is one answer
    if not all(texts[-1 - is_pair:]):
        return 'empty answer'
    if not all(texts):
        return 'empty message'
    if not is_pair:
        return None
    better, worse = texts[-2:]
    if better == worse:
        return 'equal answers'
    if document.get('margin', math.inf) < min_margin:
        return 'small margin'
    if document.get('agreement', math.inf) < min_agreement:
        return 'little agreement'


# --- the next command -----------------------------------------------------------------------------
def next_command(kind, out_dir):
    """Return the command that trains on the data in out_dir. Before it come the commands that make
    what it starts from, unless that is there. They write only where nothing is."""
    steps = []

    def model_of(stage):
        """Return the folder of a model of this stage, or of the one that the steps make."""
        if there := models_of(stage):
            return there[0]
        if stage == 'base':
            command, data, file, make = 'train.py', 'data/quickstart', 'train.bin', 'prepare.py'
        else:
            command = f'sft.py --init_from={shlex.quote(model_of("base"))}'
            data, file, make = 'data/sft', 'train.jsonl', 'prepare.py --kind=sft'
        if not os.path.exists(f'{data}/{file}') or stage == 'base' and not knows_messages(data):
            data = unused(data)
            steps.append(f'python {make} --out_dir={data}')
        out = unused(f'out/{stage}')
        steps.append(f'python {command} --data_dir={data} --out_dir={out}')
        return out

    stage, script = ('base', 'sft.py') if kind == 'sft' else ('sft', 'dpo.py')
    command = f'python {script} --init_from={shlex.quote(model_of(stage))}'
    with open(f'{out_dir}/train.jsonl', encoding='utf-8') as f:
        if kind == 'preference' and any(', "label": ' in line for line in f):
            command += ' --loss_type=kto'
    run = unused(f'out/{os.path.basename(os.path.realpath(out_dir))}')
    return ' && '.join([*steps, f'{command} --data_dir={shlex.quote(str(out_dir))} '
                                f'--out_dir={shlex.quote(run)}'])


def models_of(stage):
    """Return the folders in out/ with a model of a stage, base or sft, first those of run.sh."""
    folders = []
    for path in pathlib.Path('out').glob('*/config.json'):
        try:
            made = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError):         # a file of another program
            continue
        # Other objectives fill gaps, and a reward model scores answers.
        writes = made.get('objective', 'clm') == 'clm' and made.get('loss_type') != 'rm'
        is_saved = any(path.with_name(name).exists() for name in ('best.pt', 'last.pt'))
        if is_saved and writes and made.get('stage', 'base') == stage:
            folders += [path.parent.as_posix()] * knows_messages(path.parent)
    usual = ['out/sft', 'out/quickstart_sft'] if stage == 'sft' else ['out/base', 'out/quickstart']
    return sorted(folders, key=lambda folder: (folder not in usual, folder))


def knows_messages(folder):
    """Whether a tokenizer has the tokens that frame a message. One of bytes or of characters has
    none, and sft.py refuses a model with such a tokenizer."""
    path = pathlib.Path(folder, 'tokenizer.json')
    return path.exists() and '"<|im_start|>"' in path.read_text('utf-8', errors='replace')


def unused(path):
    """Return path, or path_2, path_3, ..., the first one at which there is nothing yet."""
    names = (f'{path}_{i}' if i > 1 else path for i in range(1, 10_000))
    return next(name for name in names if not os.path.exists(name))
