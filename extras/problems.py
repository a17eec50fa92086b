"""
Small Python problems with unit tests, easy enough for a model of a few million parameters.

    p = problems(100, seed=0, split='train')[0]     # a dict with HumanEval's keys, and more
    to_messages(p)                                  # the same as a conversation
    p['prompt'] + p['canonical_solution']           # a program
    p['test']                                       # it defines check(candidate) for that program
    to_jsonl(problems(2500))                        # conversations for sft.py, a line each

A family is one task ("the mean of a list") with many names, wordings and constants. Three families
are composed, of steps or of filter, map and reduce; a cell is one composition. SPLITS are from easy
to hard. Hashes decide the split, not the seed: no two splits share a prompt, for any n and seed.
"""
import ast, builtins, functools, hashlib, json, keyword, random, re, textwrap
from configurator import Mistake

SPLITS = {      # by hash: (kind, which fifths of the compositions, which tenths of the prompts)
    'train': ('example tasks', (2, 3, 4), range(7)),    # SFT shows answers, short or spelled out
    'review': ('example tasks', (2, 3, 4), [7]),        # DPO and RL see prompts, tests, no answer
    'validation': ('example tasks', (2, 3, 4), [8]),    # new problems: choose settings with these
    'variation': ('example tasks', (2, 3, 4), [9]),     # report these
    'feedback': ('practice tasks', [1], range(8)),      # RL sees prompts and tests, no answer
    'feedback_validation': ('practice tasks', [1], [8]),
    'feedback_variation': ('practice tasks', [1], [9]),
    'cell': ('unseen combinations', [0], range(10)),    # of known steps; no stage sees them
    'family': ('unseen tasks', [], range(10))}          # each similar to one that is in train
KINDS = {split: kind for split, (kind, *_) in SPLITS.items()}
# Half of what is drawn for example tasks are compositions. Two fifths of those belong to other
# splits and are dropped.
COMPOSED = 0.5
# With made-up names of arguments, from which a model learns to copy names.
MADE_UP = 0.5
COMPOSED_NAMES = 'solve compute calculate process transform apply convert evaluate'.split()

