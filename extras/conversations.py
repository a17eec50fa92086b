"""
Conversations for sft.py: records in the usual forms become lines of train.jsonl and val.jsonl.

    python prepare.py --kind=sft                            # 2,000 conversations of problems.py
    python prepare.py --kind=sft --source=chats.json --min_score=3 --out_dir=data/chats

In prepare.py a conversation is a document of several texts, {'texts': ['Hi!', 'Hello.'], 'roles':
['user', 'assistant']}. It passes the same stages as a text, with rules of its own. Pairs of answers
(--kind=preference) are documents, too; their forms and rules are in pairs.py.
"""
import hashlib, itertools, json, math, re, textwrap
from configurator import Mistake, require
from extras import judged_answers, messages, next_steps, pairs

# what a record raises that has another form than the one it is read as
MALFORMED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
# Two rules for you to edit: an answer of another length is dropped, and so is one with such a
# phrase.
LENGTHS = 0, math.inf               # characters of an answer
UNWANTED = ()                       # in lower case: 'as an ai language model', ...


# --- what prepare.py asks for ---------------------------------------------------------------------
def documents(entries, reject, kind, prefer='passed'):
    """Yield the documents of entries, tuples (path, line, record). A record that has another form
    is skipped, after reject(place, error). Answers that eval.py judged become records first."""
    for _, of_file in itertools.groupby(entries, lambda entry: entry[0]):
        for path, line, record in judged_answers.with_records(of_file, reject, kind, prefer):
            try:
                if line == 0:
                    raise ValueError(f'{kind} needs records, in .jsonl or .json')
                fields = fields_of(record, kind)
            except MALFORMED as error:
                reject(f'{path}:{line or 1}', f'{type(error).__name__}: {error}')
                continue
            # A record of judged answers comes from several lines, and line is None.
            yield {**fields, 'record': record, 'path': f'{path}:{line}' if line else path,
                   'line': line or 1}


def fields_of(record, kind):
    """Return the texts and roles of a record, and perhaps its score."""
    if kind == 'preference':
        return pairs.fields_of(record)
    turns = messages.messages_of(record)
    fields = {'texts': [m['content'] for m in turns], 'roles': [m['role'] for m in turns]}
    score = messages.find(record, 'score')
    return fields if score is None else {**fields, 'score': number(score)}


def number(value):
    """Return a score as a float. What is no number becomes nan, which reaches no limit."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def stage(kind, compiles, min_score=None, min_margin=0.0, min_agreement=0.0):
    """Return the rules for a kind of documents, as a stage of prepare.py. compiles(program):
    whether it is Python; None keeps all programs."""
    def check_rules(document, notes):
        if document['mode'] == 'raw':
            return None
        if kind == 'preference':
            return pairs.reason_of(document, min_margin, min_agreement)
        return reason_of(document, compiles, min_score)

    return check_rules


def to_line(document):
    """Return a document as a line of train.jsonl, without its end."""
    texts, roles = document['texts'], document['roles']
    record = {'messages': [{'role': role, 'content': text} for role, text in zip(roles, texts)]}
    if roles[-1] in ('rejected', 'good', 'bad'):
        record = pairs.to_record(document)
    return json.dumps(record, ensure_ascii=False)


def dedup_of(config, set_by):
    """Return which copies are dropped. Near-copies of pairs stay, because two pairs may differ in
    the one word that they teach. Refuse settings that conversations can't have."""
    require(config['write'] == 'bins', '--write=text needs --kind=text')
    has_source = {'source', 'sources'} & set_by.keys()
    require('n_examples' not in set_by or not has_source, '--n_examples is the number of examples '
            'that we write: it needs --kind=sft and no --source')
    is_pair = config['kind'] == 'preference' and config['dedup'] != 'none'
    return 'exact' if is_pair else config['dedup']


