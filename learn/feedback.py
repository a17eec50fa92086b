"""
What a test says when a function that somebody wrote for an exercise is wrong, in three lines:

    pass_at_k(n=2, c=1, k=1)
      found:    0.75
      expected: 0.5

learn/exercise.py prints these lines and nothing else of pytest's report.
"""
import math
import pathlib
import re
import traceback

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[1]


def short(value, longest=150):
    """Return a value in one line."""
    value = getattr(value, 'expected', value)           # of pytest.approx
    if isinstance(value, np.ndarray | torch.Tensor):
        shape = tuple(value.shape)
        value = value.tolist() if math.prod(shape) <= 8 else f'numbers of the shape {shape}'
    if isinstance(value, float):
        return f'{value:.7g}'
    if isinstance(value, list | tuple) and any(isinstance(item, float) for item in value):
        value = [float(f'{item:.7g}') for item in value]
    text = ' '.join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= longest else f'{text[:longest]} ...'


def told(given, found, expected):
    """Return the three lines. given says what went in; a text says itself what was found or expected."""
    return f'{short(given, 250)}\n  found:    {short(found)}\n  expected: {short(expected)}'


def raised(error):
    """Return an error in one line, with its place in the file that is not a test's. If a whole script ran
    and failed, conftest.ok raises what it printed: then the end of that counts."""
    said = str(error).strip()
    if isinstance(error, AssertionError):
        places = re.findall(r'File "(.+)", line (\d+)', said)
        said = (said.splitlines() or ['it failed'])[-1]
    else:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        said = f'{type(error).__name__}: {said}'.splitlines()[0]
    for file, line in reversed(places):
        file = pathlib.Path(ROOT, file)         # a function that was lifted out of a script has only its name
        if file.exists() and file.is_relative_to(ROOT) and not {'tests', 'learn'} & {*file.relative_to(ROOT).parts[:-1]}:
            return f'{short(said)} ({file.name}, line {line})'
    return said


def differ(found, expected, tolerance):
    """Return None if the two are alike, else how each of them is to be described."""
    if isinstance(expected, np.ndarray | torch.Tensor):
        if not isinstance(found, type(expected)):
            return f'a {type(found).__name__}', f'a {type(expected).__name__}'
        if tuple(found.shape) != tuple(expected.shape):
            return f'the shape {tuple(found.shape)}', f'the shape {tuple(expected.shape)}'
        if not tolerance and found.dtype != expected.dtype:
            return f'the type {found.dtype}', f'the type {expected.dtype}'
        a, b = (x.detach().to(torch.float64 if x.is_floating_point() else x.dtype).numpy()
                if isinstance(x, torch.Tensor) else x for x in (found, expected))
        wrong = ~(np.abs(a - b) <= tolerance) if tolerance else a != b         # nan is wrong
        if not wrong.any():
            return None
        if a.size <= 8:
            return a, b
        where = tuple(np.argwhere(wrong)[0].tolist())
        return tuple(f'{short(x[where].item())} at {list(where)}' for x in (a, b))
    if type(found) is type(expected) in (list, str) and found != expected and len(repr(expected)) > 150:
        where = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), None)
        if where is None:
            return f'{len(found)} items', f'{len(expected)} items'
        return tuple(f'{short(repr(x[where]))} at [{where}]' for x in (found, expected))
    return None if found == expected else (found, expected)


def attempt(given, expected, call, *arguments, **named):
    """Return what a call returns. If it raises an error, then this error is what was found."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        raise AssertionError(told(given, raised(error), expected)) from error


def expect(given, expected, call, *arguments, tolerance=0.0, **named):
    """Assert that a call returns what is expected, tensors and arrays within a tolerance. given: the input,
    in words or as code."""
    found = attempt(given, expected, call, *arguments, **named)
    different = differ(found, expected, tolerance)
    assert different is None, told(given, *different)
