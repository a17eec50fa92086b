"""No code golf: what a reader would have to unpack, found by parsing."""
import ast

import pytest
from conftest import ROOT

FILES = [path for folder in ('*.py', 'parts/*/*.py', 'bench/*.py') for path in sorted(ROOT.glob(folder))]


def is_truth(node):
    """Whether an expression is True or False. `a or b` is not: it stands for a default."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in ('bool', 'isinstance', 'any', 'all')
    return (isinstance(node, ast.Compare) or isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And)
            or isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def counts_truths(node):
    """`x * (a > b)`, `n += a == b`; & and | are for arrays."""
    if isinstance(node, ast.AugAssign):
        return is_truth(node.value) and not isinstance(node.op, ast.BitAnd | ast.BitOr)
    return (isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitAnd | ast.BitOr)
            and (is_truth(node.left) or is_truth(node.right)))


def is_nested_choice(node):
    """`a if b else c if d else e`"""
    return isinstance(node, ast.IfExp) and any(map(is_choice, ast.iter_child_nodes(node)))


def is_choice(node):
    return isinstance(node, ast.IfExp)


def sets_unrelated_values(node):
    """`self.a, self.b = 1, []`: fields of an object, one after the other in a line."""
    return (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
            and any(isinstance(target, ast.Attribute) for target in node.targets[0].elts)
            and len({type(value) for value in node.value.elts}) > 2)


def assigns_in_a_loop_head(node):
    """`for x, y['a'] in ...`"""
    return isinstance(node, ast.For) and any(isinstance(t, ast.Subscript | ast.Attribute)
                                             for t in ast.walk(node.target))


RULES = counts_truths, is_nested_choice, sets_unrelated_values, assigns_in_a_loop_head


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: rule.__name__)
def test_no_line_is_packed(rule):
    packed = [f'{path.name}:{node.lineno}' for path in FILES
              for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
              if isinstance(node, ast.AST) and rule(node)]
    assert not packed


def statements_by_line(tree):
    """{line: statements that begin there}"""
    lines = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            lines.setdefault(node.lineno, []).append(node)
    return lines


def test_a_line_has_one_statement():
    for path in FILES:
        for line, statements in statements_by_line(ast.parse(path.read_text(encoding='utf-8'))).items():
            assert len(statements) == 1, (path.name, line)
    assert len(statements_by_line(ast.parse('a = 1; b = 2'))[1]) == 2
    assert len(statements_by_line(ast.parse('if a: b = 2'))[1]) == 2


@pytest.mark.parametrize('line', ['x = y * (a > b)', 'n += a == b', "t = 's' * bool(a)", 'n = a + (not b)',
                                  'a = b if c else d if e else f', 'self.a, self.b, self.c = 1, [], f(x)',
                                  "for a, a['x'] in b: pass"])
def test_each_rule_finds_what_it_is_for(line):
    assert any(rule(node) for rule in RULES for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize('line', ['x = y * (a or b)', 'keep &= a == b', 'x = a & (b == c)', 'a, b = b, a',
                                  'a = (b if c else d) + 1', 'H, D = c.n_head, c.head_dim'])
def test_no_rule_minds_the_usual(line):
    assert not any(rule(node) for rule in RULES for node in ast.walk(ast.parse(line)))