# --- the end of the job, which gets the names of prepare.py ---------------------------------------
def write_examples(*, config, set_by, out_dir, kind, n_examples, check_out_dir, work_folder,
                   decisive, publish, **others):
    """Without a source: write conversations about small Python problems, and 300 others to hold
    out. The other settings could do nothing."""
    require(kind == 'sft', '--kind=preference needs --source=FILE with pairs or labels, such as '
            'the samples.jsonl that eval.py writes')
    for name in set_by.keys() - {'kind', 'out_dir', 'n_examples', 'overwrite'}:
        raise Mistake(f'--{name} needs conversations of your own; add --source=FILE')
    from extras import problems
    check_out_dir(out_dir, config, [])
    work, lock = work_folder(out_dir, 'examples', '')
    sides = {'train': problems.problems(n_examples, with_tests=False),
             'val': problems.problems(300, 0, 'validation', with_tests=False)}
    hashes = {side: write(work / f'new/{side}.jsonl', [problems.to_jsonl(rows)])
              for side, rows in sides.items()}
    publish(work / 'new', out_dir, {'config': decisive(config), 'sources': {}, 'sha256': hashes})
    print(f'{out_dir}: {n_examples:,} conversations to train on, 300 held out')
    print('next:', next_steps.next_command(kind, out_dir))


def write_lines(*, meta, kind, out_dir, work, left, copied, documents, size, results, of_source,
                notes, about, audit, hash64, totals, write_report, publish, **others):
    """Write the documents that are left as lines of train.jsonl and val.jsonl, and the report."""
    hashes = {side: write(work / f'new/{side}.jsonl',
                          (f'{to_line(document)}\n' for document in documents(left[results[side]])))
              for side in ('train', 'val')}
    if audit:
        from extras import audit as auditor
        auditor.write(work / 'new', notes, copied, documents, audit, hash64)
    facts = write_report(work / 'new', out_dir, notes, totals(results, bytes=size),
                         totals(of_source, about, bytes=size))
    publish(work / 'new', out_dir, {**meta, **facts, 'sha256': hashes})
    print('next:', next_steps.next_command(kind, out_dir))


def write(path, texts):
    """Write texts to a file. Return its hash."""
    digest = hashlib.sha256()
    with open(path, 'wb') as f:
        for text in texts:
            f.write(data := text.encode())
            digest.update(data)
    return digest.hexdigest()


# --- rules ----------------------------------------------------------------------------------------
def reason_of(document, compiles=None, min_score=None, lengths=LENGTHS, unwanted=UNWANTED):
    """Return why a conversation is dropped, or None. min_score holds for the score that a judge
    gave; without a score a conversation stays."""
    texts, roles = document['texts'], document['roles']
    answers = [text for text, role in zip(texts, roles) if role == 'assistant']
    turns = [role for role in roles if role != 'system']
    if not answers:
        return 'no answer'
    if turns[0] != 'user' or any(a == b and b != 'tool' for a, b in zip(turns, turns[1:])):
        return 'roles do not alternate'
    if not all(map(str.strip, answers)):
        return 'empty answer'
    if not all(map(str.strip, texts)):
        return 'empty message'
    if min_score is not None and not document.get('score', math.inf) >= min_score:  # nan is not
        return 'low score'
    if min(map(len, answers)) < lengths[0]:
        return 'short answer'
    if max(map(len, answers)) > lengths[1]:
        return 'long answer'
    words = '\n'.join(answers).lower()
    if any(phrase in words for phrase in unwanted):
        return 'unwanted phrase'
    if compiles and not all(map(compiles, programs(answers))):
        return 'code does not parse'


PYTHON_BLOCK = re.compile(r'```(?:python|py)\n(.*?)```', re.S)        # may be indented, in a list


def programs(answers):
    """Return the ```python blocks in answers, but not sessions of the interpreter (>>>)."""
    blocks = PYTHON_BLOCK.findall('\n'.join(answers))
    return [textwrap.dedent(block) for block in blocks if '>>>' not in block]
