"""
What crosses the pipe between the two processes of a trial (trial.py): the judge, which runs the
tests, and the candidate, which runs the program.

    assert list(evens(5)) == [0, 2, 4]          # tests; evens() is a generator of the program

    judge       ["ask", [], [], ["special", {"tuple": []}, {"known": 2}, "__call__", 5], []]
    candidate   ["returned", [], [], [{"object": [4, {"name": "generator"}]}], []]
    judge       ["ask", [], [], ["special", {"tuple": []}, {"known": 4}, "__next__"], []]
    candidate   ["returned", [], [], [0], []]

What cannot change crosses as a copy (COPIED). Of a list, dict or set (SHARED) each end has one, and
each line says which are new, what those that changed hold, and which nobody refers to any more.
Anything else stays where it is: the other end has a mirror of it, and asks for every attribute and
special method. While one end waits, the other may ask back, because tests pass functions. The judge
unpickles nothing, calls only what its tests handed out, and reads at most 32 MB a line.
Copy this file with trial.py and sandbox.py.
"""
import builtins, collections, copy, dataclasses, datetime, decimal, fractions, itertools, json
import operator, re, sys, threading, types, zoneinfo

ERRORS = {kind for kind in vars(builtins).values()
          if isinstance(kind, type) and issubclass(kind, BaseException)}
# What takes a value apart, and what makes an equal one. Most tell pickle their arguments.
COPIED = {kind: (lambda value: value.__reduce__()[1], kind) for kind in [
    range, slice, fractions.Fraction, decimal.Decimal, datetime.date, datetime.datetime,
    datetime.time, datetime.timedelta, datetime.timezone, *ERRORS]}
COPIED |= {
    int: (lambda number: [hex(number)], lambda text: int(text, 16)),    # decimals would be slow
    complex: (lambda number: [number.real, number.imag], complex),
    zoneinfo.ZoneInfo: (lambda zone: [zone.key], zoneinfo.ZoneInfo),
    **{kind: (list, lambda *items, kind=kind: kind(items)) for kind in (tuple, frozenset, bytes)},
    type({}.keys()): (list, lambda *keys: dict.fromkeys(keys).keys()),
    type({}.values()): (list, lambda *values: dict(enumerate(values)).values()),
    type({}.items()): (list, lambda *items: dict(items).items())}
# Errors of the library that a test may wait for.
LIBRARY = {f'{module.__name__}.{name}': kind for module in (copy, dataclasses, decimal, json, re)
           for name, kind in vars(module).items()
           if isinstance(kind, type) and issubclass(kind, Exception)}
ERRORS |= {*LIBRARY.values()}
# Containers, with the arguments that make an empty one.
SHARED = dict.fromkeys([list, dict, set, bytearray, collections.OrderedDict, collections.Counter],
                       lambda container: [])
SHARED[collections.deque] = lambda container: [(), container.maxlen]
SHARED[collections.defaultdict] = lambda container: [container.default_factory]
# What both ends know by name. dataclasses.asdict() looks for _FIELD.
NAMED = {kind.__name__: kind for kind in [
    object, bool, float, str, type(None), map, zip, filter, enumerate, reversed, *COPIED, *SHARED,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.GeneratorType]}
NAMED |= LIBRARY | {'NotImplemented': NotImplemented, 'Ellipsis': ..., '_FIELD': dataclasses._FIELD}
# A class derived from one of these has mirrors that are such values, too.
BASES = {int, float, complex, str, bytes, tuple, *ERRORS}
# The special methods that a mirror may have, first those whose argument may be plain data.
BINARY = {f'__{side}{name}__' for side in ('', 'r', 'i') for name in (
    'add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift').split()}
BINARY |= {'__eq__', '__ne__', '__lt__', '__le__', '__gt__', '__ge__', '__contains__'}
SPECIAL = BINARY | {f'__{name}__' for name in (
    'len iter next reversed getitem setitem delitem call enter exit bool hash str repr format '
    'bytes int float complex index abs neg pos invert round trunc floor ceil').split()}
ALONE = {0: []}     # has as many references as a container that only End.known holds
MOST = 32 << 20     # characters of a line


# --- mirrors --------------------------------------------------------------------------------------
def asking(name):
    """Return the special method, or else the property, of a mirror that asks the other end."""
    if name in SPECIAL:
        return lambda self, /, *args, **more: self._end.special(self, name, *args, **more)
    return property(lambda self: self._end.ask('getattr', self, name))


