"""What programs return and change means to the tests what it means in Python, and no object of a program
decides what the tests expect."""
import time

import pytest
from conftest import ok, read_json, read_rows, run, write

from extras.sandbox import run_code, run_many

# A right program, what makes it a wrong one (old => new), and tests.
PROGRAMS = r"""
=== a generator
def evens(n):
    for i in range(0, n, 2): yield i
--- range(0 => range(2
assert list(evens(5)) == [0, 2, 4] and sum(evens(900)) == 202050
=== next
def evens(n):
    for i in range(0, n, 2): yield i
--- n, 2 => n, 3
g = evens(4)
assert next(g) == 0 and next(g) == 2
assert next(g, 7) == 7
=== an infinite generator
def evens():
    i = 0
    while True:
        yield i
        i += 2
--- i += 2 => i += 3
import itertools, types
assert [*itertools.islice(evens(), 300)] == [*range(0, 600, 2)] and isinstance(evens(), types.GeneratorType)
=== a generator that returns, and gets a value
def g():
    x = yield 1
    yield x
    return 7
--- return 7 => return 8
i = g()
assert next(i) == 1 and i.send(5) == 5
try: next(i)
except StopIteration as e: assert e.value == 7
=== an error in a generator
def g():
    yield 1
    raise KeyError('k')
--- 'k' => 'l'
i = g()
assert next(i) == 1
try: next(i)
except KeyError as e: assert e.args == ('k',)
=== lazy builtins
def f(x): return map(str, x), zip(x, x), filter(None, x), reversed(x), enumerate(x)
--- str => float
m, z, f, r, e = f([0, 1])
assert isinstance(m, map) and [*m] == ['0', '1'] and [*z] == [(0, 0), (1, 1)] and [*f] == [1]
assert tuple(r) == (1, 0) and dict(e) == {0: 0, 1: 1}
=== a class
class Stack:
    def __init__(self): self.items = []
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
--- pop() => pop(0)
s = Stack()
s.push(1)
s.push(2)
assert s.pop() == 2
=== special methods
class Stack:
    def __init__(self, *items): self.items = items
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, i): return self.items[i]
    def __eq__(self, other): return isinstance(other, Stack) and self.items == other.items
    def __repr__(self): return f'Stack{self.items}'
--- == other.items => != other.items
s = Stack(1, 2)
assert [*s] == [1, 2] and 2 in s and 3 not in s and s[1] == len(s) == 2 and s and not Stack()
assert repr(s) == str(s) == 'Stack(1, 2)' and s != Stack() and Stack(1, 2) == s
=== attributes
class Stack:
    kind = 'stack'
    def __init__(self, *items): self.items = [*items]
    def push(self, x):
        self.items.append(x)
        return self
--- 'stack' => 'heap'
s = Stack(1)
s.items.append(9)
s.name = 'n'
assert s.push(3) is s and vars(s) == {'items': [1, 9, 3], 'name': 'n'}
assert type(s) is Stack and isinstance(s, Stack) and s.kind == Stack.kind == 'stack'
=== inheritance in the program
class Animal:
    def name(self): return type(self).__name__
    def cry(self): return self.name() + self.noise()
class Dog(Animal):
    def noise(self): return '!'
--- '!' => '?'
assert Dog().cry() == 'Dog!' and isinstance(Dog(), Animal) and issubclass(Dog, Animal)
=== operators
class V:
    def __init__(self, x): self.x = x
    def __add__(self, other): return V(self.x + getattr(other, 'x', other))
    def __mul__(self, other): return V(self.x * other.x)
    def __eq__(self, other): return isinstance(other, V) and self.x == other.x
    def __lt__(self, other): return self.x < other.x
    def __hash__(self): return hash(self.x)
    def __abs__(self): return abs(self.x)
--- * other.x => + other.x
assert V(1) + V(2) == V(3) and V(2) * V(3) == V(6) and (V(2) * V(3)).x == 6
assert max(V(1), V(5)).x == 5 and len({V(1), V(1)}) == 1 and abs(V(-2)) == 2
=== context managers
import contextlib
class Log:
    def __enter__(self):
        self.seen = ['in']
        return self
    def __exit__(self, kind, error, where):
        self.seen.append('out' if error is None else str(error))
        return kind is ZeroDivisionError
@contextlib.contextmanager
def five(): yield 5
--- 'out' => 'end'
with Log() as log: assert log.seen == ['in']
assert log.seen == ['in', 'out']
with log: 1 / 0
assert log.seen[1] == 'division by zero'
with five() as v: assert v == 5
=== sorting in place
def f(a): a.sort()
--- a.sort() => sorted(a)
a = [2, 1]
assert f(a) is None and a == [1, 2]
=== changes in nested arguments
def f(d, s, x):
    d['k'].append(1)
    s.add(3)
    x[0].append(x[1])
    del d['z']
--- del d['z'] => pass
d, s, x = {'k': [0], 'z': 1}, {1}, [[], [5]]
k = d['k']
f(d, s, x)
assert d == {'k': [0, 1]} and s == {1, 3} and x == [[[5]], [5]] and x[0][0] is x[1] and d['k'] is k
=== one list twice
def f(a, b):
    a.append(1)
    return b
--- return b => return [*b]
a = []
assert f(a, a) is a and a == [1]
=== a list in itself
def f(a): a.append(a)
--- append(a) => append(1)
a = []
f(a)
assert a[0] is a
=== a default argument that all calls share
def f(x, to=[]):
    to.append(x)
    return to
--- to=[] => to=[0]
a = f(1)
assert f(2) is a and a == [1, 2]
=== a default argument that no two calls share
def f(x, to=None):
    to = [] if to is None else to
    to.append(x)
    return to
--- to=None => to=[]
a = f(1)
f(2)
assert a == [1]
=== a list that an object keeps
class Log:
    def __init__(self, to): self.to = to
    def log(self, x): self.to.append(x)
--- self.to = to => self.to = [*to]
out = []
log = Log(out)
log.log(1)
log.log(2)
assert out == [1, 2]
=== objects of the tests
def reverse(head):
    last = None
    while head: head.next, last, head = last, head, head.next
    return last
--- return last => return last.next
class Node:
    def __init__(self, v, next=None): self.v, self.next = v, next
a = Node(1, Node(2))
b = a.next
assert reverse(a) is b and b.next is a and a.next is None
=== functions of the tests
def f(g, xs): return [g(x) for x in xs]
def by(xs, key): return sorted(xs, key=key)
--- in xs] => in xs[1:]]
out = []
f(out.append, [1, 2])
assert out == [1, 2] and f(lambda x: x + 1, [1]) == [2] and f(abs, [-1]) == [1]
assert by(['B', 'a'], str.lower) == ['a', 'B'] and by([3, -1], lambda x: x) == [-1, 3]
=== an error in a function of the tests
def safely(f):
    try: return f()
    except ZeroDivisionError: return 'zero'
--- 'zero' => 0
assert safely(lambda: 1 / 0) == 'zero'
try: safely(lambda: {}['k'])
except KeyError as e: assert e.args == ('k',)
=== an iterator of the tests
def take(it, n): return [next(it) for _ in range(n)]
--- range(n) => range(n - 1)
it = iter(range(9))
assert take(it, 3) == [0, 1, 2] and next(it) == 3
=== closures
import functools
def adder(n): return lambda x: x + n
def power(): return functools.partial(pow, 2)
--- x + n => x - n
assert adder(2)(3) == 5 and power()(5) == 32 and callable(adder(1))
=== decorators
import functools
def twice(f):
    @functools.wraps(f)
    def g(*args, **more): return f(*args, **more) * 2
    return g
--- * 2 => * 3
@twice
def h(x, y=1):
    'doc'
    return x + y
assert h(1) == 4 and h(1, y=2) == 6 and h.__name__ == 'h' and h.__doc__ == 'doc'
=== exceptions
class E(ValueError):
    def __init__(self, code):
        super().__init__(f'code {code}')
        self.code = code
def f(): raise E(3)
--- self.code = code => self.code = 0
try: f()
except E as e: assert str(e) == 'code 3' and e.code == 3
assert issubclass(E, ValueError) and E(5).code == 5
try: raise E(1)
except ValueError: pass
=== kinds of values
def f(x): return x
--- return x => return [x]
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo
for value in [
        Fraction(1, 3), Decimal('1.10'), date(2020, 1, 2), time(1, 2), datetime(2020, 1, 2, 3, 4, 5, 6),
        datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2020, 1, 1, tzinfo=ZoneInfo('UTC')),
        timedelta(1, 2, 3), deque([1, 2], 3), OrderedDict(a=1), Counter('aab'), defaultdict(list, a=[1]), 1j,
        b'a', bytearray(b'a'), frozenset([1]), range(3), slice(1), 10 ** 5000, -10 ** 20, 1e999, None, ...,
        {}.keys(), {1: 2}.keys(), {1: 2}.items(), int, ValueError, [[]] * 2, {(1,): {2}}, '\ud800']:
    same = f(value)
    assert same == value and type(same) is type(value), value
nan = f(float('nan'))
assert nan != nan and list(f({1: 2}.values())) == [2]
assert f(deque([], 3)).maxlen == 3 and f(defaultdict(list))['new'] == []
=== records
from collections import namedtuple
from dataclasses import dataclass
P = namedtuple('P', 'x y')
@dataclass
class D:
    x: int
    y: int = 2
def first(): return P(1, 2), D(1)
--- P(1, 2) => P(2, 1)
import dataclasses
p, d = first()
assert p == (1, 2) == P(1, 2) and p.x == p[0] == 1 and isinstance(p, tuple) and P._fields == ('x', 'y')
assert d == D(1) != D(2) and d != (1, 2) and repr(d) == 'D(x=1, y=2)' and d.x == 1
assert dataclasses.asdict(d) == {'x': 1, 'y': 2} and dataclasses.replace(d, x=4).x == 4
=== enumerations
from enum import Enum, IntEnum
class C(Enum):
    RED = 1
    BLUE = 2
class I(IntEnum): A = 5
def red(): return C.RED
--- return C.RED => return C.BLUE
c = red()
assert c is C.RED == C(1) and c.name == 'RED' and C['BLUE'].value == len(C) == 2 and [*C][0] is c
assert I.A == 5 and I.A + 1 == 6 and {c: 1}[C.RED] == 1
=== a class derived from dict, another from list
class D(dict):
    __getattr__ = dict.__getitem__
    def total(self): return sum(self.values())
class L(list):
    def second(self): return self[1]
--- sum => max
d = D(a=1)
d['b'] = 2
assert d.a == 1 and d.total() == 3 and 'b' in d and isinstance(d, dict) and d == {'a': 1, 'b': 2}
x = L([1])
x.append(2)
assert x == [1, 2] and x.second() == 2 and [*x, 3] == [1, 2, 3]
=== a global variable
n = 0
def f():
    global n
    n += 1
--- += 1 => += 2
f()
f()
assert n == 2
=== names of arguments that are also ours
def f(operation, name=0, thing=0, cls=0): return operation + name + thing + cls
class A:
    def __init__(me, self=0, cls=0): me.x = self + cls
    def run(me, operation, name, thing): return operation * name * thing
    def __call__(me, self): return self
--- + thing => - thing
assert f(operation=1, name=2, thing=3, cls=4) == 10 and A(self=1, cls=2).x == 3
assert A().run(operation=2, name=3, thing=4) == 24 and A()(self=5) == 5
=== send and throw that are no generator's
class Mail:
    def __init__(self): self.sent, self.throw = [], 6
    def send(self, text, to='all'):
        self.sent.append((to, text))
        return len(self.sent)
--- 'all' => 'none'
m = Mail()
assert m.send('a') == 1 and m.send(to='b', text='c') == 2 and m.throw == 6
assert m.sent == [('all', 'a'), ('b', 'c')]
=== a class with parameters
from typing import Generic, TypeVar
class Stack(Generic[TypeVar('T')]):
    def __init__(self, *items): self.items = [*items]
--- [*items] => [items]
assert Stack[int](1).items == [1]
=== the order of an OrderedDict
from collections import Counter, OrderedDict
def f(*pairs): return OrderedDict(pairs)
def g(d, c):
    d.move_to_end('a')
    c['b'] += 1
--- to_end('a') => to_end('b')
d = f(('x', 1), ('y', 2))
assert [*d] == ['x', 'y'] and d.popitem(last=False) == ('x', 1) and [*d.items()] == [('y', 2)]
d, c = OrderedDict(a=1, b=2), Counter('ab')
g(d, c)
d['c'] = 3
assert [*d] == ['b', 'a', 'c'] and [*reversed(d)] == ['c', 'a', 'b'] and c == {'a': 1, 'b': 2}
=== objects of the library and iterators of the tests
import csv
def by(xs, key): return sorted(xs, key=key)
def take(it, n): return [next(it) for _ in range(n)]
def rows(file): return [*csv.reader(file)]
--- range(n) => range(n - 1)
import functools, io, itertools, operator
class Down:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        self.n -= 1
        return self.n
assert by([(2, 'a'), (1, 'b')], operator.itemgetter(0)) == [(1, 'b'), (2, 'a')]
assert by([1, 3, 2], functools.partial(pow, -2)) == [3, 1, 2] and rows(io.StringIO('a,b')) == [['a', 'b']]
assert take(itertools.count(5), 2) == [5, 6] and take(Down(3), 2) == [2, 1]
=== errors of the library
import dataclasses, decimal, json
@dataclasses.dataclass(frozen=True)
class P: x: int
def half(x): return x / decimal.Decimal(0)
def safely(f):
    try: return f()
    except json.JSONDecodeError as e: return 'bad'
--- 'bad' => e
import dataclasses, decimal, json
try: P(1).x = 2
except dataclasses.FrozenInstanceError: pass
try: half(1)
except decimal.DivisionByZero: pass
try: safely(lambda: half(0))
except decimal.InvalidOperation: pass
assert safely(lambda: json.loads('{')) == 'bad'
=== what is printed, and what is typed
def ask():
    name = input('Who? ')
    print('Hi', name)
    return name
--- 'Hi', name => 'Hi' + name
import contextlib, io
from unittest import mock
with contextlib.redirect_stdout(io.StringIO()) as out, mock.patch('sys.stdin', io.StringIO('Eva\n')):
    assert ask() == 'Eva'
assert out.getvalue() == 'Who? Hi Eva\n'
with mock.patch('builtins.input', return_value='Bo'), mock.patch('builtins.print') as printed:
    assert ask() == 'Bo'
printed.assert_called_once_with('Hi', 'Bo')
=== a program with a check() of its own
def check(x): return x > 1
def f(x): return check(x)
--- > 1 => > 2
assert f(2)
"""


