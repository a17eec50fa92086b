"""The stages of prepare.py through its settings: what each removes, and that it can be switched off."""
import json

import pytest
from conftest import ROOT, SHARED, mistake, ok, run
from test_prepare import documents, report, write

from parts.prepare import conversions

PROSE = ['The old mill stood by the river, and every spring the water rose until it reached the second step '
         f'of the stair; in the year {1800 + i} it came as far as the door, and nobody slept that night.\n'
         for i in range(0, 120, 3)]
GERMAN = ['Die alte Mühle stand am Fluss, und in jedem Frühling stieg das Wasser, bis es die zweite Stufe '
          f'der Treppe erreichte; im Jahre {1800 + i} kam es bis zur Tür, und niemand schlief in der Nacht\n'
          for i in range(0, 60, 3)]


def stage(out, name):
    return next(s for s in report(out)['stages'] if s['name'] == name)


def prepare(out, source, *flags):
    return ok(run('prepare.py', f'--source={source}', f'--out_dir={out}', '--tokenizer=byte', '--dedup=none',
                  '--val_fraction=0.3', *flags))


def kept(out):
    found = documents(out)
    return sorted(found['train'] + found['val'])


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def records(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def test_languages_are_kept_by_name(tmp_path):
    source = write(tmp_path / 'files', PROSE + GERMAN)
    prepare(tmp_path / 'de', source, '--languages=de')
    assert kept(tmp_path / 'de') == sorted(t.strip() for t in GERMAN)
    assert stage(tmp_path / 'de', 'language')['dropped'] == {'language en': 40}
    prepare(tmp_path / 'all', source)
    assert len(kept(tmp_path / 'all')) == 60
    mistake(run('prepare.py', f'--source={source}', '--languages=klingon'), 'klingon', 'de')


def test_addresses_and_licences_are_kept_or_not(tmp_path):
    hosts = ['a.org', 'sub.spam.com', 'ok.spam.com', 'best-casino.com', 'essex.ac.uk'] * 8
    rows = [{'text': t, 'url': f'https://{host}/x', 'license': licence}
            for t, host, licence in zip(PROSE, hosts, ['MIT', 'GPL'] * 20)]
    source = records(tmp_path / 'x.jsonl', rows)
    (tmp_path / 'block').write_text('\ufeff.Spam.com\n# mine\n', encoding='utf-8')
    (tmp_path / 'allow').write_text('https://www.ok.spam.com/index.html\n', encoding='utf-8')
    prepare(tmp_path / 'out', source, f'--url_block={tmp_path}/block', f'--url_allow={tmp_path}/allow')
    assert stage(tmp_path / 'out', 'source')['dropped'] == {'blocked domain': 8, 'spam domain': 8}
    assert report(tmp_path / 'out')['sources'][str(source)]['licences'] == {'mit': 12, 'gpl': 12}      # kept
    prepare(tmp_path / 'mit', source, '--licences=mit,bsd', f'--url_allow={tmp_path}/allow')
    assert stage(tmp_path / 'mit', 'source')['dropped']['licence gpl'] == 20
    (tmp_path / 'latin').write_bytes('müller.de'.encode('latin-1'))
    mistake(run('prepare.py', f'--source={source}', f'--url_block={tmp_path}/latin'), 'latin', 'UTF-8')


def test_of_several_licences_all_must_be_wanted(tmp_path):
    several = ['mit'], ['MIT', 'GPL-3.0'], ['MIT', 'BSD'], []
    rows = [{'text': t, 'license': several[i % 4]} for i, t in enumerate(PROSE)]
    prepare(tmp_path / 'out', records(tmp_path / 'x.jsonl', rows), '--licences=mit, BSD')
    assert stage(tmp_path / 'out', 'source')['dropped'] == {'licence mit, gpl-3.0': 10, 'licence unknown': 10}


def test_a_reference_text_cuts_what_is_too_predictable_and_what_is_noise(tmp_path):
    noise = ['qx7 zvk jwq xkz 4kq wjx qqz vkx zzj kwq xjq zkv 9qx jzk wvq kxz qjw zxk vqj xkw jqz kvx\n'] * 5
    stale = ['python train.py config/quickstart.py ' * 30] * 3              # the reference is full of it
    source = records(tmp_path / 'x.jsonl', [{'text': t} for t in PROSE + noise + stale + GERMAN])
    flags = [f'--perplexity_reference={ROOT}/*.md', '--max_gibberish=0', '--max_repetition=0']
    prepare(tmp_path / 'out', source, *flags, '--min_bits=1.5')
    assert stage(tmp_path / 'out', 'models')['dropped'] == {'too surprising': 25, 'too predictable': 3}
    assert kept(tmp_path / 'out') == sorted(t.strip() for t in PROSE)
    bits = report(tmp_path / 'out')['counts']['documents by bits per byte']
    assert sum(bits.values()) == 68 and min(map(float, bits)) < 1.5 < 5 < max(map(float, bits))


def test_a_classifier_learns_good_from_bad_examples(tmp_path):
    spam = [f'Buy now!!! {i} pills at the lowest price, click here, free shipping, win a prize, order today, '
            f'limited offer, casino bonus {i * 7}, click click click here now\n' for i in range(30)]
    write(tmp_path / 'good', PROSE[:20])
    write(tmp_path / 'bad', spam[:15])
    source = write(tmp_path / 'files', PROSE[20:] + spam[15:])
    prepare(tmp_path / 'out', source, f'--quality_good={tmp_path}/good', f'--quality_bad={tmp_path}/bad')
    assert kept(tmp_path / 'out') == sorted(t.strip() for t in PROSE[20:])
    mistake(run('prepare.py', f'--source={source}', f'--quality_good={tmp_path}/good'), 'quality_bad')


def test_toxic_words_remove_and_say_what_they_removed(tmp_path):
    (tmp_path / 'words').write_text('vile\nfoul # and its comment\n', encoding='utf-8')
    bad = ['This vile, vile thing is foul. ' + PROSE[0], 'One vile word. ' + ' '.join(PROSE)]
    source = write(tmp_path / 'files', PROSE + bad)
    prepare(tmp_path / 'out', source, f'--toxic_words={tmp_path}/words')
    assert stage(tmp_path / 'out', 'models')['dropped'] == {'toxic': 1}     # one word in 1,400 is not much
    assert report(tmp_path / 'out')['counts']['toxic words in what was dropped'] == {'vile': 2, 'foul': 1}


def test_personal_data_become_placeholders_and_are_counted_by_source(tmp_path):
    source = write(tmp_path / 'files', [t + f'Write to ann{i}@uni.edu.\n' for i, t in enumerate(PROSE)])
    prepare(tmp_path / 'out', source)
    assert all('<EMAIL>' in t and '@' not in t for t in kept(tmp_path / 'out'))
    assert report(tmp_path / 'out')['counts'][f'personal data in {source}'] == {'email': 40}
    prepare(tmp_path / 'off', source, '--pii=False')
    assert all('@uni.edu' in t for t in kept(tmp_path / 'off'))


def test_rules_are_switched_off_by_zero(tmp_path):
    odd = ['short', '= ' * 200 + 'x', 'buy ' * 300, 'xkcdvbnm ' * 30]
    source = write(tmp_path / 'files', PROSE + odd)
    prepare(tmp_path / 'on', source)
    assert stage(tmp_path / 'on', 'rules')['dropped'] == {'short': 1, 'symbols': 1, 'repetitive': 2}
    prepare(tmp_path / 'off', source, *(f'--{name}=0' for name in (
        'min_words', 'max_words', 'max_symbols', 'max_repetition', 'max_gibberish')))
    assert len(kept(tmp_path / 'off')) == 44


@pytest.mark.parametrize('name, n, dropped', [
    ('code_alpaca_2k.json', 2017, 2), ('gsm8k_train.jsonl', 7473, 0),
    ('vicuna_dummy_conversation.json', 500, 0)])
def test_real_conversations_become_messages(tmp_path, name, n, dropped):
    if not (SHARED / name).exists():
        pytest.skip(f'{name} is not here')
    ok(run('prepare.py', '--kind=sft', f'--source={SHARED / name}', f'--out_dir={tmp_path}', '--dedup=none'))
    train, val = (lines(tmp_path / f'{side}.jsonl') for side in ('train', 'val'))
    assert len(train) + len(val) == n - dropped
    assert all(row['messages'][-1]['role'] == 'assistant' for row in train + val)
    asked = [{row['messages'][0]['content'] for row in side} for side in (train, val)]
    assert asked[1] and not asked[0] & asked[1]                 # a question is on one side only


@pytest.mark.parametrize('form', ['alpaca', 'vicuna'])
def test_conversations_of_every_form_come_back(tmp_path, form):
    rows = [{'messages': [{'role': r, 'content': f'{i} {j} naïve'} for j, r in enumerate(
        ['system'] * (i % 2) + ['user', 'assistant'] * (1 + i % 3))]} for i in range(30)]
    convert = {'alpaca': conversions.to_alpaca, 'vicuna': conversions.to_vicuna}[form]
    source = records(tmp_path / 'x.jsonl', [convert(row['messages']) for row in rows])
    back = tmp_path / 'back'
    ok(run('prepare.py', '--kind=sft', '--dedup=none', '--val_fraction=0.3', f'--source={source}',
           f'--out_dir={back}'))
    found = lines(back / 'train.jsonl') + lines(back / 'val.jsonl')
    assert sorted(map(str, found)) == sorted(map(str, rows))


def test_preferences_are_filtered_by_margin_and_agreement(tmp_path):
    rows = [{'prompt': f'q{i}', 'chosen': 'yes', 'rejected': 'no', 'margin': i / 10, 'agreement': 1 - i / 50}
            for i in range(20)] + [{'prompt': 'same', 'chosen': 'x', 'rejected': ' x'}, {'prompt': 'p'}]
    source = records(tmp_path / 'x.jsonl', rows)
    ok(run('prepare.py', '--kind=preference', f'--source={source}', f'--out_dir={tmp_path}/out',
           '--dedup=none', '--min_margin=0.5', '--min_agreement=0.7', '--val_fraction=0.3'))
    dropped = stage(tmp_path / 'out', 'rules')['dropped']
    assert dropped == {'small margin': 5, 'little agreement': 4, 'equal answers': 1}
    assert report(tmp_path / 'out')['malformed'] == 1
