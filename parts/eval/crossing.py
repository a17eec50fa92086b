"""
What crosses the pipe between the two processes of a trial (trial.py): the judge, which runs the
tests, and the candidate, which runs the program.

Between judge and candidate each line is a call for the other end ("ask"), or its end ("returned",
"raised"). While one end waits, the other may ask back: the tests can pass a function.

    assert list(evens(5)) == [0, 2, 4]          # tests; evens() is a generator of the program

    judge       ["ask", ["call", {"yours": 2}, 5], [], [], [], []]
    candidate   ["returned", [{"object": [4, {"name": "generator"}]}], [], []]
    judge       ["ask", ["special", {"yours": 4}, "__iter__"], [], [], [], []]
    candidate   ["returned", [{"known": 4}], [], []]
    judge       ["ask", ["pull", {"yours": 4}, 1], [], [], [], []]
    candidate   ["returned", [{"tuple": [{"tuple": [0]}, null]}], [], []]

What cannot change crosses as a copy (VALUES). Of a list or dict (SHARED) each end has one, and each
line ends with the containers that changed since the last line, and with the numbers of those that
nobody refers to any more. Anything else stays where it is, and the other end has a mirror of it: a
Thing, whose class mirrors its class and asks for every attribute and special method. The judge
unpickles nothing, calls nothing but what its tests handed out, and reads at most 32 MB a line.

Copy it with trial.py and sandbox.py: it needs the standard library.
"""
import builtins, collections, contextlib, copy, dataclasses, datetime, decimal, fractions, functools
import importlib, itertools, json, operator, os, sys, threading, types, zoneinfo

# Values that cannot change: how each is taken apart, and put together again.
ATTRIBUTES = {
    complex: 'real imag', range: 'start stop step', slice: 'start stop step',
    fractions.Fraction: 'numerator denominator', datetime.date: 'year month day',
    datetime.datetime: 'year month day hour minute second microsecond tzinfo',
    datetime.time: 'hour minute second microsecond tzinfo',
    datetime.timedelta: 'days seconds microseconds', zoneinfo.ZoneInfo: 'key'}
ERRORS = {kind for kind in vars(builtins).values()
          if isinstance(kind, type) and issubclass(kind, BaseException)}
VALUES = {kind: (lambda value, names=names: [getattr(value, name) for name in names.split()],
                 lambda parts, kind=kind: kind(*parts)) for kind, names in ATTRIBUTES.items()}
VALUES |= {kind: (lambda e: e.args, lambda parts, kind=kind: kind(*parts)) for kind in ERRORS}
VALUES |= {
    tuple: (list, tuple), frozenset: (list, frozenset), bytes: (list, bytes),
    int: (lambda n: [hex(n)], lambda parts: int(*parts, 16)),   # decimals take quadratic time
    decimal.Decimal: (lambda n: [str(n)], lambda parts: decimal.Decimal(*parts)),
    datetime.timezone: (lambda z: [z.utcoffset(None)], lambda parts: datetime.timezone(*parts)),
    type({}.keys()): (list, lambda parts: dict.fromkeys(parts).keys()),
    type({}.values()): (list, lambda parts: dict(enumerate(parts)).values()),
    type({}.items()): (list, lambda parts: dict(parts).items())}
# Containers: each end has one, and both are kept alike. The arguments that make an empty one.
SHARED = dict.fromkeys([list, dict, set, bytearray, collections.OrderedDict, collections.Counter],
                       lambda _: [])
SHARED |= {collections.deque: lambda d: [(), d.maxlen],
           collections.defaultdict: lambda d: [d.default_factory]}
# What both ends know by name. dataclasses.asdict() looks for the last one.
NAMED = {kind.__name__: kind for kind in [
    object, bool, float, str, type(None), map, zip, filter, enumerate, reversed, *VALUES, *SHARED,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.GeneratorType]}
NAMED |= {'NotImplemented': NotImplemented, 'Ellipsis': ..., '_FIELD': dataclasses._FIELD}
KNOWN = {*NAMED.values()}
# A class derived from one of these has mirrors that are such values, too.
BASES = {int, float, complex, str, bytes, tuple, *ERRORS}
# The special methods that a mirror may have.
ARITHMETIC = {f'__{side}{name}__' for side in ('', 'r', 'i') for name in (
    'add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift').split()}
