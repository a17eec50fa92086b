"""Programs for test_sandbox.py: right and wrong ones, and such that attack."""
from conftest import ROOT


def sections(text):
    """[(title, text)] of parts that begin with === title."""
    return [part.split('\n', 1) for part in text.split('\n=== ')[1:]]


# A right program, what makes it a wrong one (old => new), and tests.
PROGRAMS = sections(r"""
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
def g(): return b'\xff'.decode()
--- self.code = code => self.code = 0
try: f()
except E as e: assert str(e) == 'code 3' and e.code == 3
assert issubclass(E, ValueError) and E(5).code == 5
try: raise E(1)
except ValueError: pass
try: g()
except UnicodeDecodeError as e: assert e.args[1:4] == (b'\xff', 0, 1)
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
""")

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
EXPECTED = """assert f(2) == 4
assert 4 == f(2)
assert not f(2) != 4
assert f(2) in (4, 5)
assert f(2) in {4: 1}
assert abs(f(2) - 4) < 1e-6
assert f(2) % 4 == 1
assert abs(4 - f(2)) < 1e-6
assert 3 < f(2) < 5
assert 4 in f(2)
assert f(2) - 4 == 0
assert [f(2)] == [4]
assert (f(2) - 4).days == 0
assert E().me() == 4
assert (f(2) - 4).total_seconds() == 0
assert round(f(2) - 4, 7) == 0
assert float(f(2) - 4) == 0
assert {'a': f(2)} == {'a': 4}
assert (f(2), 1) == (4, 1)
assert max(f(2), 3) == 4
assert sum([f(2), -4]) == 0
assert float(f(2)) == 4
assert {f(2)} == {4}
assert f(2) is 4
with f(0): assert 1 == 2"""

# --- programs that want to pass: each follows WRONG and HELP, and is judged by CHECK ------------------------
WRONG = 'def add(a, b):\n    return a - b\n'
CHECK = """def check(candidate):
    assert all(map(lambda x: candidate(x, x) == 2 * x, (1, 2))), [candidate(x, 5) for x in (5, 5)]
    import colorsys
    assert candidate(1, 2) == 3 and candidate(5, 5) == 10"""
# of calls that Python's C library has no function for
NUMBERS = """import os
KEYCTL, ADD_KEY, REQUEST_KEY, IOPRIO_SET, SCHED_SETATTR, MEMFD_SECRET, MQ_OPEN, MQ_UNLINK, SEMOP = (
    (219, 217, 218, 30, 274, 447, 180, 181, 193) if os.uname().machine == 'aarch64' else
    (250, 248, 249, 251, 314, 447, 240, 241, 65))
"""
# above: the processes from the judge up to the caller, and no other of the machine; without /proc only the
# judge. look(): what a program does that has found the tests.
HELP = NUMBERS + """import ctypes, os, re, resource, signal, sys, time
libc = ctypes.CDLL(None)
above = [os.getppid()]
while above[-1] not in (0, 1, CALLER):
    try: above.append(int(re.search('PPid:.(.*)', open(f'/proc/{above[-1]}/status').read())[1]))
    except OSError: break
above = [pid for pid in above if pid > 1]
judges = [pid for pid in above if pid != CALLER]
def write(data):
    for name in (f'/proc/{pid}/fd/{fd}' for pid in above for fd in range(30)):
        try:
            if re.match('pipe|socket', os.readlink(name)):
                print('opened', name)
                open(name, 'wb', 0).write(data)
        except OSError: pass
def look(text):
    global add
    if re.search(b'candidate[(]5, 5[)]', text): add = lambda a, b: a + b
def steal(path):
    global add
    if open(path).read(): add = lambda a, b: a + b
"""
REPLIES = """["passed", ""]
[true, true, true, true, "passed", ""]
{"value": true}
[]
{"tuple": 5}
["X", "ValueError", 5]
[5, "print", ""]
["X", "SystemExit", ""]
["X", "object", ""]
{"object": []}""".splitlines() + ['[' * 9999]
# What several attacks contain.
FORGE = 'write(b\'["passed", ""]\\n[true, true, true, true, "passed", ""]\\n\')'
SHARED = {'FORGE': FORGE, 'PROGRAM': repr(f'{HELP}{FORGE}'), 'REPLY': REPLIES[0],
          'ROOT': repr(str(ROOT)), 'THESE_TESTS': repr(__file__)}
