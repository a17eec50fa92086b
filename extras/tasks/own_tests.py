"""
Support for unittest and pytest tests: questions.py inserts this file before the tests and a call of
run_found() after the tests. __name__ is 'tests' there, so `if __name__ == '__main__':` is false,
and unittest.main() does not exit, because a process that exits has no verdict.
"""
import types, unittest

# The return value of unittest.main() here: 0, with an attribute `result`.
PASSED = type('Passed', (int,), {'result': unittest.TestResult()})()
unittest.main = lambda *_, **__: PASSED


def run_found():
    """Run functions test...(), and the tests in TestCases and in classes Test..."""
    for name, found in [*globals().items()]:
        if getattr(found, '__module__', '') != 'tests':
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