def test_right_programs_pass_and_wrong_ones_have_a_wrong_value():
    jobs, names = [], []
    for part in PROGRAMS.split('\n=== ')[1:]:
        (name, program), (change, tests) = [half.split('\n', 1) for half in part.split('\n--- ')]
        names.append(name)
        before, after = change.split(' => ')
        assert before in program, name
        jobs += [(program, tests, 'f'), (program.replace(before, after), tests, 'f')]
    results = [*run_many(jobs, timeout=10)]
    for name, right, wrong in zip(names, results[::2], results[1::2], strict=True):
        assert right.outcome == 'passed', (name, right)
        assert wrong.outcome == 'wrong', (name, wrong)


# --- what cannot be forged ----------------------------------------------------------------------------------
# Such an object wants to be whatever it is compared with.
ANYTHING = """class E(BASE):
    def __hash__(self): return 4
    def __eq__(self, other): return True
    __ne__ = lambda self, other: False
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    def __sub__(self, other): return E()
    __rsub__ = __add__ = __radd__ = __truediv__ = __mod__ = __sub__
    __abs__ = __float__ = __round__ = __neg__ = lambda self, *_: 0.0
    days = real = 0
    def total_seconds(self): return 0
    def me(self): return self
    def __enter__(self): return 5
    def __exit__(self, *_): return True
def f(x): return E()
"""
EXPECTED = """f(2) == 4; 4 == f(2); not f(2) != 4; f(2) in (4, 5); f(2) in {4: 1}; abs(f(2) - 4) < 1e-6
f(2) % 4 == 1; abs(4 - f(2)) < 1e-6; 3 < f(2) < 5; 4 in f(2); f(2) - 4 == 0; [f(2)] == [4]
(f(2) - 4).days == 0; E().me() == 4; (f(2) - 4).total_seconds() == 0
round(f(2) - 4, 7) == 0; float(f(2) - 4) == 0; {'a': f(2)} == {'a': 4}; (f(2), 1) == (4, 1)
max(f(2), 3) == 4; sum([f(2), -4]) == 0; float(f(2)) == 4; {f(2)} == {4}; f(2) is 4"""


