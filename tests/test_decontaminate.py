"""A benchmark's problem is found in whatever form the cleaning has left it: LaTeX, HTML, personal data."""
import json

import pytest
from conftest import ok, run
from test_funnel import prose
from test_prepare import documents, write
from test_stages import stage

PROBLEMS = [
    r'Let $x$ and $y$ be real numbers with $\frac{x}{y} + \frac{y}{x} = \sqrt{7}$ and $\binom{x}{2} \leq y$. '
    r'Find the value of $\frac{x^2}{y^2} + \frac{y^2}{x^2}$ and $\cos \theta$ when $\theta = \frac{\pi}{3}$.',
    'Is <b>a</b> and <i>b</i> if <b>c</b> is <i>x</i> times <b>d</b> and <i>e</i> is <b>six</b> by <i>f</i>',
    'Write to ann@firm.com, bob@firm.com or eve@firm.com before noon, and ask joe@firm.com what ida@firm.com '
    'and max@firm.com and tim@firm.com sold to sue@firm.com and una@firm.com today.']


@pytest.mark.parametrize('flags', [[], ['--strip_markup=False'], ['--pii=False'], ['--mode=raw']])
def test_a_problem_with_markup_or_addresses_is_found_in_every_document(flags, tmp_path):
    lines = '\n'.join(json.dumps({'problem': p}) for p in PROBLEMS)
    (tmp_path / 'bench.jsonl').write_text(lines, encoding='utf-8')
    guilty = [f'{prose(i)}\n\n{p}\n\n{prose(i + 50)}' for i, p in enumerate(PROBLEMS)]
    guilty += [r'\section{One} ' + guilty[0], rf'\emph{{One}} {guilty[2]}', f'<p>{guilty[2]}</p>']
    source = write(tmp_path / 'files', [prose(100 + i) for i in range(30)] + guilty)
    ok(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/out', '--tokenizer=byte',
           '--dedup=none', '--val_fraction=0.3', f'--decontaminate={tmp_path}/bench.jsonl', *flags))
    assert stage(tmp_path / 'out', 'decontaminate')['dropped'] == {'in a benchmark': len(guilty)}
    assert len(sum(documents(tmp_path / 'out').values(), [])) == 30
