"""
Support for unittest, doctest and pytest tests: questions.py puts this text before the tests and a
call of run_found() after them, so that the sandbox runs all tests that these tools would collect. A
process that exits has no verdict. So unittest.main() and pytest.main() do not exit here.
"""
import doctest, sys, types, unittest

__name__, __file__ = '__main__', 'tests'


def try_examples(*_, try_all=doctest.testmod, **how):
    """Do what doctest.testmod() does with the examples of the tests, or if they have none, of the
    program. An AssertionError says that one fails, or that there is none."""
    program, tests = sys.modules['program'], types.ModuleType('tests')
    tests.__test__ = {name: value for name, value in globals().items() if name not in HERE
                      and type(value) in (str, types.FunctionType, type)
                      and '>>>' in str(value if type(value) is str else value.__doc__)}
    found = try_all(tests if tests.__test__ else program,
                    **how | {'extraglobs': vars(program) | globals()})
    if found.failed or not found.attempted:
        raise AssertionError(f'{found.failed} of {found.attempted} examples failed')
    return found


def run_found():
    """Run functions test...(), and the methods of TestCases and of classes Test..."""
    for name, found in [*globals().items()]:
        if name in HERE or getattr(found, '__module__', '') != '__main__':
            continue
        if isinstance(found, types.FunctionType) and name.startswith('test'):
            # other tests call functions that need arguments
            if found.__code__.co_argcount == len(found.__defaults__ or ()):
                found()
        elif type(found) is type and (name[:4] == 'Test' or issubclass(found, unittest.TestCase)):
            # Leave out methods with @skip or @expectedFailure. A SkipTest is an error, because the
            # program may have raised it.
            out = {x: None for x in dir(found) if '__unittest_' in str(dir(getattr(found, x)))}
            case = type(name, (found, unittest.TestCase), out)
            unittest.defaultTestLoader.loadTestsFromTestCase(case).debug()


doctest.testmod = try_examples
# what unittest.main() and pytest.main() return here: 0, and what has a result
PASSED = type('Passed', (int,), {'result': unittest.TestResult()})()
HERE = {*globals()} - {'__doc__'}        # that of the tests comes below
