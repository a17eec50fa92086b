"""The presets and README repeat the numbers of docs/numbers.md."""
import re

from conftest import ROOT


def test_each_percentage_and_each_time_of_a_preset_or_of_readme_is_on_the_page():
    page = (ROOT / 'docs/numbers.md').read_text(encoding='utf-8')
    rows = re.findall(r'^\| (config/\w+\.py).*? \| (.*?) \|', page, re.M)
    assert len(rows) > 5
    for name, row in [*rows, ('README.md', page)]:
        text = (ROOT / name).read_text(encoding='utf-8')
        if name == 'README.md':         # the table of the full run
            text = text.split('## What you will see')[1].split('\n## ')[0].replace('95% interval', '')
        numbers = re.findall(r'need (?:about )?([\d.]+) minutes|(\d[\d.]*%)', text)
        for number in map(''.join, numbers):
            assert number in re.findall(r'[\d.]+%?', row), (name, number)
    assert len(numbers) > 10