def test_no_library_lets_a_program_compare():
    """NumPy would hand what the tests expect to these methods, and take what they return."""
    program = """class E:
    def __array_function__(self, *_): return True
    __array_ufunc__ = __torch_function__ = __array_function__
    def all(self): return True
def f(): return E()"""
    for text in 'np.allclose(f(), [2, 4])', 'np.array_equal(f(), [2])', '(np.array([2, 4]) == f()).all()':
        result = run_code(program, f'import numpy as np\nassert {text}', timeout=20)
        assert result.outcome in ('wrong', 'exception'), (text, result)


@pytest.mark.parametrize('base', ['', 'int', 'list', 'str', 'tuple', 'ValueError'])
def test_no_object_of_a_program_decides_what_the_tests_expect(base):
    program = ANYTHING.replace('(BASE)', f'({base})')
    jobs = [(program, f'assert {text}') for text in EXPECTED.replace('\n', '; ').split('; ')]
    jobs.append((program, 'with f(0):\n    assert 1 == 2'))
    for (_, tests), result in zip(jobs, run_many(jobs, timeout=10), strict=True):
        assert result.outcome in ('wrong', 'exception'), (tests, result)


def test_a_function_of_the_tests_can_be_called_and_stays_closed():
    program = """def f(g):
    for name in '__globals__', '__code__', '__closure__', '__self__', 'gi_frame':
        for operation, *more in (('getattr', name), ('special', '__getattribute__', name), ('plain',),
                                 ('run', name)):
            try: print('opened', type(g)._end.ask(operation, g, *more))
            except (AttributeError, KeyError): pass
    return g(1)"""
    result = run_code(program, 'secret = 5\nassert f(lambda x: x + 1) == 2')
    assert result.outcome == 'passed' and result.stdout == '', result
    # Nor can the program put an object of its own in the place of one that the tests handed out.
    program = """def f(g):
    end = type(g)._end
    number = end.tags[id(g)]['known']
    end.new.append({'list': [number]})"""
    result = run_code(program, 'f(lambda: 1)')
    assert result.outcome == 'exited', result
    # Nor does it get out of its verdict by asking for what cannot cross.
    tests = 'class A:\n    p = property(len)\nassert f(A()) == 1'
    result = run_code('def f(a): return type(a).p', tests)
    assert result.outcome == 'exception' and 'property' in result.message, result