class Asks:
    """Reads and writes the attributes of the object, or the class, at the other end."""
    def __getattr__(self, name):
        # With these, NumPy and PyTorch would let a program compare: __array_function__.
        if name.startswith(('__array', '__torch')):
            raise AttributeError(name)
        return self._end.ask('getattr', self, name)

    def __setattr__(self, name, value):
        if name.startswith('__'):       # contextlib sets __traceback__
            return super().__setattr__(name, value)
        self._end.ask('setattr', self, name, value)

    def __delattr__(self, name):
        self._end.ask('delattr', self, name)


class Mirror(Asks, type):
    """The mirror of a class. A call makes an object at the other end."""
    __call__ = asking('__call__')
    __len__ = asking('__len__')             # of an Enum, as the next one
    __iter__ = asking('__iter__')
    __getitem__ = lambda cls, key: cls._end.ask('getitem', cls, key)    # Color['RED'], Stack[int]
    __bool__ = lambda cls: True


class Thing(Asks):
    """The mirror of an object. Its class is a Mirror."""
    __dict__ = asking('__dict__')

    def __init_subclass__(cls):
        if '_end' not in vars(cls):
            cls._end.refuse(f'they derive {cls.__name__} from a class of the program')

    def __reduce_ex__(self, _):
        self._end.refuse('they copy or pickle an object of the program')


def names_of(cls):
    """Return the names for which a mirror asks, because object or a kind of BASES would answer."""
    base = next((kind for kind in cls.__mro__ if kind in BASES), object)
    return [name for name in SPECIAL.union(name for name in dir(base) if name[0] != '_')
            if getattr(cls, name, None) not in (None, getattr(base, name, None))]


# --- both ends ------------------------------------------------------------------------------------
def contents(container):
    """Return a list of what a container holds; of a dict the keys, then the values."""
    return [*container, *container.values()] if isinstance(container, dict) else [*container]


def tell(file, message):
    """Send a line."""
    file.write(json.dumps(message) + '\n')
    file.flush()