# --- the families ---------------------------------------------------------------------------------
# names of the function (kinds of its arguments, some with a name that suits) solution | meaning
#     | another meaning     | the solution spelled out, where spelled_out() would not find it
# X, Y, Z are the arguments; K < M numbers from 2 to 99, D from 2 to 9, L a letter, W a word. Where
# it matters which argument is which, the meaning must say so, because the names do not.
SHOWN = r"""
area_of_rectangle (pos:length pos:width) X * Y | the area of a rectangle from its X and Y
perimeter rectangle_perimeter (pos:length pos:width) 2 * (X + Y)
    | the perimeter of a rectangle, X by Y
area_of_triangle (pos:base pos:height) X * Y / 2 | the area of a triangle with base X and height Y
celsius_to_fahrenheit (int:celsius) X * 9 / 5 + 32 | the Fahrenheit temperature for X Celsius
absolute_difference distance (int:a int:b) abs(X - Y) | the absolute difference of X and Y
    | the distance between X and Y | if X > Y:\n    return X - Y\nreturn Y - X
average_of_two midpoint (int:a int:b) (X + Y) / 2 | the average of X and Y
larger_of_two (int:a int:b) max(X, Y) | the larger of X and Y | if X > Y:\n    return X\nreturn Y
is_divisible (int:number) X % K == 0 | whether X is divisible by K | whether K divides X
is_between in_range (int:value) K <= X <= M | whether X is at least K and at most M
limit cap (int:value) min(X, K) | X, but no more than K | if X > K:\n    return K\nreturn X
discounted_price discount (pos:price) X * (100 - K) / 100
    | the price X after a discount of K percent
last_digit ones_digit (pos:number) X % 10 | the last digit of X
sum_of_digits digit_sum (pos:number) sum(int(c) for c in str(X)) | the sum of the digits of X
sign (int:number) 1 if X > 0 else -1 if X < 0 else 0 | 1 if X is positive, -1 if negative, else 0
    | if X > 0:\n    return 1\nif X < 0:\n    return -1\nreturn 0
label classify (int:score) 'pass' if X >= K else 'fail'
    | 'pass' if X is at least K, otherwise 'fail'
multiples (int:number) [X * i for i in range(1, D + 1)] | a list of the first D multiples of X
mean average (ints:numbers) sum(X) / len(X) | the mean of the numbers in X | the average of X
    | total = 0\nfor x in X:\n    total += x\nreturn total / len(X)
sum_list add_all (ints) sum(X) | the sum of all numbers in X
    | total = 0\nfor x in X:\n    total += x\nreturn total
largest maximum (ints) max(X) | the largest number in X | the maximum of a list of numbers
    | best = X[0]\nfor x in X:\n    if x > best:\n        best = x\nreturn best
last_element last_item (ints) X[-1] | the last element of X | the item at the end of the list
first_items take_first (ints) X[:D] | the first D elements of X
reverse_list backwards (ints) X[::-1] | the list X in reverse order | the elements of X backwards
    | result = []\nfor x in X:\n    result.insert(0, x)\nreturn result
sort_descending descending (ints) sorted(X, reverse=True)
    | the numbers in X from largest to smallest
remove_duplicates unique (ints) list(dict.fromkeys(X))
    | the elements of X in order, without duplicates
    | result = []\nfor x in X:\n    if x not in result:\n        result.append(x)\nreturn result
count_value how_often (ints) X.count(K) | the number of times K occurs in X | the number of K in X
    | total = 0\nfor x in X:\n    if x == K:\n        total += 1\nreturn total
count_greater (ints) sum(1 for x in X if x > K) | the number of values in X greater than K
contains has_value (ints) K in X | whether K is in X | whether the list X contains K
    | for x in X:\n    if x == K:\n        return True\nreturn False
add_to_each increase_all (ints) [x + K for x in X] | the list X with each number increased by K
replace_value (ints) [M if x == K else x for x in X] | a copy of X in which each K has become M
add_lists (ints ints) [x + y for x, y in zip(X, Y)] | the sums of the pairs of numbers from X and Y
all_greater all_above (ints) all(x > K for x in X) | whether all numbers in X are greater than K
    | for x in X:\n    if x <= K:\n        return False\nreturn True
any_less any_below (ints) any(x < K for x in X) | whether any number in X is less than K
is_sorted is_ascending (ints) X == sorted(X) | whether X is in ascending order | whether X is sorted
common_items (ints ints) [x for x in X if x in Y] | the elements of X that are also in Y, in order
count_vowels (text) sum(1 for c in X if c in 'aeiou') | the number of lowercase vowels in X
count_letter (text) X.count(L) | the number of times L occurs in X | the number of letters L in X
is_palindrome (text:word) X == X[::-1]
    | whether X is a palindrome | whether X reads the same backwards
count_words word_count (text:sentence) len(X.split()) | the number of words in X
initials (text:name) ''.join(w[0] for w in X.split()) | the first letters of the words in X
longest_word longest (words) max(X, key=len) | the longest string in X, the first of several
words_with having_letter (words) [w for w in X if L in w]
    | a list of the strings in X that contain L
starts_with begins_with (text) X.startswith(L) | whether X starts with L
remove_letter drop_letter (text) X.replace(L, '') | X without the letter L | X with every L removed
    | result = ''\nfor c in X:\n    if c != L:\n        result += c\nreturn result
sum_of_values total_value (dict) sum(X.values()) | the sum of the values in X
best_key winner (dict) max(X, key=X.get) | the key of the largest value in X, the first of several
count_items tally (words) {w: X.count(w) for w in X} | a dictionary of how often each word is in X
keys_above (dict) [k for k, v in X.items() if v > K] | a list of the keys of X with a value above K
"""
UNSEEN = r"""
area_of_square square_area (pos:side) X * X | the area of a square with side X
fahrenheit_to_celsius (int:fahrenheit) (X - 32) * 5 / 9 | the Celsius temperature for X Fahrenheit
average_of_three mean_of_three (int:a int:b int:d) (X + Y + Z) / 3 | the average of X, Y and Z
smaller_of_two (int:a int:b) min(X, Y) | the smaller of X and Y | if X < Y:\n    return X\nreturn Y
raised_price add_tax (pos:price) X * (100 + K) / 100 | the price X raised by K percent
smallest minimum (ints) min(X) | the smallest number in X | the minimum of a list of numbers
last_items take_last (ints) X[-D:] | the last D elements of X
subtract_from_each (ints) [x - K for x in X] | the list X with each number decreased by K
any_greater any_above (ints) any(x > K for x in X) | whether any number in X is greater than K
missing_items (ints ints) [x for x in X if x not in Y]
    | the elements of X that are not in Y, in order
remove_vowels (text) ''.join(c for c in X if c not in 'aeiou') | X without its lowercase vowels
ends_with has_last_letter (text) X.endswith(L) | whether X ends with L
keys_below (dict) [k for k, v in X.items() if v < K] | a list of the keys of X with a value below K
"""
# composed: meaning -> code, in which _ is the result of the part before
FILTERS = {'even numbers': 'x % 2 == 0', 'odd numbers': 'x % 2 == 1', 'positive numbers': 'x > 0',
           'negative numbers': 'x < 0', 'numbers above K': 'x > K', 'numbers below K': 'x < K',
           'numbers divisible by D': 'x % D == 0', 'numbers other than K': 'x != K'}
