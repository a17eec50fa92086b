"""
Support for unittest, doctest and pytest tests: questions.py inserts this file before the tests and
a call of run_found() after the tests, so that the sandbox runs all tests that these tools find.
unittest.main() and pytest.main() do not exit here, because a process that exits has no verdict.
"""
import sys

# The tests get new copies of these modules, because the program may have changed its own.
for name in [name for name in sys.modules if name.startswith(('unittest', 'doctest'))]:
    del sys.modules[name]
import doctest, traceback, types, unittest      # noqa: E402

__name__, __file__ = '__main__', 'tests'


def try_examples(*_, try_all=doctest.testmod, **how):
    """Run doctest.testmod() on the examples in the tests, or in the program if the tests have none.
    Raise AssertionError if an example fails, or if there are no examples."""
    program, tests = sys.modules['program'], types.ModuleType('tests')
    tests.__test__ = {name: value for name, value in globals().items() if name not in HERE
                      and type(value) in (str, types.FunctionType, type)
                      and '>>>' in str(value if type(value) is str else value.__doc__)}
    tests.__test__ |= globals().get('__test__', {})
    found = try_all(tests if tests.__test__ else program,
                    **how | {'extraglobs': vars(program) | globals()})
    if found.failed or not found.attempted:
        raise AssertionError(f'{found.failed} of {found.attempted} examples failed')
    return found


class FirstError(unittest.TestResult):
    """Raise the first error of a test, so that the sandbox sees its type and message."""
    def addError(self, test, error):
        raise error[1]

    def addSubTest(self, test, subtest, error):
        if error:
            raise error[1]

    def addUnexpectedSuccess(self, test):
        raise AssertionError(f'{test.id()} should fail')

    addFailure = addError


def init_skip(self, *reason):
    """Initialize a SkipTest. The tests may skip some of them, but the program may not."""
    frames = traceback.walk_stack(sys._getframe())
    if 'program' in [frame.f_code.co_filename for frame, _ in frames]:
        raise AssertionError('the program skips its tests')


def run_found():
    """Run functions test...(), and the tests in TestCases and in classes Test..."""
    # setUpModule and pickle look up this module
    module = sys.modules['__main__'] = types.ModuleType('__main__')
    vars(module).update({name: found for name, found in globals().items() if name not in HERE})
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    for name, found in vars(module).items():
        if getattr(found, '__module__', '') != '__main__':
            continue
        if isinstance(found, types.FunctionType) and name.startswith('test'):
            # a function that needs arguments is called by another test
            if found.__code__.co_argcount == len(found.__defaults__ or ()):
                suite.addTest(unittest.FunctionTestCase(found))
        elif type(found) is type and name.startswith('Test') and not (
                found.__subclasses__() or issubclass(found, unittest.TestCase)):
            case = type(name, (found, unittest.TestCase), {})
            suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    suite.run(FIRST_ERROR)


doctest.testmod = try_examples
unittest.SkipTest.__init__ = init_skip
# The return value of unittest.main() and pytest.main() here: 0, with an attribute `result`.
PASSED = type('Passed', (int,), {'result': unittest.TestResult()})()
FIRST_ERROR = FirstError()
HERE = {*globals()} - {'__doc__'}        # the tests set their own __doc__