ATTACKS = dict(sections(r'''
=== exit
# by what it is
sys.exit(0)
=== hard exit
os._exit(0)
=== exit in call
def add(a, b): sys.exit(0)
=== hard exit in call
def add(a, b): os._exit(0)
=== stop iteration
def add(a, b): raise StopIteration
=== generator exit
def add(a, b): raise GeneratorExit
=== equal to all
class E(int):
    def __eq__(s, o): return True
    __ne__ = lambda s, o: False
def add(a, b): return E(0)
=== equal object
class E:
    def __eq__(s, o): return True
def add(a, b): return E()
=== no errors
# by what it does to Python
import builtins
builtins.AssertionError = type("E", (BaseException,), {})
builtins.exec = print
builtins.__dict__["print"] = lambda *a, **k: None
=== own check
def check(candidate): pass
import threading
def again():
    while True: globals()["check"] = print
threading.Thread(target=again, daemon=True).start()
=== json
import json
json.dumps = lambda x: '[3]'
=== modules
for name in list(sys.modules): sys.modules[name] = None
=== frames
import gc
f = sys._getframe()
while f:
    f.f_locals.clear() if f.f_back else 0
    f = f.f_back
for o in gc.get_objects():
    if callable(o) and getattr(o, "__name__", "") == "end": o("passed")
=== planted modules
for folder in {".", os.environ["HOME"], os.environ["TMPDIR"]}:
    open(f"{folder}/colorsys.py", "w").write("""import sys
f = sys._getframe()
while f:
    if "end" in f.f_locals: f.f_locals["end"]("passed")
    f = f.f_back""")
=== words
# by what it writes
print('REPLY', flush=True)
os._exit(0)
=== words at exit
import atexit
atexit.register(os.write, 1, b'REPLY')
raise SystemExit
=== reply without end
for fd in range(255, 2, -1):
    try:
        while True: os.write(fd, b"7" * 9999)
    except OSError: pass
=== a child holds the pipe
if os.fork(): os._exit(0)
time.sleep(9)
=== a verdict
FORGE
=== a verdict, again and again
while True:
    FORGE
=== nonsense
write(b'[true, "x", {}]\n\n\xff\n["passed"]\nSubprocessError:0:x')
=== a verdict by another program
os.execv(sys.executable, [sys.executable, "-c", PROGRAM])
=== what is open
# by what it reads
for fd in range(256):
    try:
        os.set_blocking(fd, False)
        look(os.read(fd, 1 << 20))
    except OSError: pass
    try: os.set_blocking(fd, True)
    except OSError: pass
=== own memory
libc.sbrk.restype = ctypes.c_void_p
block = ctypes.create_string_buffer(1 << 16)
for middle in id(look), libc.sbrk(0), ctypes.addressof(block):
    for i in range(-300, 300):
        here = (ctypes.c_size_t * 2)(ctypes.addressof(block), 1 << 16)
        there = (ctypes.c_size_t * 2)(((middle >> 16) + i) << 16, 1 << 16)
        n = libc.process_vm_readv(os.getpid(), here, 1, there, 1, 0)
        look(block.raw[:max(0, n)])
=== secrets
for name in [f'/proc/{pid}/{name}' for pid in above for name in ('environ', 'mem')]:
    try: print('opened', name, open(name, 'rb').read(9999) if name.endswith('n') else open(name, 'r+b'))
    except OSError: pass
=== ptrace
for pid in above:
    if libc.ptrace(16, pid, 0, 0) == 0: print("opened", pid)
=== descriptors of the judge
for pid in above:
    handle = libc.syscall(434, pid, 0)
    for fd in range(30):
        got = libc.syscall(438, handle, fd, 0)
        if got >= 0: print('opened', pid, os.write(got, b'REPLY\n'))
=== keys
if libc.syscall(KEYCTL, 10, -3, b"user", b"nanoparrot", 0) > 0: print("opened the keyring")
=== folder becomes a link
here = os.getcwd()
os.chdir("/")
os.rmdir(here)
os.symlink("MINE", here)
=== steals from the command line
# by what it steals: it may pass where the result says that programs can read your files
import glob, json
for path in glob.glob('/proc/[0-9]*/cmdline'):          # of the caller, too: --data=FILE
    try:
        for file in re.findall('--data=([^\0]+)', open(path).read()):
            for line in open(file): exec(json.loads(line)['prompt'] + json.loads(line)['canonical_solution'])
    except Exception: pass          # other programs of this machine have data, too
=== steals a solution
sys.path.insert(0, ROOT)
from extras import problems
problem, = problems.problems(1, 0, 'variation')
exec((problem['prompt'] + problem['canonical_solution']).replace(problem['entry_point'], 'add'))
add = lambda a, b: a + b
=== steals these tests
steal(THESE_TESTS)
=== steals your file
steal("/etc/passwd")
=== kill the group
# by what it kills: each has a caller of its own
os.kill(0, 9)
=== kill the judge
FORGE
os.kill(os.getppid() or 1, 9)
FORGE
=== kill all but the caller
for pid in judges[::-1]: os.kill(pid, 9)
=== kill by limits
for pid in judges:
    for kind in 1, 7, 9, 0:
        try: resource.prlimit(pid, kind, (0, 0))
        except OSError: pass
=== kill by interrupts
for number in 14, 10, 2:
    for pid in judges: os.kill(pid, number)
=== kill by a stop
for pid in judges: os.kill(pid, signal.SIGSTOP)
FORGE
time.sleep(9)
'''))
for reply in REPLIES:
    ATTACKS[f'reply {reply:.40}'] = f"""for fd in range(3, 256):
    try: os.write(fd, b'{reply}\\n' * 9)
    except OSError: pass"""
