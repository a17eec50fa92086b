"""Programs for test_sandbox.py: right and wrong ones, and such that want to pass, to break, to stay."""


def sections(text):
    """[(title, text)] of parts that begin with === title."""
    return [part.split('\n', 1) for part in text.split('\n=== ')[1:]]


# A right program, what makes it a wrong one (old => new), and tests.
PROGRAMS = sections(r"""
=== copies and pickles
class P:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
def make(): return [P([1]), P(2)]
--- P(2) => P(3)
import copy, pickle
a = make()
assert pickle.loads(pickle.dumps(a)) == copy.deepcopy(a) == a and copy.deepcopy(a)[0].x is not a[0].x
assert pickle.loads(pickle.dumps(a))[1].x == 2
=== patches of what is built in and of modules
import os, time
def f(): return input(), time.time(), os.environ['KEY'], len('abc')
--- time.time() => time.time() + 1
import os
from unittest import mock
os.environ['KEY'] = 'k'
with mock.patch('builtins.input', return_value='Bo'), mock.patch('time.time', return_value=5.0):
    assert f() == ('Bo', 5.0, 'k', 3)
=== processes
import multiprocessing
def square(x): return x * x
def f(xs):
    with multiprocessing.get_context('fork').Pool(2) as pool: return pool.map(square, xs)
def g():
    with multiprocessing.get_context('spawn').Pool(1) as pool: return pool.map(abs, [-3])
--- x * x => x + x
assert f([1, 3]) == [1, 9] and g() == [3]
=== arrays of NumPy
import numpy as np
class Scaled(np.ndarray): pass
def f(a): return (a * 2).view(Scaled), a.sum()
--- a * 2 => a * 3
import numpy as np
a, s = f(np.ones((2, 2)))
assert np.array_equal(a, [[2, 2], [2, 2]]) and (a == 2).all() and s == 4 and a.dtype == float
np.testing.assert_allclose(a, np.full((2, 2), 2.0))
=== a class of the tests derived from one of the program
class Shape:
    def area(self): return self.side() ** 2
    def __eq__(self, other): return isinstance(other, Shape) and self.area() == other.area()
    def __add__(self, other): return self.area() + other.area()
--- ** 2 => ** 3
class Square(Shape):
    def side(self): return 3
assert Square().area() == 9 and Square() == Square() and Shape.__add__(Square(), Square()) == 18
=== a coroutine, and a thread
import asyncio, queue, threading
async def double(x):
    await asyncio.sleep(0)
    return 2 * x
def f(x):
    done = queue.Queue()
    threading.Thread(target=done.put, args=[x]).start()
    return done.get()
--- 2 * x => 3 * x
import asyncio
async def both(): return await asyncio.gather(double(1), double(2))
assert asyncio.run(both()) == [2, 4] and f(5) == 5
=== data classes and enumerations
from dataclasses import dataclass, replace
from enum import Enum
@dataclass(order=True)
class D:
    x: int
    y: int = 2
class C(Enum):
    RED = 1
    def __lt__(self, other): return self.value < other.value
--- = 2 => = 3
import dataclasses
assert D(1) == D(1, 2) < D(2) and dataclasses.asdict(D(1)) == {'x': 1, 'y': 2} and C.RED is C(1)
=== context managers
class Log:
    def __enter__(self): return self
    def __exit__(self, kind, error, where):
        self.seen = str(error)
        return kind is ZeroDivisionError
--- str(error) => 'end'
log = Log()
with log: 1 / 0
assert log.seen == 'division by zero'
=== operators of its own, also by way of the library
import functools, operator
@functools.total_ordering
class V:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == getattr(other, 'x', other)
    def __lt__(self, other): return self.x < getattr(other, 'x', other)
    def __mul__(self, k): return V(self.x * getattr(k, 'x', k))
    __rmul__ = __mul__
    def __contains__(self, x): return x == self.x
    def __hash__(self): return hash(self.x)
def f(): return V(1) == 1, V(2) >= 1, (2 * V(3)).x, functools.reduce(operator.mul, [V(2), V(3), 4]).x, 3 in V(3)
--- self.x * get => self.x + get
assert f() == (True, True, 6, 24, True) and max(V(1), V(5)).x == 5 and len({V(1), V(1)}) == 1
assert V(2) * V(3) == V(6) and V(1) <= V(2) and V(6) in [V(2) * V(3)]
=== operators of its own, asked about plain data
class V:
    def __init__(self, *x): self.x = x
    def __iter__(self): return iter(self.x)
    def __mul__(self, k): return V(*(a * k for a in self.x))
    def __add__(self, other): return V(*(a + b for a, b in zip(self, other)))
    def __matmul__(self, other): return sum(a * b for a, b in zip(self, other))
    def __divmod__(self, k): return [a // k for a in self], [a % k for a in self]
    def __contains__(self, x): return min(self) <= x <= max(self)
    __rmul__, __radd__ = __mul__, __add__
class Words:
    def __init__(self, *words): self.words = list(words)
    def __contains__(self, word): return word in self.words
    def __lshift__(self, word): self.words.append(word)
    def __iadd__(self, word): self.words.append(word); return self
    def __or__(self, other): return {*self.words, *other}
--- a * k => a + k
a, w = V(3, 4), Words()
assert (a * 5).x == (5 * a).x == (15, 20) and (a + (1, 2)).x == ((1, 2) + a).x == (4, 6)
assert a @ [1, 1] == 7 and divmod(a, 2) == ([1, 2], [1, 0]) and 3.5 in a and 5 not in a
w << 'b'
w += 'c'
assert w.words == ['b', 'c'] and 'c' in w and 'd' not in w and w | ['d'] == {'b', 'c', 'd'}
=== classes derived from list, int and dict
class L(list):
    def second(self): return self[1]
    def __eq__(self, other): return list.__eq__(self, other)
class I(int):
    def __add__(self, other): return I(int(self) + int(other))
class D(dict): __getattr__ = dict.__getitem__
--- self[1] => self[0]
assert L([1, 2]) == [1, 2] and L([1, 2]).second() == 2 and D(a=1).a == 1 and I(2) + I(3) == 5
=== names that are built in, of modules, and of the sandbox
def abs(x): return 0
def bisect(x): return x + 1
def check(x): return x > 1
def f(): return bisect(4) if check(2) else 0
round = isinstance = tell = judge = abs
--- x + 1 => x
import math
assert abs(f() - 5) < 0.1 and bisect(1) == 2 and check(2) and round(1.2) == 1 and math.isclose(0.1 + 0.2, 0.3)
""")

