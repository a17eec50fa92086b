"""
Grading: how good an answer is, by tests, by rules or by a judge.

    grade(item, row, chat=False)                            # row['outcome'] = 'passed' or 'wrong'
    broken_rules([('max_words', 2)], 'a b c')               # ['max_words']
    bleu('a*b', 'a * b')                                    # 1.0: the same words and signs
    ask_judge('./my_judge', '{"messages": [...]}')          # ('7', 7.0): its reply, the grade

Copy this file alone: it needs the standard library.
"""
import collections, difflib, json, math, re, shlex, subprocess

CODE = 'problems', 'humaneval', 'mbpp'


def is_json(text):
    try:
        json.loads(re.sub(r'^```\w*[ \t\r]*\n|\n```$', '', text.strip()))
        return True
    except ValueError:
        return False


RULES = {'contains': lambda text, value: value.lower() in text.lower(),
         'not_contains': lambda text, value: value.lower() not in text.lower(),
         'starts_with': lambda text, value: text.strip().startswith(value),
         'ends_with': lambda text, value: text.strip().endswith(value),
         'min_words': lambda text, n: len(text.split()) >= n,
         'max_words': lambda text, n: len(text.split()) <= n,
         'lines': lambda text, n: len(text.strip().split('\n')) - n == 0,      # TypeError if n is a text
         'regex': lambda text, value: re.search(value, text, re.S),
         'json': lambda text, _: is_json(text),
         'lowercase': lambda text, _: text == text.lower()}


def broken_rules(rules, text):
    """The kinds of the rules, pairs (kind, value), that a text breaks."""
    return [kind for kind, value in rules if not RULES[kind](text, value)]


def matches_all(regex):
    """Whether a regex is found in every text: it matches the empty text and looks at nothing around it. Of
    those that end with $, only .* and .*? count as such."""
    regex = re.sub(r'\A((?:\(\?[aimsux]+\))?)(?:\^|\\A)?(\.\*\??)\$\Z', r'\1\2', regex)
    regex = re.sub(r'\A((?:\(\?[aimsux]+\))?)(?:\^|\\A)', r'\1', regex)        # there is always a beginning
    looks = re.search(r'(?<!\[)\^|\$|\\[AbBZ]|\(\?(?![:aimsux])', regex)
    return not looks and re.search(regex, '') is not None


CHECKS = 'rules', 'must_contain', 'must_not_contain', 'regex', 'tests'


def rules_of(task, record):
    """All rules of a record: "rules", "must_contain", "must_not_contain" (a text or several) and "regex".
    ValueError if one is unknown, empty or misspelled, or if nothing is checked: every answer would pass."""
    if task != 'own':
        return []
    for key in record.keys() - set(CHECKS):
        if close := difflib.get_close_matches(key, CHECKS, 1, 0.8):
            raise ValueError(f'there is no check {key!r}; did you mean {close[0]!r}?')
    rules = [(rule['kind'], rule.get('value')) for rule in record.get('rules', [])]
    for key, kind in (('must_contain', 'contains'), ('must_not_contain', 'not_contains')):
        values = record.get(key, [])
        if isinstance(values, str):
            values = [values]
        rules += [(kind, value) for value in values]
    if 'regex' in record:
        rules.append(('regex', record['regex']))
    for kind, value in rules:
        if kind not in RULES:
            raise ValueError(f'there is no rule {kind!r}; there are: {", ".join(RULES)}')
        idle = not value and kind not in ('json', 'lowercase', 'max_words')
        try:                    # a rule that cannot be tried is found before a model runs
            idle = idle or (RULES[kind]('', value) and kind == 'min_words')
            idle = idle or (kind == 'regex' and matches_all(value))
            if value and kind in ('min_words', 'max_words', 'lines') and value % 1 != 0:    # inf % 1 is nan
                raise TypeError('it needs a whole number')
        except (AttributeError, TypeError, re.error) as e:
            raise ValueError(f'the rule {kind} cannot be checked with {value!r}: {e}') from e
        if idle:
            raise ValueError(f'the rule {kind} has the value {value!r}, with which no answer can fail')
    if not rules and not record.get('tests'):
        raise ValueError(f'nothing is checked, every answer would pass; give one of {", ".join(CHECKS)}')
    return rules