BINARY = ARITHMETIC | {'__eq__', '__ne__', '__lt__', '__le__', '__gt__', '__ge__', '__contains__'}
SPECIAL = BINARY | {f'__{name}__' for name in (
    'len iter next reversed getitem setitem delitem call enter exit bool hash str repr format bytes '
    'int float complex index abs neg pos invert round trunc floor ceil').split()}
ALONE = [],         # has as many references as a container that only End.shared holds
MOST = 32 << 20     # characters of a line


def contents(container):
    """Return a list of what a container holds; of a dict the keys, then the values."""
    return [*container, *container.values()] if isinstance(container, dict) else [*container]


def own(cls):
    """Return the names of what a class does otherwise than the kind that it is derived from."""
    base = next(c for c in cls.__mro__ if c in KNOWN)
    base = object if base is cls else base
    return [name for name in SPECIAL.union(n for n in dir(base) if n[0] != '_')
            if getattr(cls, name, None) not in (None, getattr(base, name, None))]


class Mirror(type):
    """The kind of all mirrors of classes. A call makes an object at the other end."""
    def __new__(cls, name, bases, scope):
        if '_end' not in scope:
            next(b for b in bases if isinstance(b, Mirror))._end.refuse(
                f'they derive {name} from a class of the program')
        return super().__new__(cls, name, bases, scope)

    __bool__ = lambda cls: True
    __len__ = lambda cls: cls._end.ask('special', cls, '__len__')       # of an Enum
    __iter__ = lambda cls: cls._end.ask('special', cls, '__iter__')
    __getitem__ = lambda cls, key: cls._end.ask('special', cls, '__getitem__', key)
    __call__ = lambda cls, *args, **more: cls._end.ask('call', cls, *args, **more)
    __getattr__ = lambda cls, name: cls._end.ask('getattr', cls, name)
    __setattr__ = lambda cls, name, value: cls._end.ask('setattr', cls, name, value)


class Thing:
    """The mirror of an object that stays at the other end."""
    _plain = None
    __getattr__ = lambda self, name: self._end.read(self, name)
    __delattr__ = lambda self, name: self._end.ask('delattr', self, name)
    __copy__ = lambda self: self._end.ask('copy', self)
    __deepcopy__ = lambda self, _: self._end.ask('deepcopy', self)
    __reduce_ex__ = lambda self, _: self._end.refuse('they pickle an object of the program')
    __dict__ = property(lambda self: self._end.read(self, '__dict__'))

    def __setattr__(self, name, value):
        if name.startswith('__'):       # __traceback__
            return super().__setattr__(name, value)
        self._end.ask('setattr', self, name, value)


def asking(name):
    """Return the method or property of a mirror that asks the other end."""
    if name not in SPECIAL:
        return property(lambda self: self._end.read(self, name))
    if name == '__call__':
        return lambda self, *args, **more: self._end.ask('call', self, *args, **more)
    if name in BINARY:
        return lambda self, other, *_: self._end.operate(name, self, other)
    if name == '__next__':
        return lambda self: self._end.pull(self)
    if name == '__exit__':      # no program swallows a failed assertion
        return lambda self, kind, error, _: self._end.special(self, name, kind, error, None) and (
            not isinstance(error, AssertionError))
    return lambda self, *args, **more: self._end.special(self, name, *args, **more)


