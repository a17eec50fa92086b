"""
Support for unittest, doctest and pytest tests: questions.py inserts this file before the tests and
a call of run_found() after the tests, so that the sandbox runs all tests that these tools find.
unittest.main() and pytest.main() do not exit here, because a process that exits has no verdict.
"""
import doctest, sys, types, unittest

__name__, __file__ = '__main__', 'tests'


def try_examples(*_, try_all=doctest.testmod, **how):
    """Run doctest.testmod() on the examples in the tests, or in the program if the tests have none.
    Raise AssertionError if an example fails, or if there are no examples."""
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
    """Run functions test...(), and the tests in TestCases and in classes Test..."""
    for name, found in [*globals().items()]:
        if name in HERE or getattr(found, '__module__', '') != '__main__':
            continue
        if isinstance(found, types.FunctionType) and name.startswith('test'):
            # a function that needs arguments is called by another test
            if found.__code__.co_argcount == len(found.__defaults__ or ()):
                found()
        elif type(found) is type and (name[:4] == 'Test' or issubclass(found, unittest.TestCase)):
            # Leave out methods with @skip or @expectedFailure. A SkipTest is an error, because the
            # program may have raised it.
            out = {x: None for x in dir(found) if '__unittest_' in str(dir(getattr(found, x)))}
            case = type(name, (found, unittest.TestCase), out)
            unittest.defaultTestLoader.loadTestsFromTestCase(case).debug()


doctest.testmod = try_examples
# The return value of unittest.main() and pytest.main() here: 0, with an attribute `result`.
PASSED = type('Passed', (int,), {'result': unittest.TestResult()})()
HERE = {*globals()} - {'__doc__'}        # the tests set their own __doc__