class End:
    """One end of the pipe. first: its numbers are odd or even."""
    named = NAMED.__getitem__
    operations = {
        'getattr': getattr, 'setattr': setattr, 'delattr': delattr,
        'getitem': operator.getitem,
        'special': lambda thing, name, /, *args, **more:
            getattr(type(thing), name)(thing, *args, **more)}

    def __init__(self, channel, first):
        self.channel = channel
        self.numbers = itertools.count(first, 2)
        self.known = {}         # {number: an object that both ends know, or its mirror}
        self.shared = {}        # {number of a container: its contents as both ends know them}
        self.new = []
        self.tags = {id(value): {'name': name} for name, value in NAMED.items()}
        self.decode = json.JSONDecoder(object_hook=self.build).decode
        self.lock = threading.RLock()

    def know(self, number, value):
        if number in self.known:        # no program puts its own in the place of the tests'
            raise KeyError(number)
        self.known[number] = value
        self.tags[id(value)] = {'known': number}
        return value

    def pack(self, value):
        """Return a value as what JSON knows: (1, 2.5) -> {'tuple': [1, 2.5]}."""
        kind = type(value)
        if value is None or kind in (bool, float, str) or kind is int and abs(value) < 1 << 63:
            return value
        if id(value) in self.tags:
            return self.tags[id(value)]
        if kind in COPIED:
            take_apart, _ = COPIED[kind]
            return {kind.__name__: [*map(self.pack, take_apart(value))]}
        if kind not in SHARED:
            return self.refer(value)
        number = next(self.numbers)
        self.know(number, value)
        self.shared[number] = []
        self.new.append({kind.__name__: [number, *map(self.pack, SHARED[kind](value))]})
        return self.tags[id(value)]

    def refer(self, value):
        """Return the number and the class of an object that stays here, as JSON."""
        number = next(self.numbers)
        self.know(number, value)
        if isinstance(value, type):
            bases = [self.pack(base) for base in value.__bases__ if base is not object]
            return {'class': [number, value.__name__, bases, names_of(value)]}
        base = next((kind for kind in type(value).__mro__ if kind in BASES), None)
        args = ()
        if base:
            args = value.args if base in ERRORS else base.__getnewargs__(value)
        return {'object': [number, self.pack(type(value)), *map(self.pack, args)]}

    def build(self, tagged):
        """Return the value that pack() sent."""
        (tag, parts), = tagged.items()
        if tag == 'known':
            return self.known[parts]
        if tag == 'name':
            return self.named(parts)
        if NAMED.get(tag) in COPIED:
            _, put_together = COPIED[NAMED[tag]]
            return put_together(*parts)
        number, *args = parts
        if tag == 'class':
            return self.know(number, self.mirror(*args))
        if tag == 'object':
            cls, *args = args
            if cls in BASES - ERRORS:
                raise TypeError(f'an object of the class {cls} crosses as a copy')
            cls = self.class_of(cls)
            return self.know(number, cls.__new__(cls, *args))
        self.shared[number] = []
        return self.know(number, NAMED[tag](*args))

    def fill(self, number, *items):
        """Replace all that a container holds."""
        if number not in self.shared:
            raise KeyError(number)
        container = self.known[number]
        container.clear()
        if isinstance(container, dict):     # update() of a Counter would add, dict's has no order
            half = len(items) // 2
            for key, value in zip(items[:half], items[half:]):
                container[key] = value
        else:
            (container.update if isinstance(container, set) else container.extend)(items)
        self.shared[number] = contents(container)

    def mirror(self, name, bases, names, **more):
        """Return the mirror of a class."""
        bases = [base if base in BASES else self.class_of(base) for base in bases]
        bases = [base for base in bases if isinstance(base, Mirror) or base in BASES]
        if not any(isinstance(base, Mirror) for base in bases):
            bases.insert(0, Thing)
        scope = {name: asking(name) for name in names if name in SPECIAL or name[0] != '_'}
        return Mirror(name, (*bases,), scope | more | {'_end': self, '__doc__': asking('__doc__')})

    def class_of(self, cls):
        """Return the class of mirrors of a class's objects; isinstance() asks __class__, too."""
        if isinstance(cls, Mirror):
            return cls
        if cls not in self.known:
            real = property(lambda _: cls)
            self.known[cls] = (self.mirror(cls.__name__, [cls], names_of(cls)) if cls in BASES else
                               self.mirror(cls.__name__, [], names_of(cls), __class__=real))
        return self.known[cls]

    def send(self, kind, *values):
        """Send a line: what it is, the containers that are new, those that changed here since the
        last line, values, and the numbers of the containers that nobody here refers to any more."""
        self.sending = kind
        alone = sys.getrefcount(ALONE[0])
        gone = [number for number in self.shared if sys.getrefcount(self.known[number]) == alone]
        changed = []
        values = [*map(self.pack, values)]
        while numbers := [number for number in self.shared if self.differs(number)]:
            for number in numbers:          # packing may add new ones
                self.shared[number] = contents(self.known[number])
                changed.append([number, *map(self.pack, self.shared[number])])
        self.forget(gone)
        tell(self.channel, [kind, self.new, changed, values, gone])
        self.new = []

    def differs(self, number):
        now, before = contents(self.known[number]), self.shared[number]
        return len(now) != len(before) or any(map(operator.is_not, now, before))

    def receive(self):
        """Return what the next line is, and its values."""
        line = self.channel.readline(MOST)
        if len(line) >= MOST:
            raise MemoryError(f'a value takes more than {MOST >> 20} MB')
        if not line.endswith('\n'):
            raise EOFError('the program left, or was killed')
        kind, _, changed, values, gone = self.decode(line)
        for items in changed:
            self.fill(*items)
        self.forget(gone)
        return kind, values

    def forget(self, gone):
        for number in gone:
            if self.shared.pop(number, None) is not None:
                del self.tags[id(self.known.pop(number))]

    def ask(self, operation, /, *args, **more):
        """Return what an operation at the other end returns, or raise what it raises. Meanwhile the
        other end may ask, too."""
        with self.lock:         # of threads
            self.send('ask', operation, (*more.items(),), *args)
            while (reply := self.receive())[0] == 'ask':
                self.answer(*reply[1])
        kind, (value,) = reply
        if kind == 'raised':
            raise value
        return value

    def answer(self, operation, more, *args):
        """Do what the other end asked for, and send how it ended."""
        try:
            self.permit(operation, *args)
            reply = 'returned', self.operations[operation](*args, **dict(more))
        except BaseException as e:
            reply = 'raised', e.with_traceback(None)
        try:
            self.send(*reply)
        except Exception as e:          # the value is too deep, too big, or strange
            self.send('raised', e.with_traceback(None))

    def special(self, thing, name, /, *args, **more):
        return self.ask('special', thing, name, *args, **more)
