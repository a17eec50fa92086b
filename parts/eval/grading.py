"""
Grading: how good an answer is, by tests, by rules or by a judge.

    job(item, 'def f(x): ...')              # (program, tests, entry point): what has to be run, or None
    outcome(item, 'def f(x): ...', result)  # {'outcome': 'passed', ...}. result: the sandbox's, of that job
    judged('./my_judge', item, 'Oak')       # {'outcome': 'judged', 'score': 7.0, ...}
    broken_rules([('max_words', 2)], 'a b c')               # ['max_words']
    bleu('a*b', 'a * b')                                    # 1.0: the same words and signs

An item is a question with its checks, see benchmarks.py. Copy this file alone: it needs the standard library.
"""
import collections, difflib, json, math, re, shlex, subprocess


def job(item, text, chat=False):
    """What has to be run to grade an answer: (program, tests, entry point). None if nothing has."""
    if text.strip() and item['tests'] and not broken_rules(item['rules'], text):
        return program(item, text, chat), item['tests'], item.get('entry_point', '')
    return None


def outcome(item, text, result=None, chat=False):
    """The outcome of an answer and its reason; of code also bleu. result: the sandbox's, of its job()."""
    if not text.strip():
        return {'outcome': 'empty', 'message': ''}
    broken = broken_rules(item['rules'], text)
    row = {'outcome': 'wrong' if broken else 'passed', 'message': ', '.join(broken)}
    if result:
        row = {'outcome': result.outcome, 'message': result.message}
    if item['body']:
        body = re.sub(r'(?s)^.*?\bdef [^\n]*\n', '', code_in(text)) if chat else text
        row['bleu'] = bleu(body, item['body'])
    return row


# --- code ---------------------------------------------------------------------------------------------------
def code_in(text):
    """The code of an answer in words: its first block of Python, else its first block, else all of it."""
    blocks = re.findall(r'```([\w.+#{}-]*)[ \t\r]*\n(.*?)(?:```|$)', text, re.S)
    python = [code for name, code in blocks if 'py' in name.lower()]
    return (python or [code for _, code in blocks] or [text])[0]


def program(item, text, chat):
    """What to run: the prompt and its completion; in a chat the answer, below a benchmark's imports."""
    if not chat:
        return item['prompt'] + text
    if item.get('task') == 'own':           # its prompt may be prose
        return code_in(text)
    above = item['prompt'].rfind(f'def {item.get("entry_point")}')
    return item['prompt'][:max(0, above)] + code_in(text)


def bleu(text, reference):
    """BLEU-4 of names, numbers, signs (Papineni et al. 2002), smoothed as by Lin & Och (2004): 0 to 1."""
    words = re.findall(r'\w+|[^\w\s]', text)
    wanted = re.findall(r'\w+|[^\w\s]', reference)
    total = min(0.0, 1 - len(wanted) / max(1, len(words)))      # few words are easily precise
    for n in range(1, 5):
        grams = collections.Counter(zip(*(words[i:] for i in range(n))))
        shared = grams & collections.Counter(zip(*(wanted[i:] for i in range(n))))
        extra = 1 if n > 1 else 0
        hits = shared.total() + extra
        total += math.log(hits / (grams.total() + extra)) / 4 if hits else -math.inf
    return math.exp(total)


def last_number(text):
    """The number behind ####, or else the last one; None if there is none. A minus between two is none."""
    number = r'(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+]?\d+\b)?'
    text = text.replace('\u2212', '-').replace('-$', '-')      # the minus sign of Unicode; -$5
    numbers = re.findall(rf'####[\s$*]*({number})', text) or re.findall(number, text)
    return float(numbers[-1].replace(',', '')) if numbers else None


# --- rules --------------------------------------------------------------------------------------------------
def is_json(text):
    try:
        json.loads(re.sub(r'^```\w*[ \t\r]*\n|\n```$', '', text.strip()))
        return True
    except (ValueError, RecursionError):
        return False


