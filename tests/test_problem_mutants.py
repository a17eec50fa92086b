"""Mutants: a solution wrong in a usual way fails the unit tests. Without this, pass@1 means little."""
import ast
import collections
import copy
import random
import re

from parts.eval import problems as P

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv,
         ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
         ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
         ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}
FLIPS = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
CALLS = {'min': 'max', 'max': 'min', 'any': 'all', 'all': 'any', 'sum': 'len', 'sorted': 'list',
         'abs': 'int', 'startswith': 'endswith', 'endswith': 'startswith', 'upper': 'lower'}


def changes(node):
    """What may be put in the place of one node."""
    if isinstance(node, ast.BinOp | ast.AugAssign):
        yield from [{'op': SWAPS[type(node.op)]()}] if type(node.op) in SWAPS else []
        if isinstance(node, ast.BinOp):
            yield {'left': node.right, 'right': node.left}
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for table in SWAPS, FLIPS:
                if type(op) in table:
                    yield {'ops': [*node.ops[:i], table[type(op)](), *node.ops[i + 1:]]}
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield from ({'value': node.value + d} for d in (-1, 1))
    if isinstance(node, ast.Constant) and type(node.value) is bool:
        yield {'value': not node.value}
    if isinstance(node, ast.Constant) and type(node.value) is str:
        yield {'value': node.value + 'z'}
    if isinstance(node, ast.Name) and node.id in CALLS:
        yield {'id': CALLS[node.id]}
    if isinstance(node, ast.Attribute) and node.attr in CALLS:
        yield {'attr': CALLS[node.attr]}
    if isinstance(node, ast.Call) and len(node.args) == 2:
        yield {'args': node.args[::-1]}
    if isinstance(node, ast.IfExp):
        yield {'body': node.orelse, 'orelse': node.body}
    if isinstance(node, ast.comprehension) and node.ifs:
        yield {'ifs': []}
    if isinstance(node, ast.If):
        yield {'test': ast.Constant(True)}
        yield {'test': ast.UnaryOp(ast.Not(), node.test)}
    if isinstance(node, ast.Slice):
        for bound in 'lower', 'upper':
            if getattr(node, bound):
                yield {bound: ast.BinOp(getattr(node, bound), ast.Add(), ast.Constant(1))}
    if isinstance(node, ast.UnaryOp):
        yield {'op': ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()}


def mutants(problem, body):
    """All programs that differ from the solution in one place, and the laziest ones."""
    source = problem['prompt'] + body
    tree = ast.parse(source)
    for i, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            other = copy.deepcopy(tree)
            for field, value in change.items():
                setattr(list(ast.walk(other))[i], field, copy.deepcopy(value))
            yield ast.unparse(ast.fix_missing_locations(other))
    names = [a.arg for a in tree.body[0].args.args]
    for value in [*names, *"None True False 0 1 '' []".split(), f'list({names[0]})', f'len({names[0]})']:
        yield problem['prompt'] + f'    return {value}\n'
    if len(names) > 1:
        yield source.replace(f'({names[0]}, {names[1]}', f'({names[1]}, {names[0]}', 1)


def run(code, name, *calls):
    """The function's results, an exception being one."""
    scope = {}
    exec(code, scope)
    results = []
    for inputs in calls:
        try:
            results.append(scope[name](*copy.deepcopy(inputs)))
        except Exception as e:
            results.append(type(e).__name__)
    return results


def passes(problem, code):
    try:
        exec(f'{code}\n\n{problem["test"]}\ncheck({problem["entry_point"]})\n', {})
        return True
    except Exception:
        return False


def same(a, b):
    number = int, float, bool
    return all(abs(x - y) < 1e-6 if type(x) in number and type(y) in number else
               type(x) is type(y) and x == y for x, y in zip(a, b))


def wide(rng, kind):
    """Inputs that problems.py does not draw: what nothing it draws tells apart may differ on these."""
    words = [''.join(rng.choices('aeinrstEA', k=rng.randint(1, 12))) for _ in range(rng.randint(1, 6))]
    return {'int': rng.randint(-500, 500), 'pos': rng.randint(1, 500),
            'text': ' '.join(words), 'words': words,
            'ints': [rng.randint(-200, 200) for _ in range(rng.randint(2, 20))],
            'dict': {word: rng.randint(-200, 200) for word in words}}[kind]


def judge(seed):
    """{family: [rejected, equivalent, survived]} of a sample of each family, and the survivors."""
    by_family = collections.defaultdict(list)
    for p in P.problems(700, seed) + P.problems(120, seed, 'family') + P.problems(40, seed, 'cell'):
        by_family[p['family']].append(p)
    counts, survivors = {}, []
    for family, found in by_family.items():
        count = counts[family] = [0, 0, 0]
        for p in found[:12 if family.startswith('composed') else 2]:
            rng, name = random.Random(0), p['entry_point']
            near = [int(n) + d for n in re.findall(r'\d+', p['solutions'][0]) for d in (-1, 0, 1)]
            calls = [[P.draw_input(rng, kind, near or range(-3, 9)) for kind in p['kinds']]
                     for _ in range(150)]
            calls += [[P.draw_input(rng, kind, [n], n) for kind in p['kinds']] for n in near]
            calls += [[wide(rng, kind) for kind in p['kinds']] for _ in range(50)]
            truth = run(p['prompt'] + p['solutions'][0], name, *calls)
            for code in (code for body in p['solutions'] for code in mutants(p, body)):
                outcome = 0 if not passes(p, code) else 1 if same(truth, run(code, name, *calls)) else 2
                count[outcome] += 1
                survivors += [f'{code}\n{p["test"]}'] if outcome == 2 else []
    return counts, survivors


def test_wrong_mutants_are_rejected():
    counts, survivors = judge(seed=11)
    rejected, equivalent, survived = map(sum, zip(*counts.values()))
    print(f'{rejected:,} mutants rejected, {equivalent} equivalent, {survived} survived')
    assert len(counts) >= 63 and min(count[0] for count in counts.values()) >= 15
    assert rejected > 4000 and equivalent < 0.15 * rejected     # such as 2 * x == x * 2
    # not 0: inputs are drawn, and now and then none of a problem's tells two functions apart
    assert survived <= 0.001 * rejected, '\n\n'.join(survivors[:10])