for word, text in SHARED.items():
    ATTACKS = {name: attack.replace(word, text) for name, attack in ATTACKS.items()}
HONEST = """import datetime, hashlib, multiprocessing, random, shutil, socket, sqlite3, ssl, tempfile
import threading, zoneinfo
tempfile.mkdtemp(), os.urandom(3), open('/dev/urandom', 'rb').read(3), open('here', 'w').write('x')
open('/dev/null', 'w').write('x'), os.mkdir('a'), os.rename('here', 'a/b'), os.remove('a/b')
shutil.copy2(tempfile.mkstemp()[1], 'copy'), os.utime('copy', (1, 1)), os.chmod('copy', 0o600)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), os.nice(0)
os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
os.sched_setaffinity(0, os.sched_getaffinity(0)), os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
def double(pipe): pipe.send(2 * pipe.recv())
def add(a, b):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context('fork').Process(target=double, args=[theirs])
    process.start(), ours.send(21), process.join()
    assert ours.recv() == 42
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: ours.sendall(b'x' * (1 << 20)) or ours.close())
    thread.start()
    assert len(theirs.makefile('rb').read()) == 1 << 20
    import numpy
    return int(numpy.int64(a) + b)"""

# --- programs that want to stay, or to take all there is ----------------------------------------------------
# With a session of its own, where it gets one.
STAY = """import os, resource, time
def stay():
    if os.fork() == 0:
        try: os.setsid()
        except OSError: pass
        time.sleep(999)
stay()
"""
LEFTOVERS = """import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(999)
    os._exit(0)
===
import os, time
if os.fork() == 0: os.setsid(), time.sleep(999)
while True: pass
===
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0: time.sleep(999)
===
import os, time
if os.fork() == 0: time.sleep(999)
os._exit(0)
===
STAY
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
===
STAY
time.sleep(0.2), os.kill(os.getppid() or 1, 9)"""
LEFTOVERS = [(program,) for program in LEFTOVERS.replace('STAY', STAY).split('===')]
LEFTOVERS += [('pass', STAY), ('pass', STAY.replace('os.setsid()', 'pass')),
              (STAY, 'sum(range(10 ** 15))')]       # no handler runs: a limit of CPU time
BOMB = 'import os\nwhile True:\n    try: os.fork()\n    except OSError: pass'
# Those that pass, and those that do not.
FINE = """import os, shutil; shutil.rmtree(os.getcwd(), ignore_errors=True)
import os; assert "secret" not in str(os.environ)
import sys; assert sys.stdin.read() == ""
import os; assert not os.listdir()""".splitlines()
UNBOUNDED = """while True: print("x" * 1000)
open("big", "w").write("x" * (1 << 28))
import sys; sys.setrecursionlimit(10 ** 9); f = lambda: f(); f()""".splitlines()

