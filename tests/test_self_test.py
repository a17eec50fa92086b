"""python model.py: its parts, and whether it sees that a model does not learn or that the cache is wrong."""
import re

from conftest import ROOT, ok, run


def test_the_self_test_of_model_py_passes_and_sees_what_is_broken(tmp_path):
    """A model.py alone in a folder, as it is and with a line replaced."""
    printed = ok(run('model.py'))
    assert all(words in printed for words in ('5,180,672', '852,480', 'generates'))
    first, last = map(float, re.findall(r'loss (\d\.\d+)', printed))
    assert abs(first - 5.5452) < 0.1 and last < 0.5             # near ln(256), then learned by heart

    text = (ROOT / 'model.py').read_text(encoding='utf-8')
    for old, new, words in (
            ('x = x + self.dropout(self.attention(self.norm_1(x), *where))', '', 'does not learn'),
            ('k, v = cache[:, :, :, :start + T]', 'k, v = cache[:, :, :, 1:start + T]', 'look at the cache'),
            ('slice(start, start + T)', 'slice(0, T)', 'look at the cache')):
        assert old in text
        (tmp_path / 'model.py').write_text(text.replace(old, new), encoding='utf-8')
        broken = run(tmp_path / 'model.py')
        assert broken.returncode == 1 and words in broken.stderr, broken
