"""The doors of prepare.py: conversations, pairs, judged answers, mixtures and filters, and what
each must and must not drop."""
import collections
import json
import math
import random

import numpy as np
import pytest
from conftest import ROOT, mistake, ok, read_rows, refused, run, shared
from preparing import PROSE, RAW, as_text, dropped, kept, line_of, prepare, prose, read
from preparing import records, report, write, write_records

from extras import text_quality


# --- conversations and pairs ----------------------------------------------------------------------
def prepared(tmp_path, kind, rows, *flags):
    prepare(tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows), f'--kind={kind}', *flags)
    return tmp_path / 'out'


@pytest.mark.parametrize('name, n', [
    ('code_alpaca_2k.json', 2017 - 2), ('vicuna_dummy_conversation.json', 500)])
def test_every_record_of_real_files_arrives(name, n, tmp_path):
    prepare(tmp_path, shared(name), '--kind=sft', '--dedup=none')
    assert len(records(tmp_path)) == n


def test_conversations_with_one_beginning_stay_together_and_a_system_message_is_none(tmp_path):
    rows = [line_of('system: s | ' * (i // 30) + f'user: q{i % 30} | assistant: a{i}')
            for i in range(90)]         # none, one or two of them
    out = prepared(tmp_path, 'sft', rows, '--dedup=exact')
    train, val = ({row['messages'][-2]['content'] for row in read_rows(out / f'{side}.jsonl')}
                  for side in ('train', 'val'))
    assert len(records(out)) == 90 and len(train | val) == 30
    assert train and val and not train & val


# a conversation, and what speaks against it
REASONS = r"""
user: a | assistant: b | user: c | assistant: d
user: a | assistant: b | assistant: c -> roles do not alternate
tool: a | user: b | assistant: c -> roles do not alternate
user: a | assistant: calls | tool: x | tool: y | assistant: b
user: a | assistant:  \n -> empty answer
user: \n | assistant: b -> empty message
user: a | assistant: It is\n```python\nx = = 1\n```\nDone. -> code does not parse
user: a | assistant: ```python\nx = 1\n```\n```python\nx = = 1\n``` -> code does not parse
user: ```python\nx = = 1\n``` | assistant: b
user: a | assistant: ```python\n>>> 1 +\n1\n```
user: a | assistant: ```js\nx = = 1\n```
user: a | assistant: 1. Run:\n\n   ```python\n   if x:\n       y\n   ```\n2. Done."""
SCORES = [({'score': '4.5'}, None), ({'score': None}, None), ({'rating': 3.9}, 'low score'),
          ({'score': 'good'}, 'low score'), ({'score': 10 ** 400}, 'low score')]


def test_conversations_are_dropped_for_their_reasons(tmp_path):
    table = [(line_of(talk), {}, reason) for talk, _, reason in
             (line.partition(' -> ') for line in REASONS.strip().split('\n'))]
    table += [(line_of(f'user: {score} | assistant: b'), score, reason) for score, reason in SCORES]
    out = prepared(tmp_path, 'sft', [{**row, **score} for row, score, _ in table], '--dedup=none',
                   '--min_score=4')
    assert as_text(records(out)) == as_text(row for row, _, reason in table if not reason)
    assert dropped(out) == collections.Counter(reason for *_, reason in table if reason)


def test_pairs_and_thumbs_go_through_as_they_are_but_for_what_the_limits_and_copies_drop(tmp_path):
    rows = [line_of(f'user: q{i} | chosen: yes | rejected: no | margin: {i / 10} | '
                    f'agreement: {1 - i / 50}') for i in range(20)]
    # each field and the label count, and where one ends and the next begins
    fine = [line_of(words) for words in (
        'user: q | completion: q | label: false', 'user: q | completion: q | label: true',
        'user: q | chosen: 2 | rejected: 22', 'user: q | chosen: 22 | rejected: 2')]
    bad = [line_of(words) for words in (
        'user: same | chosen: x | rejected:  x', 'user: q | completion:   | label: true',
        'user: q | chosen: x | rejected: ', 'user:  q | chosen: 2 | rejected: 2 2',
        'user:   | chosen: x | rejected: y', 'user:   | completion: x | label: true')]
    out = prepared(tmp_path, 'preference', rows + fine + bad, '--min_margin=0.5',
                   '--min_agreement=0.7')
    assert dropped(out) == {'small margin': 5, 'little agreement': 4, 'equal answers': 1,
                            'empty answer': 2, 'empty message': 2, 'exact duplicate': 1}
    assert as_text(records(out)) == as_text(rows[5:16] + fine)


# --- answers that eval.py has judged --------------------------------------------------------------
def sampled(task_id, outcomes):
    """What eval.py writes of answers, 'a passed!, b wrong': ! is good taste."""
    answers = [answer.split() for answer in outcomes.split(', ')]
    return [{'task': 'problems', 'task_id': task_id, 'completion': text,
             'prompt': f'do {task_id}', 'outcome': outcome.strip('!'),
             'preferred': '!' in outcome} for text, outcome in answers]


@pytest.mark.parametrize('prefer, pairs, answers', [
    ('passed', 'ac bd af 0x 1x 2x 3x', 'abgyz0123'), ('taste', 'ab yz', 'ay'),
    ('both', 'ac bd af ab yz 0x 1x 2x 3x', 'abgyz0123')])
def test_of_judged_answers_passed_and_tasteful_ones_are_taught_at_most_four_of_a_problem(
        tmp_path, prefer, pairs, answers):
    samples = sampled(1, 'a passed!, c wrong, b passed, d timeout')
    samples += sampled(2, 'g passed') + sampled(3, 'h wrong')
    samples += sampled(4, ', '.join(['x wrong', *(f'{i} passed' for i in range(9))]))
    samples += sampled(5, 'y passed!, z passed')
    samples += sampled(1, 'a passed!, e infrastructure, f exception!, i ungraded')
    # damaged; and so large that a file of texts would be cut in pieces
    samples += [{**samples[0], 'completion': None}, {'prompt': ' ' * 17_000_000}]
    out = prepared(tmp_path, 'preference', samples, '--mode=raw', f'--prefer={prefer}')
    assert sorted(row['chosen'] + row['rejected'] for row in records(out)) == sorted(pairs.split())
    out = prepared(tmp_path, 'sft', samples, '--mode=raw', f'--prefer={prefer}', '--dedup=none')
    said = [row['messages'][-1]['content'] for row in records(out)]
    assert sorted(said) == sorted(answers) and report(out)['malformed'] == 2


def test_of_joined_files_one_name_may_mean_two_questions(tmp_path):
    samples = sampled(1, 'a passed, b wrong')
    samples += [{**row, 'prompt': 'other', 'completion': f'{row["completion"]}{row["completion"]}'}
                for row in samples]
    rows = records(prepared(tmp_path, 'preference', samples, '--mode=raw'))
    assert {row['chosen'] + row['rejected'] for row in rows} == {'ab', 'aabb'}


# --- several sources ------------------------------------------------------------------------------
WEIGHTS = {'web': 50, 'code': 15, 'books': 35}


@pytest.fixture
def corpora(tmp_path):
    """A file of records for each source; each text begins with the name of its source."""
    for name, n in (('web', 400), ('code', 120), ('books', 40)):
        rows = [{'text': f'{name} {prose(i, 8)}'} for i in range(n)]
        write_records(tmp_path / f'{name}.jsonl', rows)
    return tmp_path


def mix(folder, weights, *flags, check=ok):
    """Mix FOLDER/NAME.jsonl with these weights."""
    sources = {name: (str(folder / f'{name}.jsonl'), weight) for name, weight in weights.items()}
    (folder / 'mix.py').write_text(f'sources = {sources!r}\n', encoding='utf-8')
    check(run('prepare.py', folder / 'mix.py', '--overwrite=True', f'--out_dir={folder}/data',
              '--tokenizer=byte', *RAW, *flags))


def test_weights_become_passes_over_sources_that_train_bin_holds_once(corpora):
    data = corpora / 'data'
    mix(corpora, WEIGHTS)
    meta, tok, bins = read(data)
    end, validation = 0, b''
    for name, weight in WEIGHTS.items():
        s = meta['sources'][name]
        held_out = np.fromfile(data / f'val_{name}.bin', meta['dtype'])     # each has its own file
        for ids in bins['train'][end:end + s['tokens']], held_out:
            texts = tok.decode(ids).split('<|endoftext|>')[:-1]
            assert {text.split()[0] for text in texts} == {name}
        n = s['tokens'] * s['passes']
        assert n == pytest.approx(weight / 100 * len(bins['train']), rel=1e-4)
        end += s['tokens']
        validation += held_out.tobytes()
    assert end == len(bins['train']) and validation == bins['val'].tobytes()
    # other scripts add these up
    assert [*meta['documents']] == [*meta['tokens']] == ['train', 'val']

    mix(corpora, dict.fromkeys(WEIGHTS), '--temperature=5')                 # flattens the shares
    meta = read(data)[0]
    powers = {name: s['tokens'] ** (1 / 5) for name, s in meta['sources'].items()}
    for name, s in meta['sources'].items():
        share = powers[name] / sum(powers.values())
        assert s['tokens'] * s['passes'] == pytest.approx(share * meta['tokens']['train'], rel=1e-4)
    mix(corpora, {'books': 1})                                             # stale files go
    assert not [*data.glob('val_*.bin')]


def test_a_source_of_copies_is_named(corpora):
    (corpora / 'again.jsonl').write_bytes((corpora / 'web.jsonl').read_bytes())
    words = 'from the source again (400 in all', 'exact duplicate: 400; of copies, the first'
    mix(corpora, {'web': 1, 'again': 1}, '--dedup=exact',
        check=lambda result: mistake(result, *words))


# --- models of text -------------------------------------------------------------------------------
GERMAN = ['Die alte Mühle stand am Fluss, und in jedem Frühling stieg das Wasser, bis es die '
          f'zweite Stufe der Treppe erreichte; im Jahre {1800 + i} kam es bis zur Tür, und niemand '
          'schlief\n'
          for i in range(0, 60, 3)]


def test_bits_per_byte_are_those_of_a_calculation_by_hand():
    """After `aab`, each probability is smoothed by that of the next shorter n-gram."""
    p_a = (2 + 4 / 256) / (3 + 4)           # a is 2 of 3 bytes
    p_b = (1 + 4 / 256) / (3 + 4)
    p_ab = (1 + 4 * p_b) / (2 + 4)          # and after one of two a comes b
    model = text_quality.NgramModel(['aab'], order=2)
    assert model.bits_per_byte('ab') == pytest.approx(-math.log2(p_a * p_ab) / 2, abs=1e-6)


# the same sentence, written for this test and not used to choose anything
SENTENCES = """
ar لم نذهب إلى الجبال من قبل، لكن أصدقاءنا أخبرونا كم هي جميلة في الشتاء.
de Wir waren noch nie in den Bergen, aber unsere Freunde sagen, dass es im Winter dort schön ist.
en They have never been to the mountains, but their friends told them how beautiful it is in winter.
es Nunca hemos estado en las montañas, pero nuestros amigos nos contaron lo bonito que es todo.
fr Nous ne sommes jamais allés à la montagne, mais nos amis disent que c'est très beau en hiver.
hi हम कभी पहाड़ों पर नहीं गए, लेकिन हमारे दोस्तों ने बताया कि सर्दियों में वहाँ कितना सुंदर होता है।
id Kami belum pernah pergi ke gunung, tetapi teman-teman kami bercerita betapa indahnya di sana.
it Non siamo mai stati in montagna, ma i nostri amici ci hanno raccontato quanto è bello d'inverno.
ja 私たちは山に行ったことがありませんが、友達は冬がとても美しいと言っていました。
ko 우리는 산에 가 본 적이 없지만 친구들은 겨울에 그곳이 아주 아름답다고 말했다.
nl Wij zijn nog nooit in de bergen geweest, maar onze vrienden vertelden hoe mooi het daar is.
pl Nigdy nie byliśmy w górach, ale nasi przyjaciele opowiadali nam, jak tam jest pięknie zimą.
pt Nunca estivemos nas montanhas, mas os nossos amigos contaram-nos como tudo é bonito no inverno.
ru Мы никогда не были в горах, но наши друзья рассказывали нам, как там красиво зимой.
sv Vi har aldrig varit i bergen, men våra vänner berättade för oss hur vackert det är på vintern.
tr Dağlara hiç gitmedik ama arkadaşlarımız bize kışın oranın ne kadar güzel olduğunu anlattı.
vi Chúng tôi chưa bao giờ lên núi, nhưng bạn bè đã kể cho chúng tôi nghe ở đó đẹp như thế nào.
zh 我们从来没有去过山里，但是朋友们告诉我们那里的冬天非常美丽。"""
SENTENCES = dict(line.split(' ', 1) for line in SENTENCES.strip().split('\n'))


def test_languages_are_recognized_and_what_is_too_short_or_of_none_stays():
    table = ' '.join(f"{i}: '\\u{i:04x}', # LATIN SMALL LETTER" for i in range(300))
    assert text_quality.language_of(table) == 'unknown'
    for language, text in SENTENCES.items():
        assert text_quality.language_of(text) == language
        assert text_quality.is_foreign(text, SENTENCES.keys() - {language})
        for some in text, '', 'ok', 'buy now cheap pills ' * 30, '@#$% ' * 30:
            assert not text_quality.is_foreign(some, {'en', language})
    refused('must be among ar,de', text_quality.language, 'en,klingon')


def test_models_of_good_and_bad_text_are_stages(tmp_path):
    noise = ['qx7 zvk jwq xkz 4kq wjx qqz vkx zzj kwq xjq zkv 9qx jzk wvq kxz qjw zxk vqj xkw'] * 5
    stale = ['python train.py config/quickstart.py ' * 30] * 3      # the reference is full of it
    spam = [f'Buy cheap watches and loans now, this offer number {i} ends today, click here for '
            'the best price and for pills that your doctor would never dare to tell you about.'
            for i in range(20)]
    for name, texts in ('good', PROSE), ('bad', spam):
        write_records(tmp_path / f'{name}.jsonl', [{'text': text} for text in texts[::2]])
    source = write(tmp_path / 'files', PROSE[1::2] + noise + stale + GERMAN + spam[1::2])
    prepare(tmp_path / 'out', source, '--dedup=none', '--max_gibberish=0', '--max_repetition=0',
            f'--perplexity_reference={ROOT}/*.md', '--min_bits=1.5',
            f'--quality_good={tmp_path}/good.jsonl', f'--quality_bad={tmp_path}/bad.jsonl')
    assert dropped(tmp_path / 'out') == {'too surprising': 25, 'too predictable': 3,
                                         'low quality': 10}
    assert kept(tmp_path / 'out') == sorted(text.strip() for text in PROSE[1::2])


# --- lists ----------------------------------------------------------------------------------------
# as they are in a page, with markup and addresses that the cleaning takes away
PROBLEMS = [
    r'Let $x$ and $y$ be real numbers with $\frac{x}{y} + \frac{y}{x} = \sqrt{7}$ and '
    r'$\binom{x}{2} \leq y$. Find the value of $\frac{x^2}{y^2} + \frac{y^2}{x^2}$ and $\cos x$.',
    'Is <b>a</b> and <i>b</i> if <b>c</b> is <i>x</i> times <b>d</b> and <i>e</i> is <b>six</b>',
    'Write to ann@firm.com, bob@firm.com or eve@firm.com before noon, and ask joe@firm.com what '
    'ida@firm.com and max@firm.com and tim@firm.com sold to sue@firm.com and una@firm.com today.']


def test_planted_benchmark_problems_are_all_found_and_nothing_else(tmp_path):
    """In whatever form cleaning has left them: with or without LaTeX, HTML, addresses, capitals."""
    prompts = [*PROBLEMS, *(prose(1000 + i, 40) for i in range(20))]
    rows = [{'id': 1, 'tests': {'prompt': [prompt]}} for prompt in prompts]
    path = write_records(tmp_path / 'own.jsonl', rows)
    # some share twelve words, one too few
    innocent = [f'{prose(i)} {" ".join(prompt.split()[7:19])} {prose(i)}'
                for i, prompt in enumerate(prompts[3:])]
    guilty = [f'{prose(i)}\n\n{prompt}\n\n{prose(i + 99)}' for i, prompt in enumerate(prompts)]
    guilty += [text.upper().replace(' ', '  ') for text in guilty[3:]]
    guilty += [r'\section{One} ' + guilty[0], rf'\emph{{One}} {guilty[2]}', f'<p>{guilty[2]}</p>']
    source = write(tmp_path / 'files', random.Random(1).sample(innocent + guilty, 66))
    flags = '--dedup=none', f'--decontaminate={path}'
    for mode in 'auto', 'raw':
        prepare(tmp_path / 'out', source, *flags, f'--mode={mode}')
        assert kept(tmp_path / 'out') == sorted(innocent), mode
    assert read(tmp_path / 'out')[0]['decontaminated'] == {'problems': [str(path)], 'ngram': 13}
    (tmp_path / 'other.jsonl').write_text('["a"]\n{oops\n', encoding='utf-8')
    mistake(run('prepare.py', f'--source={source}', f'{flags[-1]},{tmp_path}/other.jsonl',
                f'--out_dir={tmp_path}/no'), 'other.jsonl:2 ')


# a record, and what the lists say of it
LISTED = """
{"url": "https://spam.com/x"} -> blocked domain
{"url": "//a.b.spam.com:80"} -> blocked domain
{"func_code_url": "SPAM.COM"} -> blocked domain
{"url": "//a@spam.com"} -> blocked domain
{"url": "https://a.wild.com/x"} -> blocked domain
{"url": "ads.example"} -> blocked domain
{"url": "free-casino.net"} -> spam domain
{"url": "https://sex.com"} -> spam domain
{"url": "http://a@pornhub.xy/"} -> spam domain
{"url": "http://[x"} -> no address
{"url": 7}
{"url": "notspam.com"}
{"url": "spam.com.org"}
{"url": "https://a.org/spam.com"}
{"url": "x.good.spam.com"}
{"url": "both.com"}
{"url": "ok.casino.net"}
{"url": "https://www.essex.ac.uk/a"}
{"url": "popcorn.com"}
{"license": ["MIT", "BSD"], "licence": ["MIT"]}
{"license": null, "max_stars_repo_licenses": ["BSD"]}
{"license": ["MIT", "GPL"]} -> licence mit, gpl
{"license": []} -> licence unknown
{"more": "foul vile vile"} -> toxic
{"more": "classic vileness été"}"""
LISTS = {'words': '\ufeffVILE # a comment\n\n# été\nfoul\nass\n',
         'block': '\ufeffhttps://www.Spam.com/index.html\nboth.com # and a comment\n'
                  '*.wild.com\n||ads.example^\n',
         'rules': 'a.com\n||a.com/banner\n',
         'allow': 'good.spam.com\nok.casino.net\nboth.com\n',
         'adblock': '[Adblock Plus 2.0]\nbad.com\n'}


def test_lists_and_languages_drop_what_they_name_and_say_what_they_did(tmp_path):
    """Domains are whole domains, where allow wins, and words are whole words."""
    for name, lines in LISTS.items():
        (tmp_path / name).write_text(lines, encoding='utf-8')
    rows = [({'license': 'mit', 'text': text}, reason) for text, reason in [
        (GERMAN[0], 'language de'), ('vile ' + 'fine ' * 998, 'toxic'),
        ('vile ' + 'fine ' * 999, '')]]
    for line in LISTED.strip().split('\n'):
        record, _, reason = line.partition(' -> ')
        row = {'license': 'mit', 'more': '', **json.loads(record)}
        rows.append(({**row, 'text': f'{PROSE[0]} {len(rows)} {row["more"]}'}, reason))
    source = write_records(tmp_path / 'x.jsonl', [row for row, _ in rows])
    flags = ['--dedup=none', '--languages=en', '--max_repetition=0', '--licences=mit, BSD',
             f'--toxic_words={tmp_path}/words', f'--url_allow={tmp_path}/allow', '--audit=1']
    prepare(tmp_path / 'out', source, *flags, f'--url_block={tmp_path}/block')
    assert dropped(tmp_path / 'out') == collections.Counter(reason for _, reason in rows if reason)
    left = [row['text'].strip() for row, reason in rows if not reason]
    assert kept(tmp_path / 'out') == sorted(left)
    counts = report(tmp_path / 'out')['counts']
    assert counts['toxic words in what was dropped'] == {'vile': 3, 'foul': 1}
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/no',
                f'--url_block={tmp_path}/rules'), 'must have a domain', 'a.com/banner')
    (tmp_path / 'phrases').write_text('vile\ntwo girls\nb4d\n')
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/no',
                f'--toxic_words={tmp_path}/phrases'), '2 lines that are no single word', 'b4d')
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/no',
                f'--url_block={tmp_path}/adblock'), 'must have a domain', 'adblock plus')
