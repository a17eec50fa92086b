"""The files of a source: found in folders, or downloaded once, continued after a break, and checked."""
import os

import pytest
from conftest import refused
from preparing import DOCUMENTS, RAW, kept, prepare, write

import prepare as script


# --- folders ------------------------------------------------------------------------------------------------
@pytest.mark.skipif(os.name == 'nt', reason='no links')
def test_links_to_files_are_read_and_those_to_folders_are_not(tmp_path):
    write(tmp_path / 'x', ['one'], 'one.txt')
    write(tmp_path / 'x/sub', ['two'], 'two.txt')
    write(tmp_path / 'x/.hidden', ['five'], 'five.txt')
    write(tmp_path / 'y', ['four'], 'four.txt')
    for name, to in (('a', '.'), ('b', '.'), ('sub/up', '..'), ('c.txt', 'one.txt'), ('far', '../y')):
        (tmp_path / 'x' / name).symlink_to(to)
    for pattern in ('', '/**', '/**/*.txt', '/sub/../**/*.txt'):
        found, _ = script.find_files(f'{tmp_path}/x{pattern}')
        paths = [os.path.relpath(path, tmp_path) for path in found]
        assert paths == ['x/c.txt', 'x/one.txt', 'x/sub/two.txt'], pattern


def test_plain_text_of_any_ending_is_read_and_what_is_passed_over_is_said(tmp_path):
    source = write(tmp_path / 'files', [f'{i} plain' for i in range(40)])
    for name in ('A.PY', 'b.markdown', 'c.HTML', 'c.rst', 'd.tex', 'd.org', 'd.adoc', 'd.c', 'e.pdf', 'f.pdf', 'f'):
        (source / name).write_text(f'{name} = 1\n', encoding='utf-8')
    printed = prepare(tmp_path / 'out', source, *RAW)
    assert len(kept(tmp_path / 'out')) == 48 and 'tokenizer: byte, 320' in printed
    for text in (printed, (tmp_path / 'out/report.md').read_text(encoding='utf-8')):
        assert text.count('2 .pdf, 1 without ending') == 1
    (tmp_path / 'c').mkdir()
    (source / 'e.pdf').rename(tmp_path / 'c/e.pdf')
    refused('it has 1 .pdf', script.find_files, str(tmp_path / 'c'))


def test_what_prepare_has_written_is_not_read_as_text(tmp_path):
    source = write(tmp_path / 'docs', DOCUMENTS)
    for _ in range(2):
        prepare(source / 'out', source, *RAW, '--audit=2')
        assert len(kept(source / 'out')) == len(DOCUMENTS)
    (source / 'out/val.bin').unlink()           # then it is somebody else's folder
    assert len(script.find_files(str(source))[0]) > len(DOCUMENTS)