MAPS = {'': 'x', 'squares': 'x * x', 'cubes': 'x ** 3', 'doubles': 'x * 2',
        'absolute values': 'abs(x)'}
REDUCES = {'the sum of': 'sum(_)', 'a list of': '[_]', 'a sorted list of': 'sorted(_)',
           'the largest (or 0) of': 'max([_], default=0)'}
STEPS = {
    'int': {'add K': '(_) + K', 'subtract K': '(_) - K', 'multiply by K': '(_) * K',
            'negate it': '-(_)', 'square it': '(_) ** 2', 'floor-divide by D': '(_) // D',
            'take it modulo K': '(_) % K'},
    'text': {'reverse it': '(_)[::-1]', 'convert it to upper case': '(_).upper()',
             'append W': '(_) + W', 'remove its spaces': "(_).replace(' ', '')",
             'repeat it D times': '(_) * D', 'keep its first D characters': '(_)[:D]',
             'drop its first character': '(_)[1:]'}}
FRAMES = {  # docstrings, by the first word of the meaning; for any other word, Return _ and Give _
    'whether': ('Return whether _.', 'Check whether _.', 'Return True if _, otherwise False.'),
    'the': ('Return the _.', 'Return the _.', 'Compute the _.', 'Find the _.', 'Get the _.')}
NAMES = {   # of arguments, by kind; a tenth, by hash, is never drawn: see argument_names()
    'int': 'n number value num a b m integer p q j current given start amount z first year degree',
    'ints': 'numbers values nums data items list1 elements array a b lst scores prices points results',
    'text': 's text string t message phrase content source chars st title label line p sentence comment',
    'words': 'words names strings items lines tokens labels titles terms texts entries data a lst',
    'dict': 'd mapping table scores prices ages stock counts inventory data m amounts votes'}
TAKEN = {*'x y w c i k v total result best'.split(), *keyword.kwlist, *dir(builtins)}
WORDS = 'a apple Anna bee egg ear grass lemon level net noon Paris radar rain stars tent tree'.split()


@functools.cache
def bucket(text, n):
    """Return one of n numbers, which the text alone decides: hash() differs between processes."""
    return int(hashlib.sha256(text.encode('utf-8')).hexdigest(), 16) % n


def spelled_out(expression):
    """Return an expression as statements: a comprehension as a loop, anything else in two steps.

    sum(x * x for x in a) -> total = 0, for x in a: total += x * x, return total"""
    source = functools.partial(ast.get_source_segment, expression)
    gather = {'sum': ('total', '0', 'total += _'), "''.join": ('result', "''", 'result += _')}
    for node in ast.walk(ast.parse(expression)):            # the outermost first
        call = source(node.func) if isinstance(node, ast.Call) else ''
        loop = node.args[0] if call in gather else node
        if isinstance(loop, ast.ListComp | ast.GeneratorExp):
            name, start, step = gather.get(call, ('result', '[]', 'result.append(_)'))
            each = loop.generators[0]
            step = step.replace('_', source(loop.elt))
            if each.ifs:
                step = f'if {source(each.ifs[0])}:\n        {step}'
            rest = expression.replace(source(node), f'({name})' if source(node)[0] == '(' else name)
            return (f'{name} = {start}\nfor {source(each.target)} in {source(each.iter)}:\n'
                    f'    {step}\nreturn {rest}')
    return f'result = {expression}\nreturn result'


@functools.cache
def plain(table):
    """Return the entries of a table: [(family, cell, names of the function, kinds of its arguments,
    meanings, expression, the same spelled out)]."""
    families = []
    for entry in re.split(r'\n(?=\w)', table.strip()):
        head, *meanings = re.split(r'\s+\| ', entry)
        names, kinds, expression = re.fullmatch(r'([\w ]+) \((.+?)\) (.+)', head).groups()
        spelled = meanings.pop() if 'return ' in meanings[-1] else spelled_out(expression)
        spelled = spelled.replace(r'\n', '\n')
        names = names.split()
        families.append((names[0], names[0], names, kinds.split(), meanings, expression, spelled))
    return families