# --- what cannot be judged, and what would take too long ----------------------------------------------------
def test_what_cannot_cross_is_said_and_is_no_wrong_value():
    money = """class Money:
    def __init__(self, *n): self.n = n
    def __eq__(self, other): return other == 5
    def __mul__(self, k): return Money(*self.n * k)
    __rmul__ = __add__ = __contains__ = __mul__
class L(list): pass
def g(): yield 1
"""
    for tests, outcome, words in (
            ('class More(Money): pass', 'infrastructure', 'derive More'),
            ('import pickle\npickle.dumps(Money())', 'infrastructure', 'pickle'),
            ('import copy\ncopy.copy(Money())', 'infrastructure', 'copy'),
            ('import copy\ncopy.deepcopy([Money()])', 'infrastructure', 'copy'),
            ('assert (Money(1) * 3).n', 'exception', 'compare two of its objects'),
            ('assert (3 * Money(1)).n', 'exception', 'compare two of its objects'),
            ('assert (Money(1) + 4).n', 'exception', 'compare two of its objects'),
            ('assert 4 in Money(4)', 'exception', 'compare two of its objects'),
            ('assert L([1]) + [2] == [1, 2]', 'exception', 'compare two of its objects'),
            ('i = g()\nnext(i)\ntry: i.send(1)\nexcept StopIteration: pass', 'exception', 'StopIteration'),
            ('import re\nMoney(re.compile("a"))', 'infrastructure', 'not plain data'),
            ('assert Money() == 5', 'exception', 'compare two of its objects')):
        result = run_code(money, tests)
        assert result.outcome == outcome and words in result.message, (tests, result)


