"""python model.py: its parts, and whether it sees that a model does not learn or that the cache is wrong."""
import re
import subprocess
import sys

import pytest
from conftest import ROOT


def say(tmp_path, old='', new=''):
    """What a model.py says that lies alone in a folder, with this text replaced."""
    text = (ROOT / 'model.py').read_text(encoding='utf-8')
    assert old in text
    (tmp_path / 'model.py').write_text(text.replace(old, new) if old else text, encoding='utf-8')
    return subprocess.run([sys.executable, 'model.py'], cwd=tmp_path, capture_output=True, text=True)


def test_it_prints_sizes_and_a_loss_near_ln_V_and_learns_and_generates(tmp_path):
    done = say(tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in ('5,180,672', '852,480', 'generates'))
    first, last = map(float, re.findall(r'loss (\d\.\d+)', done.stdout))
    assert abs(first - 5.5452) < 0.1 and last < 0.5


@pytest.mark.parametrize('old, new, words', [
    ('x = x + self.dropout(self.attention(self.norm_1(x), *where))', '', 'does not learn'),
    ('k, v = cache[:, :, :, :start + T]', 'k, v = cache[:, :, :, 1:start + T]', 'look at the cache'),
    ('slice(start, start + T)', 'slice(0, T)', 'look at the cache')])
def test_a_model_that_is_broken_fails(tmp_path, old, new, words):
    done = say(tmp_path, old, new)
    assert done.returncode == 1 and words in done.stderr, done.stdout + done.stderr