def composed(rng, fifths):
    """Draw an entry of the same form: a composition, with its constants filled in. None if it is
    not of these fifths of the compositions."""
    family = rng.choice(['ints', *STEPS])
    if family == 'ints':
        parts = [rng.choice(list(table.items())) for table in (FILTERS, MAPS, REDUCES)]
    else:
        parts = rng.sample(list(STEPS[family].items()), rng.choice([2, 2, 3]))
    filled = [fill(rng, *part) for part in parts]       # each with constants of its own
    cell = ' / '.join([family, *(part for part, _ in parts)])
    if bucket(cell, 5) not in fifths:
        return None
    if family == 'ints':
        (some, test), (what, value), (how, code) = filled
        expression = code.replace('_', f'{value} for x in X if {test}')
        meaning = f'{how} the {what and what + " of the "}{some} in X'
        spelled = spelled_out(expression)
    else:
        expression = functools.reduce(lambda inner, part: part[1].replace('_', inner), filled, 'X')
        # without the parentheses that it does not need
        expression = ast.unparse(ast.parse(expression))
        meaning = f'X after these steps: {", then ".join(step for step, _ in filled)}'
        spelled = ''.join(f'X = {code.replace("(_)", "X")}\n' for _, code in filled) + 'return X'
    return f'composed_{family}', cell, COMPOSED_NAMES, [family], [meaning], expression, spelled


def fill(rng, *texts):
    """Return the texts with K, M, D, L and W replaced, by the same constants in each."""
    constants = dict(zip('KM', sorted(rng.sample(range(2, 100), 2))), D=rng.randint(2, 9),
                     L=rng.choice('aenrst'), W=rng.choice(WORDS))
    return [re.sub(r'\b[KMDLW]\b', lambda m: repr(constants[m[0]]), text) for text in texts]


def argument_names(rng, kinds):
    """Draw a name for each argument, from the pools or made up of letters and syllables. Names of
    one bucket of ten are left out, so that you can ask a model about names that it has not met."""
    names = []
    made_up = rng.random() < MADE_UP
    while len(names) < len(kinds):
        kind, _, own = kinds[len(names)].partition(':')
        long = ''.join(rng.choice('bdfgklmnprstvz') + rng.choice('aeiou') for _ in range(4))
        short = ''.join(rng.choices('abcdefghjklmnpqrstuvz', k=rng.randint(1, 3)))
        pool = NAMES[kind.replace('pos', 'int')].split()
        if own:                                         # the name that suits this function
            pool += [own] * 20
        if made_up:
            pool = [long[:rng.randint(4, 8)], short, f'{long[:4]}_{short}']
        pool = [p for p in pool if p not in TAKEN and p not in names and bucket(p, 10) != 0]
        if pool:
            names.append(rng.choice(pool))
        else:
            made_up = True
    return names


def draw_input(rng, kind, near, edge=None):
    """Draw an argument of a kind. Half of the numbers are from `near`. edge: the only number of an
    int or ints."""
    number = lambda: rng.choice(near) if rng.random() < 0.5 else rng.randint(-50, 99)
    if kind == 'ints':
        values = rng.choices([number() for _ in range(5)], k=rng.choice([1, 2, 3, 4, 6, 12]))
        if edge is not None:
            return [edge]
        return sorted(values) if rng.random() < 0.2 else values
    if kind in ('int', 'pos'):
        value = number() if edge is None else edge
        return value if kind == 'int' else abs(value) or 1
    words = rng.choices(WORDS, k=rng.randint(1, 4))
    palindrome = words[0] + words[0][::-1]
    text = ' '.join(words[:3]) if rng.random() < 0.9 else palindrome
    return {'words': words, 'text': text, 'dict': {word: number() for word in words}}[kind]