def test_millions_of_digits_end_in_time():
    big = 'x = 1 << 9_000_000\ndef f(): return x'
    raw = """import os
def f():
    for fd in range(3, 99):
        try: os.write(fd, b'["returned", [' + b'7' * 3_000_000 + b'], [], []]\\n')
        except OSError: pass"""
    begin = time.monotonic()
    for program, tests, outcome in (
            (big, 'assert f() == 1 << 9_000_000', 'passed'), (big, 'assert f() == 1, f()', 'wrong'),
            (raw, 'f()', 'exited'), ('x = ' + '7' * 3_000_000, 'pass', 'syntax')):
        result = run_code(program, tests, timeout=20)
        assert result.outcome == outcome, (program[:60], result)
    assert time.monotonic() - begin < 15        # a single int() of so many digits takes longer


# --- at the command line ------------------------------------------------------------------------------------
def test_own_questions_get_right_verdicts(tmp_path):
    parts = [part.split('\n', 1)[1].split('\n--- ') for part in PROGRAMS.split('\n=== ')[1:]]
    for outcome in 'passed', 'wrong':
        questions, answers = [], []
        for i, (program, rest) in enumerate(parts):
            change, tests = rest.split('\n', 1)
            if outcome == 'wrong':
                program = program.replace(*change.split(' => '))
            questions.append({'task_id': i, 'prompt': 'Write it.', 'tests': tests, 'entry_point': 'f'})
            answers.append({'task_id': i, 'completion': f'```python\n{program}\n```'})
        data = write(tmp_path / 'own.jsonl', questions)
        given = write(tmp_path / 'answers.jsonl', answers)
        ok(run('eval.py', '--tasks=own', f'--data={data}', f'--completions={given}', '--chat=True',
               '--timeout=10', '--allow_code_execution=True', f'--out={tmp_path}/eval.json'))
        assert {row['outcome'] for row in read_rows(tmp_path / 'samples.jsonl')} == {outcome}
        assert read_json(tmp_path / 'eval.json')['tasks']['own']['pass@1'] == (outcome == 'passed')