# --- one answer ---------------------------------------------------------------------------------------------
def grade(item, row, chat):
    """Write the outcome into the row of an answer (see benchmarks.py), or return what decides: (program,
    tests, entry point)."""
    answer = row['completion']
    if row['task'] in CODE:
        body = re.sub(r'(?s)^.*?\bdef [^\n]*\n', '', code_in(answer)) if chat else answer
        row['bleu'] = bleu(body, item['canonical_solution'])
        return program(item, answer, chat), item['test'], item['entry_point']
    if row['task'] == 'gsm8k':
        number = last_number(answer)
        passed = number is not None and number == last_number(item['answer'])
    else:
        broken = broken_rules(item['rules'], answer)
        row['message'] = ', '.join(broken)
        passed = not broken
        if passed and item.get('tests'):
            return program(item, answer, chat), item['tests'], item.get('entry_point', '')
    row['outcome'] = 'passed' if passed else 'wrong'


def remarks(task, rows, judge):
    """Further figures of a task. Code: mean BLEU. judge: the name of the judge."""
    if task == 'judge':
        return {'judge': judge}
    if task not in CODE:
        return {}
    found = {'passed': [], 'failed': []}
    for row in rows:
        if 'bleu' in row:
            name = 'passed' if row['outcome'] == 'passed' else 'failed'
            found[name].append(row['bleu'])
    return {'bleu': {name: sum(x) / max(1, len(x)) for name, x in found.items()}}


def last_number(text):
    """The number behind ####, or else the last one; None if there is none. A minus between two is none."""
    number = r'(?:(?<![\w)])-)?(?:\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)(?:[eE][-+]?\d+\b)?'
    text = text.replace('\u2212', '-')          # the minus sign of Unicode
    _, marked, behind = text.rpartition('####')
    if marked and (found := re.findall(number, behind)):
        return float(found[0].replace(',', ''))
    found = re.findall(number, text)
    return float(found[-1].replace(',', '')) if found else None


def code_in(text):
    """The code of an answer in words: its first block of Python, else its first block, else all of it."""
    blocks = re.findall(r'```([\w.+#{}-]*)[ \t\r]*\n(.*?)(?:```|$)', text, re.S)
    python = [code for name, code in blocks if 'py' in name.lower()]
    return (python or [code for _, code in blocks] or [text])[0]


def program(item, answer, chat):
    """What to run: the prompt and its completion; in a chat, the function and the prompt's imports."""
    if not chat:
        return item['prompt'] + answer
    above = item['prompt'].rfind(f'def {item.get("entry_point")}')
    return item['prompt'][:max(0, above)] + code_in(answer)


def bleu(answer, reference):
    """BLEU-4 of names, numbers, signs (Papineni et al. 2002), smoothed as by Lin & Och (2004): 0 to 1."""
    words = re.findall(r'\w+|[^\w\s]', answer)
    wanted = re.findall(r'\w+|[^\w\s]', reference)
    total = min(0.0, 1 - len(wanted) / max(1, len(words)))      # few words are easily precise
    for n in range(1, 5):
        grams = collections.Counter(zip(*(words[i:] for i in range(n))))
        shared = grams & collections.Counter(zip(*(wanted[i:] for i in range(n))))
        more = 1 if n > 1 else 0
        hits = shared.total() + more
        total += math.log(hits / (grams.total() + more)) / 4 if hits else -math.inf
    return math.exp(total)


# --- a judge ------------------------------------------------------------------------------------------------
def judged(item, row, messages, judge):
    """Write into the row the score, 1 to 10, that the judge gives to the answer to a conversation."""
    answer = row['completion']
    references = item.get('reference') or []
    if isinstance(references, str):
        references = [references]
    reference = references[row['turn'] - 1] if row['turn'] <= len(references) else None
    row['outcome'] = 'judged'
    whole = [*messages, {'role': 'assistant', 'content': answer}]
    asked = {'messages': whole, 'reference': reference, 'category': row['category']}
    row['message'], row['score'] = ask_judge(judge, json.dumps(asked))
    if row['score'] is None:
        row['outcome'] = 'infrastructure'
        row['message'] += ' (a judge must reply with a number from 1 to 10)'


def ask_judge(judge, asked):
    """The first 200 characters of a command's reply to a text on stdin, and the grade from 1 to 10, or None.
    A model wrote the answer and may have learned to ask for a 10: only a reply of one number is a grade."""
    try:
        done = subprocess.run(shlex.split(judge), input=asked, capture_output=True, encoding='utf-8',
                              timeout=120)
        reply = f'it failed: {done.stderr}' if done.returncode else done.stdout
    except OSError as e:
        raise OSError(f'the judge {judge} cannot be asked ({e}); mend that, then grade the answers in '
                      'samples.jsonl with --completions=samples.jsonl') from e
    except (LookupError, ValueError, subprocess.TimeoutExpired) as e:
        reply = f'nothing readable: {e!r}'
    grade = re.fullmatch(r'\s*(\[\[)?(\d+(?:\.\d+)?)(?(1)\]\])\s*', reply)
    score = float(grade[2]) if grade else 0.0
    return reply[:200], score if 1 <= score <= 10 else None