def write_test(rng, kinds, names, expression):
    """Return asserts of the reference's results: at and beside its constants, then for inputs with
    new results."""
    edges = sorted({int(n) + d for n in re.findall(r'\b\d+\b', expression) for d in (-1, 0, 1)})
    function = eval(f'lambda {", ".join(names)}: {expression}')
    # (not of an edge?, how often its result was met, the line): edges and new results come first
    cases = []
    results = []
    for edge in (edges or [7]) + [None] * 80:
        inputs = [draw_input(rng, kind, edges or range(-2, 6), edge) for kind in kinds]
        result = function(*inputs)
        call = f'candidate({", ".join(map(repr, inputs))})'
        line = f'{call} == {result!r}'
        if isinstance(result, float):
            line = f'abs({call} - {result}) < 1e-6'
        known = results.count(result)
        if result in inputs:
            known += 1
        cases.append((edge is None, known, f'    assert {line}\n'))
        results.append(result)
    lines = dict.fromkeys(line for *_, line in sorted(cases, key=lambda case: case[:2]))
    return 'def check(candidate):\n' + ''.join(list(lines)[:len(edges) + 12])


def draw(rng, split, with_test):
    """Return a problem, or None if the one drawn belongs to another split."""
    kind, fifths, tenths = SPLITS[split]
    if kind == 'example tasks':
        compose = rng.random() < COMPOSED
    else:
        compose = split != 'family'
    if compose:
        entry = composed(rng, fifths)
    else:
        entry = rng.choice(plain(UNSEEN if split == 'family' else SHOWN))
    if not entry:
        return None
    family, cell, functions, kinds, meanings, expression, spelled = entry
    start, _, rest = rng.choice(meanings).partition(' ')
    frames = FRAMES.get(start, (f'Return {start} _.', f'Give {start} _.'))
    doc = rng.choice(frames).replace('_', rest)
    names = argument_names(rng, kinds)
    doc, *bodies = [re.sub(r'\b[XYZ]\b', lambda m: names['XYZ'.index(m[0])], text)
                    for text in fill(rng, doc, f'return {expression}', spelled)]
    function = rng.choice([name for name in functions if name not in names])
    prompt = f'def {function}({", ".join(names)}):\n    """{doc}"""\n'
    if bucket(prompt, 10) not in tenths:
        return None
    kinds = [kind.partition(':')[0] for kind in kinds]
    tests = {}
    if with_test:
        expression = bodies[0].removeprefix('return ')
        tests['test'] = write_test(random.Random(prompt), kinds, names, expression)
    bodies = [textwrap.indent(body, '    ') + '\n' for body in bodies]
    return {'family': family, 'cell': cell, 'split': split, 'prompt': prompt,
            'entry_point': function, 'canonical_solution': rng.choice(bodies), **tests,
            'solutions': bodies, 'kinds': kinds}


def problems(n, seed=0, split='train', with_tests=True):
    """Return n dicts with different prompts; a larger n begins with the same ones. Of `solutions`
    the preferred one is first. Tests are most of the work: examples for SFT need none.
    ValueError if there are fewer than n."""
    if split not in SPLITS:
        raise Mistake(f'{split!r} is no split of the problems; --splits takes '
                      f'{", ".join(SPLITS)}')
    rng = random.Random(f'{split} {seed}')
    drawn = {}
    for _ in range(1000 + 100 * n):
        if len(drawn) == n:
            return list(drawn.values())
        problem = draw(rng, split, with_tests)
        if problem and problem['prompt'] not in drawn:
            drawn[problem['prompt']] = {'task_id': f'{split}-{seed}/{len(drawn)}', **problem}
    raise Mistake(f'there are only {len(drawn):,} of {n:,} problems of {split}; ask for fewer')


def to_messages(problem):
    """Return a problem as a conversation: one of two ways to ask, then the function."""
    signature = re.findall('^def .*', problem['prompt'], re.M)[-1]
    _, *doc = problem['prompt'].split('"""')
    ask = [f'Complete:\n{problem["prompt"].rstrip()}'] * 2
    if doc:
        ask[1] = f'Write {signature[4:-1]}. {doc[0]}'
    answer = f'{signature}\n{problem["canonical_solution"].rstrip()}'
    return [{'role': 'user', 'content': ask[bucket('ask ' + problem['prompt'], 2)]},
            {'role': 'assistant', 'content': answer}]


def to_jsonl(some):
    """Return problems as text, a line each, with its conversation: sft.py trains on that."""
    return ''.join(json.dumps({**p, 'messages': to_messages(p)}) + '\n' for p in some)


def preferred(code):
    """Return whether the body is a single line that returns: a style that a program can measure."""
    lines = [line.strip() for line in code.split('\n')
             if not re.match(r'\s*(def |"""|#|```|$)', line)]
    return len(lines) == 1 and lines[0].startswith('return ')
