"""
IFEval (Zhou et al. 2023, arXiv:2311.07911): instructions that a program can check. It reads their file.

    follows('punctuation:no_comma', {}, 'Yes no')           # True
    item = {'instruction_id_list': ['startend:quotation'], 'kwargs': [{}]}
    check(item)                                             # ValueError if one cannot be tried
    grade(item, row := {'completion': '"Hello"'})           # row['outcome'] = 'passed'
    remarks([row])                                          # shares of prompts, of instructions

A record: {"key", "prompt", "instruction_id_list", "kwargs": one dict for each}. Strict and loose as in the
paper; 24 of its 25 kinds. Differences: sentences are counted by their punctuation (there NLTK's punkt), words
in capitals by a pattern (there NLTK's tokenizer), and a text in one case may be of any language. Kinds
with no check here (language:response_language, other people's) are `unsupported`, and never pass.
Copy this file alone: it needs the standard library.
"""
import collections, itertools, json, re


def compare(n, relation, wanted):
    """Whether n is `at least` or `less than` wanted, the two relations of the paper."""
    if relation not in ('at least', 'less than'):
        raise ValueError(f'the relation must be "at least" or "less than", not {relation!r}')
    return n >= wanted if relation == 'at least' else n < wanted


def parts_of(text, separator):
    """The parts of a text that are not empty; [] if there is nothing between two separators."""
    parts = [part.strip() for part in re.split(separator, text)]
    return [part for part in parts if part] if all(parts[1:-1]) else []


def nth_paragraph(text, n, nth, first_word):
    parts = text.split('\n\n')
    full = sum(bool(part.strip()) for part in parts)
    if full != n or not 1 <= nth <= full or not parts[nth - 1].strip():
        return False
    first = parts[nth - 1].split()[0].lstrip('\'"')
    return re.match(r'[^.,?!\'"]*', first)[0].lower() == first_word.lower()


def postscript(text, marker):
    patterns = {'P.P.S': r'\s*p\.\s?p\.\s?s.*$', 'P.S.': r'\s*p\.\s?s\..*$'}
    pattern = patterns.get(marker, rf'\s*{re.escape(marker.lower())}.*$')
    return bool(re.search(pattern, text.lower(), re.M))


def highlighted(text):
    found = re.findall(r'\*[^\n\*]*\*', text) + re.findall(r'\*\*[^\n\*]*\*\*', text)
    return len([part for part in found if part.strip('*').strip()])


def is_json(text):
    text = re.sub(r'^```(json)?', '', text.strip(), flags=re.I).removesuffix('```')
    try:
        json.loads(text)
        return True
    except (ValueError, RecursionError):
        return False


# kind -> whether a text t follows the instruction with the arguments k
KINDS = {
    'keywords:existence': lambda t, k: all(re.search(word, t, re.I) for word in k['keywords']),
    'keywords:frequency': lambda t, k: compare(
        len(re.findall(k['keyword'], t, re.I)), k['relation'], k['frequency']),
    'keywords:forbidden_words': lambda t, k: not any(
        re.search(rf'\b{word}\b', t, re.I) for word in k['forbidden_words']),
    'keywords:letter_frequency': lambda t, k: compare(
        collections.Counter(t.lower())[k['letter'].lower()], k['let_relation'], k['let_frequency']),
    'length_constraints:number_sentences': lambda t, k: compare(
        len(re.split(r'(?<=[.!?])["\')\]]*\s+', t.strip())), k['relation'], k['num_sentences']),
    'length_constraints:number_paragraphs': lambda t, k: (
        len(parts_of(t, r'\*\*\*')) == k['num_paragraphs']),
    'length_constraints:number_words': lambda t, k: compare(
        len(re.findall(r'\w+', t)), k['relation'], k['num_words']),
    'length_constraints:nth_paragraph_first_word': lambda t, k: nth_paragraph(
        t, k['num_paragraphs'], k['nth_paragraph'], k['first_word']),
    'detectable_content:number_placeholders': lambda t, k: (
        len(re.findall(r'\[.*?\]', t)) >= k['num_placeholders']),
    'detectable_content:postscript': lambda t, k: postscript(t, k['postscript_marker']),
    'detectable_format:number_bullet_lists': lambda t, k: k['num_bullets'] == len(
        re.findall(r'^\s*\*[^\*].*$', t, re.M) + re.findall(r'^\s*-.*$', t, re.M)),
    'detectable_format:constrained_response': lambda t, k: bool(
        re.search(r'My answer is (yes|no|maybe)\.', t)),
    'detectable_format:number_highlighted_sections': lambda t, k: highlighted(t) >= k['num_highlights'],
    'detectable_format:multiple_sections': lambda t, k: (
        len(re.findall(rf'\s?{k["section_spliter"]}\s?\d+\s?', t)) >= k['num_sections']),
    'detectable_format:json_format': lambda t, k: is_json(t),
    'detectable_format:title': lambda t, k: any(
        part.strip('<> ') for part in re.findall(r'<<[^\n]+>>', t)),
    'combination:two_responses': lambda t, k: (
        len(parts_of(t, r'\*{6}')) == len(set(parts_of(t, r'\*{6}'))) == 2),
    'combination:repeat_prompt': lambda t, k: (
        t.strip().lower().startswith(k['prompt_to_repeat'].strip().lower())),
    'startend:end_checker': lambda t, k: (
        t.strip().strip('"').lower().endswith(k['end_phrase'].strip().lower())),
    'startend:quotation': lambda t, k: bool(re.fullmatch('".*"', t.strip(), re.S)),
    'change_case:capital_word_frequency': lambda t, k: compare(
        sum(word.isupper() for word in re.findall(r"\w+(?:[-'.]\w+)*", t)),
        k['capital_relation'], k['capital_frequency']),
    'change_case:english_capital': lambda t, k: t.isupper(),
    'change_case:english_lowercase': lambda t, k: t.islower(),
    'punctuation:no_comma': lambda t, k: ',' not in t}


