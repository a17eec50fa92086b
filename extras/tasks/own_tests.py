"""
Support for unittest and pytest tests: questions.py inserts this file before the tests and a call of
run_found() after the tests. __name__ is 'tests' there, so `if __name__ == '__main__':` is false,
and unittest.main() does not exit, because a process that exits has no verdict. questions.py
replaces pytest.main() by unittest.main().
"""
import sys

# The tests get a new copy of unittest, because the program may have changed its own.
for name in [name for name in sys.modules if name.startswith('unittest')]:
    del sys.modules[name]
import traceback, types, unittest      # noqa: E402

__file__ = 'tests'          # pytest.main([__file__])


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
    """Initialize a SkipTest. Test code may skip a test, but the program under test may not."""
    frames = traceback.walk_stack(sys._getframe())
    if 'program' in [frame.f_code.co_filename for frame, _ in frames]:
        raise AssertionError('the program skips its tests')


def run_found():
    """Run functions test...(), and the tests in TestCases and in classes Test..."""
    # setUpModule and pickle look up this module
    module = sys.modules['tests'] = types.ModuleType('tests')
    vars(module).update({name: found for name, found in globals().items() if name not in HERE})
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    for name, found in vars(module).items():
        if getattr(found, '__module__', '') != 'tests':
            continue
        if isinstance(found, types.FunctionType) and name.startswith('test'):
            # a function that needs arguments is called by another test
            if found.__code__.co_argcount == len(found.__defaults__ or ()):
                suite.addTest(unittest.FunctionTestCase(found))
        # a TestCase is in the suite already, and with it the tests of its base classes
        elif type(found) is type and name.startswith('Test') and not any(
                issubclass(each, unittest.TestCase) for each in (found, *found.__subclasses__())):
            case = type(name, (found, unittest.TestCase), {})
            suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    suite.run(FIRST_ERROR)


unittest.SkipTest.__init__ = init_skip
# The return value of unittest.main() here: 0, with an attribute `result`.
PASSED = type('Passed', (int,), {'result': unittest.TestResult()})()
unittest.main = lambda *_, **__: PASSED
FIRST_ERROR = FirstError()
HERE = {*globals()}