# --- right programs that ask much of a machine: each follows a title, and --- what is true then ------------
ODD = sections(r"""
=== 100 threads
import threading,time
def f():
    ts=[threading.Thread(target=time.sleep,args=(.1,)) for _ in range(100)]
    [t.start() for t in ts]; [t.join() for t in ts]
    return len(ts)
--- f()==100
=== thread pool 32
from concurrent.futures import ThreadPoolExecutor
def f():
    with ThreadPoolExecutor(32) as p: return sum(p.map(lambda x:x*x, range(100)))
--- f()==328350
=== process pool fork
from concurrent.futures import ProcessPoolExecutor
def g(x): return x*x
def f():
    with ProcessPoolExecutor(2) as p: return sum(p.map(g, range(10)))
--- f()==285
=== mp shared value
import multiprocessing as m
def w(v):
    with v.get_lock(): v.value+=1
def f():
    v=m.Value("i",0); ps=[m.Process(target=w,args=(v,)) for _ in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; return v.value
--- f()==4
=== shared memory
from multiprocessing import shared_memory
def f():
    s=shared_memory.SharedMemory(create=True,size=100); s.buf[0]=7; v=s.buf[0]; s.close(); s.unlink(); return v
--- f()==7
=== fork and wait
import os
def f():
    r,w=os.pipe(); p=os.fork()
    if not p:
        os.write(w,b"hi"); os._exit(0)
    os.waitpid(p,0); return os.read(r,9)
--- f()==b"hi"
=== subprocess echo
import subprocess
def f(): return subprocess.run(["echo","hi"],capture_output=True,text=True).stdout
--- f()=="hi\n"
=== subprocess python
import subprocess,sys
def f(): return subprocess.check_output([sys.executable,"-c","print(1+1)"],text=True)
--- f().strip()=="2"
=== a subprocess and a file
import subprocess
def f():
    open("x", "w").write("hi")
    return subprocess.check_output(["cat", "x"])
--- f()==b"hi"
=== print 20 MB one
def f():
    print("x"*20_000_000)
    return 1
--- f()==1
=== print 20 MB lines
def f():
    for i in range(200000): print("x"*99)
    return 1
--- f()==1
=== stderr 20 MB
import sys
def f():
    for i in range(200): sys.stderr.write("x"*100_000)
    return 1
--- f()==1
=== os.write 20 MB
import os
def f():
    for i in range(200): os.write(1,b"x"*100_000)
    return 1
--- f()==1
=== write 20 MB
def f():
    open("x","wb").write(b"x"*20_000_000); import os; return os.path.getsize("x")
--- f()==20_000_000
=== recursion limit raised
import sys
sys.setrecursionlimit(20000)
def f(n): return 0 if n==0 else 1+f(n-1)
--- f(9000)==9000
=== recursion in a big thread
import sys,threading
sys.setrecursionlimit(200000)
threading.stack_size(128<<20)
def g(n): return 0 if n==0 else 1+g(n-1)
def f():
    out=[]
    t=threading.Thread(target=lambda: out.append(g(50000))); t.start(); t.join(); return out[0]
--- f()==50000
=== recursion in a thread
import threading
def g(n): return 0 if n==0 else 1+g(n-1)
def f():
    out=[]
    t=threading.Thread(target=lambda: out.append(g(900))); t.start(); t.join(); return out[0]
--- f()==900
=== signal alarm
import signal, time
class T(Exception): pass
def h(*a): raise T
def f():
    signal.signal(signal.SIGALRM,h); signal.setitimer(signal.ITIMER_REAL,.1)
    try:
        time.sleep(5)
    except T: return 1
--- f()==1
=== SIGINT to itself
import os,signal
def f():
    try: os.kill(os.getpid(),signal.SIGINT); import time; time.sleep(1)
    except KeyboardInterrupt: return 1
--- f()==1
=== SIGTERM handler
import os,signal
seen=[]
signal.signal(signal.SIGTERM,lambda *a: seen.append(1))
def f():
    os.kill(os.getpid(),signal.SIGTERM); return len(seen)
--- f()==1
=== atexit
import atexit
atexit.register(print,"bye")
def f(): return 1
--- f()==1
=== stdin read
import sys
def f(): return sys.stdin.read()
--- f()==""
=== input raises EOFError
def f():
    try: return input()
    except EOFError: return "end"
--- f()=="end"
=== main guard
import sys
def f(): return 1
if __name__=="__main__": sys.exit(5)
--- f()==1
=== deep folders
import os
def f():
    p="d"
    for i in range(60): os.mkdir(p); os.chdir(p)
    return 1
--- f()==1
=== tempfile
import tempfile
def f():
    with tempfile.NamedTemporaryFile("w+") as t:
        t.write("a"); t.flush(); return open(t.name).read()
--- f()=="a"
=== TemporaryDirectory
import tempfile,os
def f():
    with tempfile.TemporaryDirectory() as d:
        os.makedirs(d+"/a/b"); return os.listdir(d)
--- f()==["a"]
=== home
import os
def f():
    p=os.path.expanduser("~/.x"); open(p,"w").write("1"); return open(p).read()
--- f()=="1"
=== sqlite file
import sqlite3
def f():
    c=sqlite3.connect("x.db"); c.execute("create table t(a)"); c.execute("insert into t values(3)"); c.commit(); return c.execute("select a from t").fetchone()[0]
--- f()==3
=== asyncio subprocess
import asyncio
async def g():
    p=await asyncio.create_subprocess_exec("echo","hi",stdout=asyncio.subprocess.PIPE)
    out,_=await p.communicate(); return out
def f(): return asyncio.run(g())
--- f()==b"hi\n"
=== socketpair
import socket
def f():
    a,b=socket.socketpair(); a.send(b"x"); return b.recv(1)
--- f()==b"x"
=== numpy big
import numpy as np
def f(): return int(np.arange(10_000_000).sum())
--- f()==49999995000000
=== get_type_hints
import typing
def f(x: "int"): return x
def g(): return typing.get_type_hints(f)
--- g()=={"x":int}
=== stdout replaced
import io,sys
def f():
    old=sys.stdout; sys.stdout=io.StringIO(); print("x"); v=sys.stdout.getvalue(); sys.stdout=old; return v
--- f()=="x\n"
=== stdout closed
import sys
def f():
    sys.stdout.close(); return 1
--- f()==1
=== ctypes
import ctypes
def f(): return ctypes.CDLL(None).abs(-3)
--- f()==3
=== unittest
import unittest
class T(unittest.TestCase):
    def test(self): self.assertEqual(1,1)
def f(): return unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T)).wasSuccessful()
--- f()
=== daemon thread goes on
import threading,time
threading.Thread(target=lambda: time.sleep(99),daemon=True).start()
def f(): return 1
--- f()==1
=== thread goes on
import threading,time
threading.Thread(target=lambda: time.sleep(99)).start()
def f(): return 1
--- f()==1
=== child goes on
import subprocess
p=subprocess.Popen(["sleep","99"])
def f(): return 1
--- f()==1
=== mmap
import mmap
def f():
    m=mmap.mmap(-1,100); m[:2]=b"hi"; return m[:2]
--- f()==b"hi"
=== settrace
import sys
n=0
def t(*a):
    global n; n+=1; return t
def f():
    sys.settrace(t); g(); sys.settrace(None); return n>0
def g(): return 1
--- f()
=== memory 200 MB
def f():
    x=bytearray(200<<20); return len(x)
--- f()==200<<20
=== del builtins
import builtins
del builtins.print
def f(): return 1
--- f()==1
=== excepthook
import sys
sys.excepthook=lambda *a: None
def f(): return 1
--- f()==1
""")