class End:
    """One end of the pipe. first: its numbers are odd or even."""
    def __init__(self, channel, first):
        self.channel = channel
        self.numbers = itertools.count(first, 2)
        self.mine = {}          # {number: an object here that has a mirror there}
        self.mirrors = {}       # {number: the mirror here of an object there}
        self.shared = {}        # {number: [a container, its contents as both ends know them]}
        self.tags = {id(value): {'name': name} for name, value in NAMED.items()}
        self.decode = json.JSONDecoder(object_hook=self.build).decode
        self.pulled = {}        # {id of the mirror of an iterator: [how many, what waits, its end]}
        self.lock = threading.RLock()

    # values -> JSON
    def pack(self, value):
        """Return a value as what JSON knows. (1, {2}) -> {'tuple': [1, {'set': [5, [], 2]}]}. The
        set has number 5; from now on it is {'same': [5, 'set']}."""
        kind = type(value)
        if value is None or kind in (bool, float, str) or kind is int and abs(value) < 1 << 63:
            return value
        if id(value) in self.tags:
            return self.tags[id(value)]
        if kind in SHARED:
            number = next(self.numbers)
            self.shared[number] = [value, []]
            self.tags[id(value)] = {'same': [number, kind.__name__]}
            return self.definition(number)
        if kind in VALUES:
            return {kind.__name__: [*map(self.pack, VALUES[kind][0](value))]}
        return self.refer(value)

    def definition(self, number):
        """Return a container with all that it holds, as JSON."""
        pair = self.shared[number]
        container, pair[1] = pair[0], contents(pair[0])
        empty = [*map(self.pack, SHARED[type(container)](container))]
        return {type(container).__name__: [number, empty, *map(self.pack, pair[1])]}

    def refer(self, value):
        """Return the number and the class of an object that stays here, as JSON."""
        number = next(self.numbers)
        self.mine[number] = value
        self.tags[id(value)] = {'known': number}
        if isinstance(value, type):
            bases = [self.pack(base) for base in value.__bases__ if base is not object]
            return {'class': [number, value.__name__, bases, own(value)]}
        base = next((c for c in type(value).__mro__ if c in BASES), object)
        args = ()
        if base is not object:
            args = value.args if base in ERRORS else base.__getnewargs__(value)
        return {'object': [number, self.pack(type(value)), *map(self.pack, args)]}

    # JSON -> values
    def build(self, tagged):
        """Return the value that pack() sent."""
        (tag, parts), = tagged.items()
        if tag in ('yours', 'known'):
            return (self.mine if tag == 'yours' else self.mirrors)[parts]
        if tag == 'name':
            return self.named(parts)
        if tag == 'same':
            return self.container(*parts)
        if tag == 'class':
            number, *about = parts
            return self.keep(number, self.mirror(*about))
        if tag == 'object':
            number, cls, *args = parts
            if not isinstance(cls, type):
                raise TypeError('an object needs a class')
            if cls in KNOWN and cls not in self.mirrors:        # a generator, a function
                self.mirrors[cls] = self.mirror(cls.__name__, [cls], own(cls))
            cls = self.mirrors.get(cls, cls)
            return self.keep(number, cls.__new__(cls, *args))
        if NAMED[tag] in VALUES:
            return VALUES[NAMED[tag]][1](parts)
        number, empty, *items = parts
        container = self.container(number, tag, *empty)
        container.clear()
        if isinstance(container, dict):
            dict.update(container, zip(items[:len(items) // 2], items[len(items) // 2:]))
        else:
            (container.update if isinstance(container, set) else container.extend)(items)
        self.shared[number][1] = contents(container)
        return container

    def named(self, name):
        return NAMED[name]

    def container(self, number, kind, *empty):
        """Return the container with a number, a new one if there is none."""
        if number not in self.shared:
            self.shared[number] = [NAMED[kind](*empty), []]
            self.tags[id(self.shared[number][0])] = {'same': [number, kind]}
        return self.shared[number][0]

    def keep(self, number, mirror):
        self.mirrors[number] = mirror
        self.tags[id(mirror)] = {'yours': number}
        return mirror

    def mirror(self, name, bases, names):
        """Return the mirror of a class."""
        scope = {name: asking(name) for name in names if name in SPECIAL or name[0] != '_'}
        scope |= {'_end': self, '_own': {*scope}, '__doc__': asking('__doc__')}
        real = next((base for base in bases if base in KNOWN), None)
        if real:
            scope['_plain'] = real
        if real and real not in BASES:          # isinstance() looks at __class__, too
            scope = {n: asking(n) for n in own(real)} | scope
            scope['__class__'] = property(lambda _: real)
        bases = [base for base in bases if isinstance(base, Mirror) or base in BASES]
        if not any(isinstance(base, Mirror) for base in bases):
            bases.insert(0, Thing)
        return Mirror(name, (*bases,), scope)

    # lines
    def send(self, kind, *values):
        """Send a line: what it is, lists of values, the containers that changed here since the
        last one, and the numbers of those that nobody here refers to any more."""
        self.sending = kind
        gone, changed = [], []
        if self.shared:
            alone = sys.getrefcount(ALONE[0])
            gone = [n for n, pair in self.shared.items() if sys.getrefcount(pair[0]) == alone]
        for number, (container, before) in [*self.shared.items()]:
            now = contents(container)
            if len(now) != len(before) or any(map(operator.is_not, now, before)):
                changed.append(self.definition(number))
        self.forget(gone)
        tell(self.channel, [kind, *([*map(self.pack, some)] for some in values), changed, gone])

    def receive(self):
        """Return what the next line is, and its values."""
        line = self.channel.readline(MOST)
        if not line.endswith('\n'):
            self.lost(line)
        kind, *values, _, gone = self.decode(line)
        self.forget(gone)
        return kind, values

    def forget(self, gone):
        for number in gone:
            if number in self.shared:
                del self.tags[id(self.shared.pop(number)[0])]

    def ask(self, operation, *args, **more):
        """Return what an operation at the other end returns, or raise what it raises. Meanwhile
        the other end may ask, too."""
        with self.lock:         # of threads
            self.send('ask', [operation, *args], more, more.values())
            while True:
                kind, values = self.receive()
                if kind != 'ask':
                    break
                self.answer(values)
        (value,), = values
        if kind == 'raised':
            self.raised(operation, value)
            raise value
        return value

    def answer(self, values):
        (operation, *args), names, more = values
        values.clear()          # no reference to the arguments must be left; see send()
        try:
            self.permit(operation, *args)
            value = self.operations[operation](*args, **dict(zip(names, more)))
            kind = 'returned'
        except BaseException as e:
            kind, value = 'raised', e.with_traceback(None)
        del args, more
        try:
            self.send(kind, [value])
        except Exception as e:          # the value is too deep, too big, or strange
            self.send('raised', [e.with_traceback(None)])

    # what mirrors ask
    def read(self, thing, name):
        return self.ask('getattr', thing, name)

    def special(self, thing, name, *args, **more):
        return self.ask('special', thing, name, *args, **more)

    def operate(self, name, one, other):
        return self.ask('special', one, name, other)

    def pull(self, iterator):
        """Return the next value: from the 65th on as many are fetched at once as came before."""
        state = self.pulled.setdefault(id(iterator), [0, collections.deque(), None])
        count, waiting, error = state
        if not waiting and not error:
            values, state[2] = self.ask('pull', iterator, 1 if count < 64 else min(count, 1024))
            waiting.extend(values)
        if not waiting:
            error, state[2] = state[2], None
            raise error
        state[0] += 1
        return waiting.popleft()


def pull(iterator, n):
    """Return at most n values of an iterator, and what ended it or None."""
    values = []
    try:
        for _ in range(n):
            values.append(next(iterator))
    except Exception as e:
        return (*values,), e.with_traceback(None)
    return (*values,), None


def plain(value):
    """Return a value of a derived class as one of the kind that it is derived from."""
    kind = next(kind for kind in type(value).__mro__ if kind in KNOWN)
    return kind(value) if kind in SHARED else VALUES[kind][1](VALUES[kind][0](value))


OPERATIONS = {
    'getattr': getattr, 'setattr': setattr, 'delattr': delattr, 'copy': copy.copy,
    'deepcopy': copy.deepcopy, 'pull': pull, 'plain': plain,
    'call': lambda f, /, *args, **more: f(*args, **more),
    'resume': lambda generator, name, *args: getattr(generator, name)(*args),
    'special': lambda thing, name, /, *args, **more: (
        getattr(type(thing), name)(thing, *args, **more))}


def tell(file, message):
    """Send a line."""
    file.write(json.dumps(message) + '\n')
    file.flush()


# --- the candidate --------------------------------------------------------------------------------
class Candidate(End):
    """Runs the program, and then what the tests ask it to run."""
    def __init__(self, channel):
        super().__init__(channel, 2)
        self.operations = OPERATIONS | {'run': self.run, 'name': lambda name: self.scope[name]}
        while True:
            self.answer(self.receive()[1])

    def run(self, program, name):
        """Return {name: whether it is a module} of what the program defines."""
        module = sys.modules[name] = type(sys)(name)        # dataclasses and pickle look it up
        self.scope = vars(module)
        sys.argv = ['']
        exec(program, self.scope)
        return {name: isinstance(value, type(sys)) for name, value in self.scope.items()}

    def permit(self, *_):
        """The judge may ask for anything."""

    def lost(self, _):
        os._exit(0)

    def refuse(self, why):
        raise TypeError(why)

    def raised(self, *_):
        """What the tests raise in a callback is raised here."""

    def refer(self, value):
        if type(value).__module__.split('.')[0] == 'numpy' and hasattr(value, 'tolist'):
            return self.pack(value.tolist())
        return super().refer(value)

    def named(self, name):
        """Return something of the standard library: 'math.sqrt', 'builtins.str.lower'."""
        module, _, path = name.partition('.')
        return operator.attrgetter(path)(importlib.import_module(module)) if path else NAMED[name]


# --- the judge ------------------------------------------------------------------------------------
class Judge(End):
    """Asks the candidate for what the tests need. Where the operand of an operator may be the
    value that the tests expect, no object of the program decides."""
    def __init__(self, channel, end):
        super().__init__(channel, 1)
        self.end = end
        self.operations = OPERATIONS
        self.told = set()       # ids of mirrors whose objects came of arithmetic with plain data
        self.doubt = ''

    def receive(self):
        try:
            return super().receive()
        except OSError:
            self.lost('')
        except MemoryError:
            raise
        except Exception as e:
            self.end('exited', f'no reply: {type(e).__name__}: {e}')

    def lost(self, line):
        if len(line) >= MOST:
            self.end('memory', f'a value takes more than {MOST >> 20} MB')
        self.end('exited', 'the program left, or was killed')

    def refuse(self, why):
        self.end('infrastructure', f'the tests ask too much: {why}')

    def raised(self, operation, error):
        # Tests could catch the first; the second would end an all(map(...)) well.
        text = f'{type(error).__name__}: {error.args}'
        if isinstance(error, SystemExit):
            self.end('exited', text)
        if isinstance(error, StopIteration) and operation != 'resume':
            self.end('exception', text)

    def permit(self, operation, thing='', name='', *_):
        """The program may call functions and iterators that the tests handed out, and use what is
        public of objects of classes that the tests define."""
        cls = thing if isinstance(thing, type) else type(thing)
        of_tests = cls.__module__ in ('tests', '_io')
        allowed = {'call': True, 'pull': True, 'special': name in SPECIAL,
                   'getattr': of_tests and name[:1] != '_' or callable(thing) and name in (
                       '__name__', '__qualname__', '__module__', '__doc__'),
                   'setattr': of_tests and name[:1] != '_' and thing is not cls,
                   'copy': of_tests, 'deepcopy': of_tests}
        if 'known' not in self.tags.get(id(thing), {}) or not allowed.get(operation):
            raise AttributeError(f'{type(thing).__name__!r} object of the tests has no {name!r}')

    def refer(self, value):
        module = getattr(value, '__module__', None) or 'builtins'
        name = getattr(value, '__qualname__', '')
        with contextlib.suppress(AttributeError, KeyError):
            if module in sys.stdlib_module_names and (
                    operator.attrgetter(name)(sys.modules[module]) == value):
                return {'name': f'{module}.{name}'}
        if not (callable(value) or hasattr(value, '__next__') or isinstance(value, BaseException)
                or type(value).__module__ in ('tests', '_io')):
            for kind in BASES:
                if isinstance(value, kind):     # such as NumPy's float64
                    return self.pack(plain(value))
            why = f'they pass a {type(value).__name__}, which is not plain data'
            if self.sending != 'ask':       # a program that asks for it loses nothing but this
                raise TypeError(why)
            self.refuse(why)
        return super().refer(value)

    def doubts(self, thing):
        """End the trial: nothing but the program could tell."""
        self.end('exception', f'the tests compare or compute {self.why(thing)}')

    def why(self, thing):
        return (f'an object of the program ({type(thing).__name__}) with plain data, and only the '
                'program could say what is right; compare two of its objects, or an attribute')

    def read(self, thing, name):
        if id(thing) in self.told and any(hasattr(kind, name) for kind in KNOWN):
            self.doubts(thing)
        if name in ('send', 'throw'):       # may end with StopIteration
            return functools.partial(self.ask, 'resume', thing, name)
        return super().read(thing, name)

    def special(self, thing, name, *args, **more):
        if id(thing) in self.told and name not in ('__str__', '__repr__', '__hash__'):
            self.doubts(thing)
        return super().special(thing, name, *args, **more)

    def operate(self, name, one, other):
        both = isinstance(type(other), Mirror)
        if both or name in ARITHMETIC and name in one._own:
            value = super().operate(name, one, other)
            if id(one) in self.told or not both:
                if not isinstance(type(value), Mirror) or isinstance(value, tuple(BASES)):
                    if not both and value is not NotImplemented:
                        self.doubts(one)
                else:
                    self.told.add(id(value))
            return value
        kind = one._plain
        if hasattr(kind, name) and (kind in VALUES or kind in SHARED or kind in BASES):
            if id(one) in self.told:
                self.doubts(one)
            value = one if kind in BASES else self.ask('plain', one)
            return getattr(kind, name)(value, other)
        if name in ('__eq__', '__ne__'):
            self.doubt = self.why(one)
            return NotImplemented
        if name == '__contains__' and hasattr(type(one), '__iter__'):
            return any(value is other or value == other for value in one)
        self.doubts(one)