def follows(kind, arguments, text):
    """Whether a text follows an instruction, and is not empty; None if there is no check for this kind."""
    if kind not in KINDS:
        return None
    return bool(text.strip()) and bool(KINDS[kind](text, arguments))


def instructions(item):
    """[(kind, its arguments)]. In Hugging Face's copy, arguments that are not used are null."""
    pairs = zip(item['instruction_id_list'], item['kwargs'], strict=True)
    return [(kind, {name: x for name, x in kwargs.items() if x is not None}) for kind, kwargs in pairs]


def check(item):
    """Its instructions. ValueError if there is none, or one that cannot be tried."""
    if not item['instruction_id_list']:
        raise ValueError('"instruction_id_list" is empty, so that every answer would pass')
    pairs = instructions(item)
    for kind, arguments in pairs:
        try:
            follows(kind, arguments, 'x')
        except (KeyError, TypeError, AttributeError, ValueError, re.error) as e:
            raise ValueError(f'the instruction {kind} cannot be checked with {arguments}: {e!r}') from e
    return pairs


def grade(item, row):
    """Write into the row: `followed`, for each instruction whether the answer follows it (None: no check);
    `loosely`, the best for the answer and eight variants of it; the outcome and its reason."""
    lines = row['completion'].split('\n')
    variants = [row['completion']]
    for first, last in itertools.product((0, 1), (None, -1)):       # without the first or last line
        text = '\n'.join(lines[first:last]).strip()
        variants += [text, text.replace('*', '')]
    pairs = instructions(item)
    row['followed'] = [follows(kind, arguments, row['completion']) for kind, arguments in pairs]
    row['loosely'] = [max((follows(*pair, text) for text in variants), key=bool) for pair in pairs]
    row['unsupported'] = [kind for kind, _ in pairs if kind not in KINDS]
    failed = [kind for (kind, _), good in zip(pairs, row['followed']) if good is False]
    row['message'] = ', '.join(failed or row['unsupported'])
    unless_wrong = 'unsupported' if row['unsupported'] else 'passed'
    row['outcome'] = 'wrong' if failed else unless_wrong


def remarks(rows):
    """Shares of the rows that grade() has seen: prompts and instructions, strict and loose, without those
    that have no check; and how often each kind without one occurs."""
    rows = [row for row in rows if 'followed' in row]
    found = {}
    for name, key in (('strict', 'followed'), ('loose', 'loosely')):
        whole = [all(row[key]) for row in rows if not row['unsupported']]
        single = [good for row in rows for good in row[key] if good is not None]
        found[f'prompts_{name}'] = sum(whole) / max(1, len(whole))
        found[f'instructions_{name}'] = sum(single) / max(1, len(single))
    missing = collections.Counter(kind for row in rows for kind in row['unsupported'])
    return found | {'unsupported': dict(missing)} if rows else {}