# --- outcomes: and a part of its message, a program, and its tests behind --- -------------------------------
OUTCOMES = r"""
=== wrong: assert add(1, 2) == 4
def add(a, b): return a + b
---
assert add(1, 2) == 4
=== exception: ZeroDivisionError: division by zero
1 / 0
---
=== passed
assert __name__ == "__main__"
import pickle
class A: pass
pickle.dumps(A())
---
=== timeout: not done in 4 s
while True: pass
---
=== memory
x = []
def f():
    while True: x.append([1] * 50000)
---
f()
=== exited: SystemExit
def f(): raise SystemExit(0)
---
f()
=== exception: E
class E(Exception):
    def __str__(self): raise ValueError
def f(): raise E
---
f()
=== passed
class Money:
    def __init__(self, n): self.n = n
    def __eq__(self, other): return self.n == other
---
assert Money(5) == 5
"""

# --- programs that want to pass: each follows WRONG, and is judged by CHECK ---------------------------------
CHECK = """def check(candidate):
    assert all(map(lambda x: candidate(x, x) == 2 * x, (1, 2))), [candidate(x, 5) for x in (5, 5)]
    import colorsys
    assert candidate(1, 2) == 3 and candidate(5, 5) == 10"""
WRONG = """import ctypes, os, re, resource, signal, sys, time
def add(a, b): return a - b
libc = ctypes.CDLL(None)
above = [os.getppid()]          # what watches this program, up to the caller; nobody in a namespace
while above[-1] not in (0, 1, CALLER):
    try: above.append(int(re.search('PPid:.(.*)', open(f'/proc/{above[-1]}/status').read())[1]))
    except OSError: break
above = [pid for pid in above if pid > 1]
watchers = [pid for pid in above if pid != CALLER]
"""
CHEATS = dict(sections(r'''
=== hard exit in a call
def add(a, b): os._exit(0)
=== stop iteration
def add(a, b): raise StopIteration
=== no errors
import builtins
builtins.AssertionError = type("E", (BaseException,), {})
builtins.exec = builtins.all = print
builtins.__dict__["print"] = lambda *a, **k: None
builtins.__build_class__ = None
=== own check
def check(candidate): pass
import threading
def again():
    while True: globals()["check"] = print
threading.Thread(target=again, daemon=True).start()
=== no modules
for name in list(sys.modules): sys.modules[name] = None
=== planted modules
for folder in {".", os.environ["HOME"], os.environ["TMPDIR"]}:
    open(f"{folder}/colorsys.py", "w").write("import os; os._exit(0)")
=== words
print('["passed", ""]', flush=True)
for fd in range(255, 0, -1):
    try: os.write(fd, b'["passed", ""]\ntrue\n["passed", ""]\npassed\n')
    except OSError: pass
=== a child holds the pipe
if os.fork(): os._exit(0)
time.sleep(9)
'''))
ATTACKS = dict(sections(r'''
=== pipes and memory of others
for name in [f'/proc/{pid}/fd/{fd}' for pid in above for fd in range(30)]:
    try:
        if re.match('pipe|socket', os.readlink(name)): print('opened', open(name, 'wb', 0))
    except OSError: pass
for name in [f'/proc/{pid}/{name}' for pid in above for name in ('environ', 'mem')]:
    try: print('opened', name, open(name, 'rb').read(9999) if name.endswith('n') else open(name, 'r+b'))
    except OSError: pass
for pid in above:
    if libc.ptrace(16, pid, 0, 0) == 0: print('opened', pid)
    handle = libc.syscall(434, pid, 0)
    for fd in range(30):
        if libc.syscall(438, handle, fd, 0) >= 0: print('opened', pid, fd)
=== sockets
import socket
for family in socket.AF_VSOCK, socket.AF_UNIX, socket.AF_INET:
    try: print('opened', socket.socket(family))
    except OSError: pass
=== kill the group
os.kill(0, 9)
=== kill what watches
os.kill(os.getppid() or 1, 9)
=== kill all but the caller
for pid in watchers[::-1]: os.kill(pid, 9)
=== kill by a stop
for pid in watchers: os.kill(pid, signal.SIGSTOP)
time.sleep(9)
'''))

# --- programs that want to stay, or to take all there is; what is fine passes -------------------------------
STAY = """import os, time
if os.fork() == 0:
    try: os.setsid()
    except OSError: pass
    time.sleep(999)
"""
BOMBS = dict(sections(r'''
=== fine: a child of a child in a session of its own
import os
if os.fork() == 0: exec(STAYS)
=== a child stays when it left
import os, time
if os.fork() == 0: time.sleep(999)
os._exit(0)
=== a session of its own, and no end
STAY
while True: pass
=== what watches is killed, in a session of its own
STAY
time.sleep(0.2)
os.kill(os.getppid() or 1, 9)
while True: pass
=== forks
import os
while True:
    try: os.fork()
    except OSError: pass
=== output
while True: print("x" * 1000)
=== the stack
import sys
sys.setrecursionlimit(10 ** 9)
f = lambda: f()
f()
'''.replace('STAYS', repr(STAY)).replace('STAY\n', STAY)))
