"""The doors of prepare.py: conversations, pairs, mixtures, filters and hubs, each beside a slow version of it
or with what it must and must not drop."""
import collections
import gzip
import hashlib
import http.server
import json
import math
import random
import re
import threading

import numpy as np
import pytest
from conftest import ROOT, mistake, ok, read_json, read_rows, refused, run, shared
from preparing import PROSE, RAW, dropped, kept, prepare, prose, read, recipe, records, report, write
from preparing import write_records

from extras import audit, chats, filters, hub as downloads, text_quality


# --- conversations ------------------------------------------------------------------------------------------
def chat(*contents, system=None):
    """Messages of a user and an assistant in turn."""
    turns = [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(contents)]
    return turns if system is None else [{'role': 'system', 'content': system}, *turns]


def answered(turns, text):
    return [*turns, {'role': 'assistant', 'content': text}]


def prepared(tmp_path, kind, rows, *flags):
    prepare(tmp_path / 'out', write_records(tmp_path / 'x.jsonl', rows), f'--kind={kind}', *flags)
    return tmp_path / 'out'


def as_text(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


AC = chat('a', 'c')
SAC = chat('a', 'c', system='s')
CONVERSATIONS = [
    ({'instruction': 'a', 'input': 'b', 'output': 'c'}, chat('a\n\nb', 'c')),
    ({'instruction': 'b', 'output': 'd', 'history': [['a', 'c']]}, chat('a', 'c', 'b', 'd')),
    ({'conversations': [{'from': 'developer', 'value': 's'}, {'from': 'Human', 'value': 'a'},
                        {'from': 'gpt', 'value': 'c'}]}, SAC),
    # a system beside the turns, unless there is one among them
    ({'system': 's', 'prompt': 'a', 'completion': 'c'}, SAC), ({'system': 'other', 'messages': SAC}, SAC),
    # cut off at either end: an answer to nothing, a question without an answer
    ({'system': 's', 'messages': [*answered([], 'x'), *chat('a', 'c', 'd')]}, SAC),
    ({'system': 's', 'messages': chat('a')}, None),
    # a column of null does not hide another
    ({'messages': None, 'instruction': None, 'prompt': 'a', 'output': None, 'answer': 'c'}, AC)]
NO_CONVERSATIONS = [
    (None, 'not an object'), ({'foo': 1}, 'no messages, conversations'), ({'instruction': 'a'}, 'not text'),
    ({'messages': [*AC, {'role': 'assistant', 'content': 3}]}, 'not text'),
    ({'instruction': 'a', 'output': 'c', 'history': [['x']]}, 'list of pairs'),
    ({'messages': [{'role': 'wizard', 'content': 'a'}]}, 'wizard')]
PAIR = {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}
LONG = chat('a', 'b', 'q', system='s')
PREFERENCES = [
    # whole conversations, with and without the prompt beside them
    ({'question': 'q', 'chosen': chat('q', 'good'), 'rejected': chat('q', 'bad'), 'id': 3}, PAIR),
    ({'chosen': answered(LONG, 'good'), 'rejected': answered(LONG, 'bad'), 'system': 'x'},
     {**PAIR, 'prompt': LONG}),
    # messages as prompt, and the answers alone as messages or texts
    ({'prompt': LONG, 'chosen': answered([], 'good'), 'rejected': 'bad'}, {**PAIR, 'prompt': LONG}),
    ({**PAIR, 'chosen': answered([], 'good')[0], 'system': 's'}, {**PAIR, 'prompt': chat('q', system='s')}),
    # kto: a thumb up or down
    ({'prompt': 'q', 'completion': 'c', 'label': 0}, {'prompt': 'q', 'completion': 'c', 'label': False}),
    ({'prompt': LONG, 'completion': 'c', 'label': True}, {'prompt': LONG, 'completion': 'c', 'label': True}),
    # how much better, and how many agreed
    ({**PAIR, 'score_chosen': 8, 'score_rejected': 5.5, 'margin': None}, {**PAIR, 'margin': 2.5}),
    ({**PAIR, 'margin': 0, 'score_chosen': 8, 'score_rejected': 5, 'agreement': 0.75},
     {**PAIR, 'margin': 0.0, 'agreement': 0.75}),
    ({**PAIR, 'score_chosen': 8, 'margin': None, 'agreement': None}, PAIR)]
NO_PREFERENCES = [
    ({'prompt': 'q', 'chosen': 'good'}, 'no chosen and rejected'),
    ({'chosen': 'good', 'rejected': 'bad'}, 'only: chosen, rejected'),
    ({'prompt': 'q', 'completion': 'c', 'label': 'up'}, "label is 'up'"),
    ({**PAIR, 'chosen': chat('q', 'good'), 'rejected': chat('Q', 'bad')}, 'different prompts'),
    ({**PAIR, 'agreement': 10 ** 400}, 'numbers'), ({**PAIR, 'margin': 'nan'}, 'numbers')]


@pytest.mark.parametrize('kind, good, bad', [('sft', CONVERSATIONS, NO_CONVERSATIONS),
                                             ('preference', PREFERENCES, NO_PREFERENCES)])
def test_every_usual_form_is_read_and_what_has_none_is_named_with_a_reason(tmp_path, kind, good, bad):
    for i, (record, _) in enumerate(bad + good):
        write_records(tmp_path / f'in/{i:02}.jsonl', [record])
    prepare(tmp_path / 'out', tmp_path / 'in', f'--kind={kind}', *RAW, '--num_workers=1')
    expected = [{'messages': form} if kind == 'sft' else form for _, form in good if form]
    assert as_text(records(tmp_path / 'out')) == as_text(expected)
    page = (tmp_path / 'out/report.md').read_text('utf-8')
    for i, (_, words) in enumerate(bad):
        assert re.search(rf'/{i:02}.jsonl:1: .*{words}', page), words
    assert report(tmp_path / 'out')['malformed'] == len(bad)


def test_the_conversions_of_the_page_are_those_that_are_read_back():
    turns = chat('What is 2 + 2?', '4', 'And 3 + 3?', '6', system='s')
    for name in 'to_alpaca', 'to_vicuna':
        assert chats.messages_of(recipe('chat.md', name)(turns)) == turns
    refused('.', recipe('chat.md', 'to_alpaca'), turns[:-1])


@pytest.mark.parametrize('name, n, n_dropped', [
    ('code_alpaca_2k.json', 2017, 2), ('vicuna_dummy_conversation.json', 500, 0)])
def test_every_record_of_real_files_arrives(name, n, n_dropped, tmp_path):
    prepare(tmp_path, shared(name), '--kind=sft', '--dedup=none')
    assert len(records(tmp_path)) + n_dropped == n


def test_conversations_with_one_beginning_stay_together_and_a_system_message_is_none(tmp_path):
    rows = [{'system': 'be brief', 'messages': chat(f'q{i % 30}', f'a{i}')} for i in range(90)]
    out = prepared(tmp_path, 'sft', rows, '--dedup=exact')
    train, val = ({row['messages'][1]['content'] for row in read_rows(out / f'{side}.jsonl')}
                  for side in ('train', 'val'))
    assert len(records(out)) == 90 and len(train | val) == 30
    assert train and val and not train & val


CODE = 'So:\n```python\n{}\n```\nDone.'
WRONG = CODE.format('x = = 1')
TOOL = {'role': 'tool', 'content': 'found'}
REASONS = [         # a conversation, and what speaks against it
    (chat('a', 'b', 'c', 'd', system='s'), None),
    (chat('a', 'b') + chat('x', 'c')[1:], 'roles do not alternate'),
    ([TOOL, *chat('a', 'b')], 'roles do not alternate'), (chat('a', ' \n'), 'empty answer'),
    (chat('\n', 'b'), 'empty message'),
    # a tool's results stand between two turns of the assistant
    (answered([*chat('a', 'call'), TOOL, TOOL], 'b'), None),
    # programs are the blocks of Python in answers, which are learned
    (chat('a', WRONG), 'code does not parse'), (chat(WRONG, 'a'), None),
    (chat('b', CODE.format('x = 1') + WRONG), 'code does not parse'),
    (chat('a', CODE.format('>>> 1 +\n1')), None),
    (chat('a', '1. Run:\n\n   ```python\n   if x:\n       y\n   ```\n2. Done.'), None),
    (chat('a', '1. Run:\n\n   ```python\n   if x:\n   y\n   ```\n2. Done.'), 'code does not parse'),
    (chat('a', '```js\nx = = 1\n```'), None)]
SCORES = [({'score': '4.5'}, None), ({'score': None}, None), ({'rating': 3.9}, 'low score'),
          ({'score': 'good'}, 'low score'), ({'score': 10 ** 400}, 'low score')]


def test_conversations_are_dropped_for_their_reasons(tmp_path):
    table = [({'messages': turns}, reason) for turns, reason in REASONS]
    table += [({'messages': chat(str(scores), 'c'), **scores}, reason) for scores, reason in SCORES]
    out = prepared(tmp_path, 'sft', [row for row, _ in table], '--dedup=none', '--min_score=4')
    left = [{'messages': row['messages']} for row, reason in table if not reason]
    assert as_text(records(out)) == as_text(left)
    assert dropped(out) == collections.Counter(reason for _, reason in table if reason)


def test_pairs_and_thumbs_go_through_as_they_are_but_for_what_the_limits_and_copies_drop(tmp_path):
    rows = [{'prompt': f'q{i}', 'chosen': 'yes', 'rejected': 'no', 'margin': i / 10, 'agreement': 1 - i / 50}
            for i in range(20)]
    # each field and the label count, and where one ends and the next begins
    fine = [{'prompt': 'q', 'completion': 'q', 'label': label} for label in (False, True)]
    fine += [{'prompt': 'q', 'chosen': a, 'rejected': b} for a, b in (('2', '22'), ('22', '2'), ('q', 'q2'))]
    fine += [{'prompt': f't{i}', 'completion': f'a{i}', 'label': i % 3 == 0} for i in range(30)]
    bad = [{'prompt': 'same', 'chosen': 'x', 'rejected': ' x'}, {'prompt': 'p'}, {**fine[0], 'label': 'up'},
           {**fine[-1], 'completion': ' '}, {**rows[0], 'rejected': ''},
           {'prompt': ' q', 'chosen': '2\n', 'rejected': '2 2'}]
    out = prepared(tmp_path, 'preference', rows + fine + bad, '--min_margin=0.5', '--min_agreement=0.7')
    assert dropped(out) == {'small margin': 5, 'little agreement': 4, 'equal answers': 1, 'empty answer': 2,
                            'exact duplicate': 1}
    assert report(out)['malformed'] == 2 and as_text(records(out)) == as_text(rows[5:16] + fine)


# --- answers that eval.py has judged ------------------------------------------------------------------------
def sampled(task_id, *answers):
    asked = [{'role': 'user', 'content': f'do {task_id}'}]
    return [{'task': 'problems', 'task_id': task_id, 'messages': asked, 'completion': text,
             'outcome': outcome, 'preferred': liked} for text, outcome, liked in answers]


SAMPLES = sampled(1, ('a', 'passed', True), ('c', 'passed', False), ('d', 'timeout', False),
                  ('f', 'exception', True))
SAMPLES += sampled(2, ('g', 'passed', True)) + sampled(3, ('h', 'wrong', False))
SAMPLES += sampled(1, ('b', 'wrong', False), ('a', 'passed', True), ('e', 'infrastructure', False))
# four are enough
SAMPLES += sampled(4, ('x', 'wrong', False), *((str(i), 'passed', False) for i in range(9)))
SAMPLES += sampled(5, ('y', 'passed', True), ('z', 'passed', False))
# damaged ones are skipped
SAMPLES += [SAMPLES[0] | change for change in (
    {'completion': None}, {'task_id': 99, 'messages': [{'role': 'wizard', 'content': 'do 1'}]})]


@pytest.mark.parametrize('prefer, pairs, n_others, answers', [
    ('passed', {*'ac'}, 4, {*'acgyz'}), ('taste', {('a', 'c')}, 1, {*'agy'}),
    ('both', {*'ac', ('a', 'c')}, 5, {*'acgyz'})])
def test_passed_answers_win_over_failed_ones_tasteful_ones_over_others_and_are_demonstrations_once(
        tmp_path, prefer, pairs, n_others, answers):
    rows = records(prepared(tmp_path, 'preference', SAMPLES, '--mode=raw', f'--prefer={prefer}'))
    first = [row for row in rows if row['prompt'] == 'do 1']
    passed = [row for row in first if row['rejected'] in 'bdf']
    assert {row['chosen'] for row in passed} == pairs & {*'ac'} and len(passed) in (0, 3)
    assert {(row['chosen'], row['rejected']) for row in first if row not in passed} == pairs - {*'ac'}
    assert len(rows) - len(first) == n_others
    rows = records(prepared(tmp_path, 'sft', SAMPLES, '--mode=raw', f'--prefer={prefer}', '--dedup=none'))
    said = [row['messages'][-1]['content'] for row in rows]
    assert {*said} - {*'012345678'} == answers and len(said) == len(answers) + 4 * (prefer != 'taste')


def test_samples_of_which_none_is_better_are_one_sentence(tmp_path):
    source = write_records(tmp_path / 'bad.jsonl', sampled(1, ('a', 'wrong', False), ('b', 'timeout', False)))
    mistake(run('prepare.py', '--kind=sft', f'--source={source}', f'--out_dir={tmp_path}/no'),
            'none of 2 samples', 'better than another')


# --- several sources ----------------------------------------------------------------------------------------
SIZES = {'web': 400, 'code': 120, 'stdlib': 40}         # documents of 50 to 100 bytes; a name is no path


@pytest.fixture(scope='module')
def corpora(tmp_path_factory):
    """A file of records for each source; each text begins with the name of its source."""
    folder = tmp_path_factory.mktemp('mix')
    for name, n in SIZES.items():
        words = [' '.join(f'word{i * 7 + j * 13}' for j in range(5 + n // 60)) for i in range(n)]
        rows = [{'text': f'{name} {i}: {words[i]}\n', 'licence': f'{name}-1'} for i in range(n)]
        write_records(folder / f'{name}.jsonl', rows)
    return folder


def mix(corpora, tmp_path, weights, *flags, check=ok):
    """meta.json, and what is printed, of a mixture with these weights."""
    sources = {name: (str(corpora / f'{name}.jsonl'), weight) for name, weight in weights.items()}
    (tmp_path / 'mix.py').write_text(f'sources = {sources!r}\n', encoding='utf-8')
    flags = [f'--out_dir={tmp_path}/data', '--tokenizer=byte', *RAW, *flags]
    printed = check(run('prepare.py', tmp_path / 'mix.py', '--overwrite=True', *flags))
    return read_json(tmp_path / 'data/meta.json'), printed


def test_weights_become_passes_over_sources_that_train_bin_holds_once(corpora, tmp_path):
    meta, printed = mix(corpora, tmp_path, {'web': 50, 'code': 15, 'stdlib': 35}, '--audit=1')
    assert meta['mixed'] is False and 'train.bin alone is unweighted' in printed
    _, tok, bins = read(tmp_path / 'data')
    documents_of = lambda ids: tok.decode(ids).split('<|endoftext|>')[:-1]
    end, n, validation = 0, meta['tokens']['train'], b''
    for name, weight in zip(SIZES, (0.5, 0.15, 0.35)):
        s = meta['sources'][name]
        held_out = np.fromfile(tmp_path / f'data/val_{name}.bin', meta['dtype'])     # each has its own file
        texts, others = documents_of(bins['train'][end:end + s['tokens']]), documents_of(held_out)
        assert len(texts) == s['documents'] and f'\n- val_{name}: documents: {len(others)}, ' in printed
        assert {text.split()[0] for text in texts + others} == {name}
        assert s['tokens'] * s['passes'] == pytest.approx(weight * n, rel=1e-4)
        end += s['tokens']
        validation += held_out.tobytes()
    assert end == n == len(bins['train']) and validation == bins['val'].tobytes()
    # other scripts add these up
    assert [*meta['documents']] == [*meta['tokens']] == [*meta['bytes']] == ['train', 'val']
    # the card is that of what a model reads; `stdlib` has not the licence of the real one
    licences = report(tmp_path / 'data')['card']['licences']
    assert licences == pytest.approx({'web-1': 0.5, 'code-1': 0.15, 'stdlib-1': 0.35}, abs=0.01)
    assert 'more than 4 passes' in (tmp_path / 'data/report.md').read_text(encoding='utf-8')

    meta, _ = mix(corpora, tmp_path, dict.fromkeys(SIZES), '--temperature=5')           # flattens the shares
    powers = {name: s['tokens'] ** (1 / 5) for name, s in meta['sources'].items()}
    for name, s in meta['sources'].items():
        share = s['tokens'] * s['passes'] / meta['tokens']['train']
        assert share == pytest.approx(powers[name] / sum(powers.values()), rel=1e-4), name
    mix(corpora, tmp_path, {'stdlib': 1})                                   # stale files go
    assert not list(tmp_path.glob('data/val_*.bin'))


def test_a_source_of_copies_is_named_and_so_is_one_without_a_conversation_or_too_short(corpora, tmp_path):
    old = (corpora / 'web.jsonl').read_text(encoding='utf-8')
    (corpora / 'again.jsonl').write_text(old + json.dumps({'text': 'something new\n' * 3}), encoding='utf-8')
    meta, printed = mix(corpora, tmp_path, {'web': 1, 'again': 1}, '--dedup=exact', '--val_fraction=0.2')
    assert sum(meta['documents'].values()) == 401 and meta['sources']['again']['documents'] == 1
    assert 'again is too short to be measured' in printed
    (corpora / 'again.jsonl').write_text(old, encoding='utf-8')
    left = 'left to train on from the source again (400 in all; could not be read: 0; ' \
           'dropped: exact duplicate: 400; of copies, the first one stays)'
    mix(corpora, tmp_path, {'web': None, 'again': None}, '--dedup=exact', check=lambda r: mistake(r, left))

    write_records(corpora / 'chats.jsonl', [{'prompt': prose(i, 5), 'completion': prose(-i, 5), 'score': 1}
                                            for i in range(40)])
    write_records(corpora / 'none.jsonl', [{'prompt': 'no answer'}])
    mix(corpora, tmp_path, {'none': None, 'chats': None}, '--kind=sft')
    assert sum(report(tmp_path / 'data')['documents'].values()) == 40
    mix(corpora, tmp_path, {'none': None, 'chats': None}, '--kind=sft', '--mode=auto', '--min_score=9',
        check=lambda r: mistake(r, 'from the source none and chats (0 in all', 'low score: 40;'))


# --- filters: what a stage drops of a text ---------------------------------------------------------------
GERMAN = ['Die alte Mühle stand am Fluss, und in jedem Frühling stieg das Wasser, bis es die zweite Stufe '
          f'der Treppe erreichte; im Jahre {1800 + i} kam es bis zur Tür, und niemand schlief in der Nacht\n'
          for i in range(0, 60, 3)]


def notes():
    return collections.defaultdict(collections.Counter)


def reasons(check, texts, **more):
    """Why a stage drops each text."""
    return [check({'texts': [text], 'mode': 'prose', **more}, notes()) for text in texts]


# --- bits per byte ------------------------------------------------------------------------------------------
def test_bits_per_byte_are_those_of_counts_in_a_dictionary():
    """A byte after 0, 1 and 2 others: each probability is smoothed by the one before."""
    texts = 'naïve 漢字\n' * 3, 'one two one two', 'e\ud800e'
    encoded = [text.encode('utf-8', 'surrogatepass') for text in texts]
    counts = collections.Counter(data[i:i + n] for data in encoded for n in range(4)
                                 for i in range(len(data) - max(n, 1) + 1))
    model = text_quality.NgramModel(texts, 3)
    for data in *encoded, b'a', b'two ab ab':
        bits = 0.0
        for i in range(len(data)):
            p = 1 / 256
            for gram in (data[i - n:i + 1] for n in range(min(2, i) + 1)):
                p = (counts[gram] + 6 * p) / (counts[gram[:-1]] + 6)
            bits -= math.log2(p)
        text = data.decode('utf-8', 'surrogatepass')
        assert model.bits_per_byte(text, 6) == pytest.approx(bits / len(data), abs=1e-6), text


# --- languages: the same sentence, written for this test and not used to choose anything --------------------
SENTENCES = {
    'ar': 'لم نذهب إلى الجبال من قبل، لكن أصدقاءنا أخبرونا كم هي جميلة في الشتاء.',
    'de': 'Wir waren noch nie in den Bergen, aber unsere Freunde sagen, dass es im Winter dort schön ist.',
    'en': 'They have never been to the mountains, but their friends told them how beautiful it is in winter.',
    'es': 'Nunca hemos estado en las montañas, pero nuestros amigos nos contaron lo bonito que es todo.',
    'fr': "Nous ne sommes jamais allés à la montagne, mais nos amis disent que c'est très beau en hiver.",
    'hi': 'हम कभी पहाड़ों पर नहीं गए, लेकिन हमारे दोस्तों ने बताया कि सर्दियों में वहाँ कितना सुंदर होता है।',
    'id': 'Kami belum pernah pergi ke gunung, tetapi teman-teman kami bercerita betapa indahnya di sana.',
    'it': "Non siamo mai stati in montagna, ma i nostri amici ci hanno raccontato quanto è bello d'inverno.",
    'ja': '私たちは山に行ったことがありませんが、友達は冬がとても美しいと言っていました。',
    'ko': '우리는 산에 가 본 적이 없지만 친구들은 겨울에 그곳이 아주 아름답다고 말했다.',
    'nl': 'Wij zijn nog nooit in de bergen geweest, maar onze vrienden vertelden hoe mooi het daar is.',
    'pl': 'Nigdy nie byliśmy w górach, ale nasi przyjaciele opowiadali nam, jak tam jest pięknie zimą.',
    'pt': 'Nunca estivemos nas montanhas, mas os nossos amigos contaram-nos como tudo é bonito no inverno.',
    'ru': 'Мы никогда не были в горах, но наши друзья рассказывали нам, как там красиво зимой.',
    'sv': 'Vi har aldrig varit i bergen, men våra vänner berättade för oss hur vackert det är på vintern.',
    'tr': 'Dağlara hiç gitmedik ama arkadaşlarımız bize kışın oranın ne kadar güzel olduğunu anlattı.',
    'vi': 'Chúng tôi chưa bao giờ lên núi, nhưng bạn bè đã kể cho chúng tôi nghe ở đó đẹp như thế nào.',
    'zh': '我们从来没有去过山里，但是朋友们告诉我们那里的冬天非常美丽。'}


def test_languages_are_recognized_and_what_is_too_short_or_of_none_stays():
    tables = ' '.join(f"{i}: '\\u{i:04x}', # LATIN SMALL LETTER" for i in range(300))
    nothing = ['', 'ok', 'buy now cheap pills ' * 30, '@#$% ' * 30]
    assert text_quality.language_of(tables) == 'unknown'
    for language, text in SENTENCES.items():
        only, others = f'en,{language.upper()}', ','.join(SENTENCES.keys() - {language})
        assert reasons(text_quality.language(only), [text, *nothing]) == [None] * 5, language
        assert reasons(text_quality.language(others), [text]) == [f'language {language}']
    assert reasons(text_quality.language('en'), [SENTENCES['de']], mode='code') == [None]
    for wrong in ('en,klingon', 'en, de', ','):
        refused('must be among ar,de', text_quality.language, wrong)


# --- benchmarks ---------------------------------------------------------------------------------------------
PROBLEMS = [
    r'Let $x$ and $y$ be real numbers with $\frac{x}{y} + \frac{y}{x} = \sqrt{7}$ and $\binom{x}{2} \leq y$. '
    r'Find the value of $\frac{x^2}{y^2} + \frac{y^2}{x^2}$ and $\cos \theta$ when $\theta = \frac{\pi}{3}$.',
    'Is <b>a</b> and <i>b</i> if <b>c</b> is <i>x</i> times <b>d</b> and <i>e</i> is <b>six</b> by <i>f</i>',
    'Write to ann@firm.com, bob@firm.com or eve@firm.com before noon, and ask joe@firm.com what ida@firm.com '
    'and max@firm.com and tim@firm.com sold to sue@firm.com and una@firm.com today.']


def test_planted_benchmark_problems_are_all_found_and_nothing_else(tmp_path):
    """In whatever form the cleaning has left them: with or without LaTeX, HTML, addresses, capitals."""
    prompts = [prose(1000 + i, 40) for i in range(40)] + PROBLEMS
    path = write_records(tmp_path / 'own.jsonl', [{'id': 1, 'tests': {'prompt': [p]}} for p in prompts])
    innocent = [prose(i) for i in range(10)]        # and some that share twelve words, one too few
    innocent += [f'{prose(i)} {" ".join(prompts[i].split()[7:19])} {prose(i)}' for i in range(10, 30)]
    guilty = [f'{prose(i)}\n\n{prompt}\n\n{prose(i + 99)}' for i, prompt in enumerate(prompts)]
    guilty += [text.upper().replace(' ', '  ') for text in guilty[:20]]
    guilty += [r'\section{One} ' + guilty[40], rf'\emph{{One}} {guilty[42]}', f'<p>{guilty[42]}</p>']
    source = write(tmp_path / 'files', random.Random(1).sample(innocent + guilty, len(innocent + guilty)))
    flags = '--dedup=none', '--val_fraction=0.3', f'--decontaminate={path}'
    for mode in 'auto', 'raw':
        prepare(tmp_path / 'out', source, *flags, f'--mode={mode}')
        assert kept(tmp_path / 'out') == sorted(innocent), mode
        assert read(tmp_path / 'out')[0]['decontaminated'] == {'problems': [str(path)], 'ngram': 13}
    for name, text, words in (('short', '["too short"]', 'no text of 13 words'),
                              ('damaged', '["a"]\n{oops\n', 'damaged.jsonl:2 ')):
        (tmp_path / f'{name}.jsonl').write_text(text, encoding='utf-8')
        mistake(run('prepare.py', f'--source={source}', f'{flags[-1]},{tmp_path}/{name}.jsonl',
                    f'--out_dir={tmp_path}/no'), words)


# --- SimHash ------------------------------------------------------------------------------------------------
def test_simhash_joins_what_differs_in_three_bits_and_not_in_four():
    def all_that_share_a_key(columns, similar):
        n = len(columns[0])
        return np.array([any(similar(i, j) for i in range(j) if any(keys[i] == keys[j] for keys in columns))
                         for j in range(n)])

    dice = random.Random(0)
    firsts = [dice.getrandbits(64) for _ in range(50)]
    for n, is_copy in ((3, True), (4, False)):
        copies = [first ^ sum(1 << bit for bit in dice.sample(range(64), n)) for first in firsts]
        columns = [np.array([*firsts, *copies, 0, 0], np.uint64)]           # wordless ones have 0
        found = filters.simhash_copies(columns, all_that_share_a_key)
        assert found.tolist() == [False] * 50 + [is_copy] * 50 + [False] * 2, n


def test_prepare_drops_copies_that_simhash_finds(tmp_path):
    texts = [prose(i, 400) for i in range(40)]
    copies = [f'{text} more' for text in texts[:20]]
    prepare(tmp_path / 'out', write(tmp_path / 'files', texts + copies), *RAW, '--dedup=simhash',
            '--val_fraction=0.4')
    assert 15 <= dropped(tmp_path / 'out')['near duplicate'] <= 20
    assert {*texts} - {*kept(tmp_path / 'out')} == set()


# --- all of them in prepare.py ------------------------------------------------------------------------------
ADDRESSES = {
    'blocked domain': ['https://spam.com/x', '//a.b.spam.com:80', 'SPAM.COM', 'spam.com.', '//a@spam.com'],
    'spam domain': ['free-casino.net', 'https://sex.com', 'http://a@pornhub.xy/', 'x.casinos.org'],
    'no address': ['http://[x'],
    None: ['notspam.com', 'spam.com.org', 'https://a.org/spam.com', 'good.spam.com', 'both.com',
           'x.good.spam.com', 'ok.casino.net', 'https://www.essex.ac.uk/a', 'sussex.gov.uk',
           'popcorn.com', '', 'crackers.com', 'https://a.org/poker', 7]}


def test_lists_and_languages_drop_what_they_name_and_say_what_they_did(tmp_path):
    """Domains are whole domains, where allow wins, and words are whole words."""
    for name, lines in {'words': '\ufeffVILE # a comment\n\n# été\nfoul\nass\n',
                        'block': '\ufeffhttps://www.Spam.com/index.html\nboth.com # and a comment\n',
                        'allow': 'good.spam.com\nok.casino.net\nboth.com\n',
                        'adblock': '[Adblock Plus 2.0]\nbad.com\n'}.items():
        (tmp_path / name).write_text(lines, encoding='utf-8')
    rows = [({name: url, 'license': 'mit'}, reason) for reason, urls in ADDRESSES.items() for url in urls
            for name in ('url', 'func_code_url')]
    rows += [({'license': ['MIT', 'BSD']}, None),
             ({'licence': None, 'max_stars_repo_licenses': ['BSD']}, None),
             ({'license': ['MIT', 'GPL']}, 'licence mit, gpl'), ({'license': []}, 'licence unknown')]
    rows += [({'license': 'mit', 'text': text}, reason) for text, reason in [
        (GERMAN[0], 'language de'), (f'{PROSE[0]} foul vile vile', 'toxic'),
        (f'{PROSE[0]} classic vileness', None),
        ('vile ' + 'fine ' * 998, 'toxic'), ('vile ' + 'fine ' * 999, None), ('été ' + PROSE[0], None)]]
    rows = [({'text': f'{PROSE[0]} {i}', **row}, reason) for i, (row, reason) in enumerate(rows)]
    source = write_records(tmp_path / 'x.jsonl', [row for row, _ in rows])
    flags = ['--dedup=none', '--languages=en', '--max_repetition=0', '--licences=mit, BSD',
             f'--toxic_words={tmp_path}/words', f'--url_allow={tmp_path}/allow']
    prepare(tmp_path / 'out', source, *flags, f'--url_block={tmp_path}/block')
    assert dropped(tmp_path / 'out') == collections.Counter(reason for _, reason in rows if reason)
    assert kept(tmp_path / 'out') == sorted(row['text'].strip() for row, reason in rows if not reason)
    assert report(tmp_path / 'out')['counts']['toxic words in what was dropped'] == {'vile': 3, 'foul': 1}
    mistake(run('prepare.py', f'--source={source}', f'--out_dir={tmp_path}/no',
                f'--url_block={tmp_path}/adblock'), 'must have a domain', 'adblock plus')


def test_models_of_good_and_bad_text_are_stages(tmp_path):
    noise = ['qx7 zvk jwq xkz 4kq wjx qqz vkx zzj kwq xjq zkv 9qx jzk wvq kxz qjw zxk vqj xkw jqz kvx\n'] * 5
    stale = ['python train.py config/quickstart.py ' * 30] * 3              # the reference is full of it
    spam = [f'Buy cheap watches and loans now, this offer number {i} ends today, click here for the best '
            'price and for pills that your doctor would never dare to tell you about.' for i in range(20)]
    for name, texts in ('good', PROSE), ('bad', spam):
        write_records(tmp_path / f'{name}.jsonl', [{'text': text} for text in texts[::2]])
    source = write(tmp_path / 'files', PROSE[1::2] + noise + stale + GERMAN + spam[1::2])
    prepare(tmp_path / 'out', source, '--dedup=none', '--max_gibberish=0', '--max_repetition=0',
            f'--perplexity_reference={ROOT}/*.md', '--min_bits=1.5', f'--quality_good={tmp_path}/good.jsonl',
            f'--quality_bad={tmp_path}/bad.jsonl')
    assert dropped(tmp_path / 'out') == {'too surprising': 25, 'too predictable': 3, 'low quality': 10}
    assert kept(tmp_path / 'out') == sorted(text.strip() for text in PROSE[1::2])
    bits = report(tmp_path / 'out')['counts']['documents by bits per byte']
    assert sum(bits.values()) == 58 and min(map(float, bits)) < 1.5 < 5 < max(map(float, bits))


# --- what is shown to people --------------------------------------------------------------------------------
def test_the_card_has_the_shares_of_tokens_and_names_what_dominates():
    sources = {'web': {'path': 'x', 'tokens': 300, 'passes': 3.0},
               'books': {'path': 'shakespeare', 'tokens': 200, 'passes': 0.5}}
    german = '- die alte Mühle stand und ist nicht mit dem Fluss, der in das Tal und zu den Wiesen\n'
    english = '- the old mill is not with the river that was in the valley and on to the meadows\n'
    sample = [{'texts': [text], 'path': 'x', **more} for text, more in [
        ('x = 1\n', {}), *[(english, {})] * 8, *[(german, {'licence': 'mit'})] * 4]]
    card = audit.card(sample, sources, 1000, lambda text, path: 'code' if '=' in text else 'prose')
    skew = '; '.join(card['skew'])
    assert card['languages'] == {'en': 0.667, 'de': 0.333} and card['sources'] == {'web': 0.9, 'books': 0.1}
    assert card['licences'] == {'unknown': 0.692, 'mit': 0.308}
    assert '90% of the training tokens: web' in skew and '92% of the training tokens: list' in skew
    assert '69% of the training tokens name no license' in skew and 'books: plays by one author' in skew
    # a document is taken as often as a run reads tokens of it
    weights = [random.Random(i).randrange(9) for i in range(50)]
    assert np.bincount(audit.spread(weights, sum(weights)), minlength=50).tolist() == weights


# --- a server of this machine, as a hub of datasets ---------------------------------------------------------
LICENCES = 'mit', 'apache-2.0', 'gpl-3.0'
NOISE = random.Random(1).randbytes(240_000).hex()           # makes the last file longer: it will break off
RECORDS = [[{'content': f'# {shard} {i}\nvalue = {i * 17 + shard}\n', 'path': f'{i}.py', 'repo_name': 'r/one',
             'license': LICENCES[i % 3], 'noise': NOISE[i * 8000:(i + 1) * 8000] if shard == 3 else ''}
            for i in range(60)] for shard in range(4)]
CONTENTS = sorted(record['content'] for shard in RECORDS for record in shard)
LIST = '/api/datasets/codeparrot/codeparrot-clean/tree/main'
FOLDER = '/datasets/codeparrot/codeparrot-clean/resolve/main/'


@pytest.fixture
def hub(monkeypatch):
    """Two pages of listing, four files. faults: {path: [status or bytes to break off after, ...]}, one for
    each request; asked: (path, first byte) of each; has_ranges: can it continue?"""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'           # connections stay open, as on the real hub

        def do_GET(self):
            path, _, query = self.path.partition('?')
            name = path.removeprefix(FOLDER)
            begin = int(re.search(r'\d+', self.headers.get('Range', '0'))[0])
            here.asked.append((name, begin))
            fault = (here.faults.get(name) or [None]).pop(0)
            headers = {}
            if path == LIST:
                entries = [{'path': name, 'size': len(data), 'lfs': {'oid': hashlib.sha256(data).hexdigest()}}
                           for name, data in here.files.items()] + [{'path': 'data', 'size': 0}]
                is_first = 'recursive=true' in query and 'cursor=' not in query
                headers = {'Link': f'<{here.address}{self.path}&cursor=2>; rel="next"'} if is_first else {}
                status, body = 200, json.dumps(entries[:2] if is_first else entries[2:]).encode()
            elif begin and here.has_ranges:
                body = here.files[name][begin:]
                status = 206 if body else 416
            else:
                status, body = 200, here.files[name]
            if fault in (429, 503):
                status, body, headers = fault, b'', {'Retry-After': '1'}
            self.send_response(status)
            for header, value in {'Content-Length': str(len(body)), **headers}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body[:fault])
            self.close_connection = fault is not None

        def log_message(self, *_):
            pass

    here = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    here.daemon_threads = True
    here.address = f'http://127.0.0.1:{here.server_port}'
    here.asked = []
    here.faults = {}
    here.has_ranges = True
    here.files = {f'data/{i}.json.gz': gzip.compress(''.join(json.dumps(r) + '\n' for r in shard).encode())
                  for i, shard in enumerate(RECORDS)}
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    threading.Thread(target=here.serve_forever, args=(0.05,), daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


# --- one file -----------------------------------------------------------------------------------------------
def download(hub, path):
    """Fetch the largest file; returns whether the path then has its content."""
    content = hub.files['data/3.json.gz']
    downloads.fetch(f'{hub.address}{FOLDER}data/3.json.gz', hashlib.sha256(content).hexdigest(), str(path))
    return path.read_bytes() == content


def test_a_part_is_completed_begun_anew_or_refused(hub, tmp_path):
    content = hub.files['data/3.json.gz']
    for name, part, has_ranges in (('a', content[:1000], False), ('b', content, True)):     # b has everything
        (tmp_path / f'{name}.part').write_bytes(part)
        hub.has_ranges = has_ranges
        assert download(hub, tmp_path / name)
    assert hub.asked[0] == ('data/3.json.gz', 1000)
    (tmp_path / 'c.part').write_bytes(b'of another file')
    refused('checksum', download, hub, tmp_path / 'c')
    assert not list(tmp_path.glob('c*')) and download(hub, tmp_path / 'c')
    downloads.delete(str(tmp_path / 'c'))               # only what is named as a file of a hub goes
    assert (tmp_path / 'c').exists()


def test_offline_the_message_says_which_file_to_put_where(tmp_path):
    dead = dict.fromkeys(('HTTPS_PROXY', 'https_proxy'), 'http://127.0.0.1:9')          # nobody listens there
    mistake(run('prepare.py', '--source=shakespeare', f'--download_dir={tmp_path}/raw',
                f'--out_dir={tmp_path}/out', env={**dead, 'NO_PROXY': '', 'no_proxy': ''}),
            'https://', f'{tmp_path}/raw/shakespeare.txt')


# --- a dataset ----------------------------------------------------------------------------------------------
def from_hub(hub, folder, *flags, check=ok):
    """The documents of the dataset must arrive, unless another check is asked for."""
    check(run('prepare.py', '--source=codeparrot', *RAW, f'--download_dir={folder}/raw', '--tokenizer=byte',
              f'--out_dir={folder}/out', '--num_workers=2', *flags, timeout=100,
              env={'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1', 'HF_ENDPOINT': hub.address}))
    if check == ok:
        assert kept(folder / 'out') == CONTENTS


def test_a_dataset_arrives_from_a_busy_server_with_broken_transfers_and_then_without_network(hub, tmp_path):
    size = len(hub.files['data/3.json.gz'])
    hub.faults = {LIST: [503], 'data/1.json.gz': [429, 503], 'data/3.json.gz': [size // 2, size // 3]}
    from_hub(hub, tmp_path, f'--licences={",".join(LICENCES)}')
    requests = collections.Counter(name for name, _ in hub.asked)
    assert requests == {LIST: 3, **{f'data/{i}.json.gz': n for i, n in enumerate([1, 3, 1, 3])}}
    begins = [begin for name, begin in hub.asked if name == 'data/3.json.gz']
    assert 0 == begins[0] < begins[1] <= size // 2 and 0 < begins[2] - begins[1] <= size // 3
    assert report(tmp_path / 'out')['counts']['licenses of codeparrot'] == dict.fromkeys(LICENCES, 80)
    assert [p.read_bytes() for p in sorted((tmp_path / 'raw').rglob('*.gz'))] == list(hub.files.values())

    hub.shutdown()
    hub.server_close()
    from_hub(hub, tmp_path, check=lambda result: mistake(
        result, "can't list", hub.address, 'codeparrot--codeparrot-clean already', '--source=FOLDER'))
    prepare(tmp_path / 'new', tmp_path / 'raw', *RAW)
    assert kept(tmp_path / 'new') == CONTENTS


def test_shards_are_removed_once_they_are_cleaned_and_asked_for_again(hub, tmp_path):
    from_hub(hub, tmp_path, '--keep_downloads=False')
    assert not [*(tmp_path / 'raw').rglob('*.gz')]
    from_hub(hub, tmp_path)
    assert len([*(tmp_path / 'raw').rglob('*.gz')]) == 4