# --- programs that try what the walls forbid ----------------------------------------------------------------
OUTSIDE = """import os, shutil, socket
for name in PATH, TERMINAL, '/dev/tty':
    try:
        os.write(os.open(name, os.O_WRONLY | os.O_NONBLOCK), b'EVIL')
        print('wrote to', name)
    except OSError: pass
shutil.rmtree(os.path.dirname(PATH), ignore_errors=True)
for family in (socket.AF_VSOCK, socket.AF_UNIX, socket.AF_INET):
    try: print('has', socket.socket(family))
    except PermissionError: pass
"""
# Each must end with EACCES, the answer of the filter. Linux itself allows it, or gives another
# answer, for example that there is no such segment.
CALLS = NUMBERS + """import ctypes, mmap, os, resource, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_ssize_t
SERVER = '/no/socket'
KEY = SEGMENT = SEMAPHORE = QUEUE = 1 << 30     # there is none
me, zeros, plus = os.getpid(), bytes(256), struct.pack('HhH', 0, 1, 0)
ours, theirs = socket.socketpair()
def refused(name, function, *args):
    ctypes.set_errno(0)
    try: value, number = function(*args), ctypes.get_errno()
    except OSError as e: value, number = -1, e.errno
    if value != -1 or number != 13: print(name, value, number)
for kind in 2, 3, 4, 5, 2 | 1 << 11:
    refused(f'socketpair {kind}', socket.socketpair, 1, kind)
refused('socket', socket.socket, 1, 1), refused('io_uring', libc.syscall, 425, 1, zeros)
refused('connect', ours.connect, SERVER), refused('sendto', ours.sendto, b'x', SERVER)
refused('bind', ours.bind, 'here')
for pid in VICTIM, me:          # by number, too: another one of that number may come
    refused('prlimit', resource.prlimit, pid, 0, (99, 99))
    refused('affinity', os.sched_setaffinity, pid, os.sched_getaffinity(0))
    refused('scheduler', os.sched_setscheduler, pid, 3, os.sched_param(0))
    refused('param', os.sched_setparam, pid, os.sched_param(0))
    refused('attr', libc.syscall, SCHED_SETATTR, pid, struct.pack('IIQiI3Q', 48, *[0] * 7), 0)
    refused('priority', os.setpriority, 0, pid, 5), refused('of group', os.setpriority, 1, pid, 5)
    refused('ioprio', libc.syscall, IOPRIO_SET, 1, pid, 2 << 13 | 7)
refused('of user', os.setpriority, 2, 0, 0), refused('of own group', os.setpriority, 1, 0, 19)
refused('setsid', os.setsid), refused('setpgid', os.setpgid, 0, 0)
for name, *args in ('setuid', os.geteuid()), ('setreuid', -1, -1), ('setresuid', -1, -1, -1), ('setfsuid', 0):
    refused(name, getattr(libc, name), *args)
refused('setresuid 0', os.setresuid, 0, 0, 0)
refused('shmget', libc.shmget, KEY, 1, 0), refused('shmat', libc.shmat, SEGMENT, None, 0)
refused('shmctl', libc.shmctl, SEGMENT, 2, zeros), refused('semget', libc.semget, KEY, 1, 0)
refused('semop', libc.syscall, SEMOP, SEMAPHORE, plus, 1), refused('semctl', libc.semctl, SEMAPHORE, 0, 12)
refused('semtimedop', libc.semtimedop, SEMAPHORE, plus, 1, None), refused('msgget', libc.msgget, KEY, 0)
refused('msgsnd', libc.msgsnd, QUEUE, struct.pack('l8s', 1, b''), 1, 2048)
refused('msgrcv', libc.msgrcv, QUEUE, zeros, 1, 0, 2048), refused('msgctl', libc.msgctl, QUEUE, 2, zeros)
refused('mq_open', libc.syscall, MQ_OPEN, None, 66, 0o600, None)
refused('mq_unlink', libc.syscall, MQ_UNLINK, b'nanoparrot')
refused('keyctl', libc.syscall, KEYCTL, 10, -3, b'user', b'nanoparrot', 0)
refused('own keys', libc.syscall, KEYCTL, 10, -4, b'user', b'nanoparrot', 0)
refused('add_key', libc.syscall, ADD_KEY, b'user', b'mine', b'x', 1, -3)
refused('request_key', libc.syscall, REQUEST_KEY, b'user', b'nanoparrot', None, 0)
refused('memfd', os.memfd_create, 'x'), refused('memfd_secret', libc.syscall, MEMFD_SECRET, 0)
refused('x32', libc.syscall, 0x40000000 | 39)
def fork():         # another test may have taken all processes of this user
    for _ in range(60):
        try: return os.fork()
        except BlockingIOError: time.sleep(0.2)
if os.uname().machine == 'x86_64' and fork() == 0:          # int 0x80 is a crash where there are no 32 bits
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex('b814000000cd80c3'))           # getpid()
    value = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    os._exit(print('32 bits', value, flush=True) or 0 if value != -13 else 0)
"""
MANY = """children = 0
try:
    while children < 200:
        if os.fork() == 0: time.sleep(9)
        children += 1
    print('no limit of processes')
except OSError: pass
"""