RULES = {'contains': lambda text, value: value.lower() in text.lower(),
         'not_contains': lambda text, value: value.lower() not in text.lower(),
         'min_words': lambda text, n: len(text.split()) - n >= 0,       # TypeError if n is a text
         'max_words': lambda text, n: len(text.split()) - n <= 0,
         'lines': lambda text, n: len(text.strip().split('\n')) - n == 0,
         'regex': lambda text, value: re.search(value, text, re.S),
         'number': lambda text, value: last_number(text) == last_number(value),
         'json': lambda text, _: is_json(text)}
CHECKS = 'rules', 'must_contain', 'must_not_contain', 'regex', 'tests'


def broken_rules(rules, text):
    """The kinds of the rules, pairs (kind, value), that a text breaks."""
    return [kind for kind, value in rules if not RULES[kind](text, value)]


def rules_of(record):
    """All rules of a record: "rules", "must_contain", "must_not_contain" (a text or several) and "regex".
    ValueError if one is unknown, misspelled, cannot be tried or cannot fail, or if nothing is checked."""
    for key in record.keys() - set(CHECKS):
        if close := difflib.get_close_matches(key, CHECKS, 1, 0.8):
            raise ValueError(f'there is no check {key!r}; did you mean {close[0]!r}?')
    rules = [(rule['kind'], rule.get('value')) for rule in record.get('rules', [])]
    for key, kind in (('must_contain', 'contains'), ('must_not_contain', 'not_contains')):
        values = record.get(key, [])
        rules += [(kind, value) for value in ([values] if isinstance(values, str) else values)]
    if 'regex' in record:
        rules.append(('regex', record['regex']))
    for kind, value in rules:
        if kind not in RULES:
            raise ValueError(f'there is no rule {kind!r}; there are: {", ".join(RULES)}')
        try:
            RULES[kind]('', value)
        except (AttributeError, TypeError, re.error) as e:
            raise ValueError(f'the rule {kind} cannot be checked with {value!r}: {e}') from e
        no_number = kind == 'number' and last_number(value) is None
        if no_number or kind not in ('json', 'max_words') and value in ('', 0, '.*', '^.*$'):
            raise ValueError(f'the rule {kind} has the value {value!r}, with which no answer can fail')
    if not rules and not record.get('tests'):
        raise ValueError(f'nothing is checked, every answer would pass; give one of {", ".join(CHECKS)}')
    return rules


# --- a judge ------------------------------------------------------------------------------------------------
def judged(judge, item, text):
    """The score of a judge, 1 to 10, and its reply. judge: a command, which gets JSON on stdin."""
    if not text.strip():
        return {'outcome': 'empty', 'message': '', 'score': 1.0}
    messages = [{'role': 'user', 'content': item['asked']}, {'role': 'assistant', 'content': text}]
    question = {'messages': messages, 'reference': item.get('reference'), 'category': item.get('category')}
    reply, score = ask_judge(judge, json.dumps(question))
    if score is None:
        reply += ' (a judge must reply with a number from 1 to 10)'
    return {'outcome': 'judged' if score else 'infrastructure', 'message': reply, 'score': score}


def ask_judge(judge, question):
    """The first 200 characters of a command's reply to a text on stdin, and the grade from 1 to 10, or None.
    A model wrote the answer and may have learned to ask for a 10: only a reply of one number is a grade."""
    try:
        done = subprocess.run(shlex.split(judge), input=question, capture_output=True, encoding='utf-8',
                              errors='replace', timeout=120)
        reply = f'it failed: {done.stderr}' if done.returncode else done.stdout
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:       # ValueError: an open quotation
        reply = f'it cannot be asked: {e}'
    grade = re.fullmatch(r'\s*(\[\[)?(\d+(?:\.\d+)?)(?(1)\]\])\s*', reply)
    score = float(grade[2]) if grade else 0.0
    return reply[:200], score if 1 <= score <= 10 else None
