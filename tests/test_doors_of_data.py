"""The doors of prepare.py, one after the other: what each drops and keeps, beside slow versions of it."""
import collections
import math
import random

import numpy as np
import pytest
from conftest import ROOT, refused
from preparing import FOX, PROSE, RAW, dropped, kept, prepare, prose, read, report, write, write_records

from extras import audit, filters, records, text_quality

GERMAN = ['Die alte Mühle stand am Fluss, und in jedem Frühling stieg das Wasser, bis es die zweite Stufe '
          f'der Treppe erreichte; im Jahre {1800 + i} kam es bis zur Tür, und niemand schlief in der Nacht\n'
          for i in range(0, 60, 3)]


def notes():
    return collections.defaultdict(collections.Counter)


def reasons(check, texts, **more):
    """Why a stage drops each text."""
    return [check({'texts': [text], 'mode': 'prose', **more}, notes()) for text in texts]


# --- bits per byte ------------------------------------------------------------------------------------------
def naive_bits(reference, text, order, a):
    """The same mean from counts in a dictionary of byte strings, one byte after the other."""
    counts = collections.Counter()
    for document in reference:
        data = document.encode('utf-8', 'surrogatepass')
        counts[b''] += len(data)
        counts.update(data[i:i + n] for n in range(1, order + 1) for i in range(len(data) - n + 1))

    data = text.encode('utf-8', 'surrogatepass')
    bits = 0.0
    for i in range(len(data)):
        p = 1 / 256
        for n in range(1, min(order, i + 1) + 1):
            gram = data[i - n + 1:i + 1]
            p = (counts[gram] + a * p) / (counts[gram[:-1]] + a)
        bits -= math.log2(p)
    return bits / len(data) if data else 0.0


TEXTS = ['', 'a', 'ab ab', 'naïve 漢字\n' * 3, 'e\ud800e', 'one two one three one two', FOX * 9]


def test_bits_per_byte_are_those_of_plain_dictionaries():
    for order, a in ((1, 4), (3, 0.1), (6, 50)):
        for reference in TEXTS[4:], TEXTS[1:2]:
            model = text_quality.NgramModel(reference, order)
            for text in TEXTS:
                naive = naive_bits(reference, text, order, a)
                assert model.bits_per_byte(text, a) == pytest.approx(naive, abs=1e-6), (text, order)
    refused('no text', text_quality.perplexity, [], 0, 0)
    refused('both kinds', text_quality.quality, PROSE, [], 0.5)


# --- good or bad --------------------------------------------------------------------------------------------
def test_the_classifier_tells_code_from_shuffled_code_it_has_not_seen(python_files):
    rng = random.Random(0)
    code = ''.join(path.read_text(encoding='utf-8') for path in sorted(python_files.rglob('*.py')))
    pieces = [code[i:i + 500] for i in range(0, 500 * 800, 500)]
    rng.shuffle(pieces)
    good = [(piece, 'good') for piece in pieces]
    bad = [(''.join(rng.sample(piece, len(piece))), 'bad') for piece in pieces]
    for n_good, n_bad, least in ((600, 600, 0.99), (600, 12, 0.9)):         # one is rarer
        model = text_quality.Classifier.train(good[:n_good] + bad[:n_bad])
        for examples in (good[600:], bad[600:]):
            right = [model.predict(text)[label] > 0.5 for text, label in examples]
            assert sum(right) >= least * len(right), (n_good, n_bad)
    assert np.array_equal(model.weights, text_quality.Classifier.train(good[:600] + bad[:12]).weights)


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


def test_sentences_of_all_languages_are_recognized_and_no_word_is_listed_twice():
    right = {language: text_quality.language_of(text) for language, text in SENTENCES.items()}
    assert SENTENCES.keys() == text_quality.WORDS.keys() and all(a == b for a, b in right.items()), right
    for language, text in SENTENCES.items():
        wanted = [language, *text_quality.WORDS.keys() - {language}]
        assert reasons(text_quality.language(f'en,{language.upper()}'), [text]) == [None]
        assert reasons(text_quality.language(','.join(wanted[1:])), [text]) == [f'language {language}']
    for words in map(str.split, text_quality.WORDS.values()):
        assert len(set(words)) == len(words) >= 10 and words == [w.lower() for w in words], words


def test_a_text_of_too_few_letters_or_of_no_language_in_the_list_is_of_an_unknown_one():
    tables = ' '.join(f"{i}: '\\u{i:04x}', # LATIN SMALL LETTER" for i in range(300))
    nothing = ['', 'ok', 'buy now cheap pills ' * 30, '@#$% ' * 30]
    assert {text_quality.language_of(text) for text in [*nothing, tables]} == {'unknown'}
    czech = 'Nikdy jsme nebyli v horách, ale přátelé nám vyprávěli, jak je tam v zimě krásně.'
    for language in text_quality.WORDS:    # none is dropped for its language, whatever is wanted
        assert reasons(text_quality.language(language), nothing) == [None] * len(nothing)
    assert reasons(text_quality.language('en'), [czech])[0].startswith('language ')
    assert reasons(text_quality.language('en'), [czech], mode='code') == [None]
    for wrong in ('en,klingon', 'en, de', ','):
        refused('must be among ar,de', text_quality.language, wrong)


# --- lists of words, addresses, licenses --------------------------------------------------------------------
def test_toxic_words_are_whole_words_and_their_number_in_a_thousand_decides(tmp_path):
    (tmp_path / 'words').write_bytes('\ufeffDAMN # a comment\n\n# été\nass\n'.encode())
    assert filters.toxic_words('Damn! DAMN, goddamn; damned: a classic', {'damn', 'ass'}) == {'damn': 2}
    texts = ['damn ' + 'fine ' * 999, 'damn ' + 'fine ' * 998, 'été', 'fine']
    for most, found in ((1, [None, 'toxic', None, None]), (0, ['toxic', 'toxic', None, None])):
        assert reasons(filters.words(f'{tmp_path}/words', most), texts) == found


ADDRESSES = {
    'blocked domain': ['https://spam.com/x', '//a.b.spam.com:80', 'SPAM.COM', 'spam.com.', '//a@spam.com'],
    'spam domain': ['free-casino.net', 'https://sex.com', 'http://a@pornhub.xy/', 'x.casinos.org'],
    'no address': ['http://[x'],
    None: ['notspam.com', 'spam.com.org', 'https://a.org/spam.com', 'good.spam.com', 'both.com',
           'x.good.spam.com', 'ok.casino.net', 'https://www.essex.ac.uk/a', 'sussex.gov.uk',
           'popcorn.com', '', 'crackers.com', 'https://a.org/poker', 7]}


def test_addresses_are_judged_by_whole_domains_where_allow_wins_and_words_as_whole_words(tmp_path):
    lists = {'block': 'https://www.spam.com/index.html\nboth.com # and a comment\n',
             'allow': 'good.spam.com\nok.casino.net\nboth.com\n', 'filter': '[Adblock Plus 2.0]\nbad.com\n'}
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding='utf-8')
    check = filters.addresses(f'{tmp_path}/block', f'{tmp_path}/allow')
    for reason, urls in ADDRESSES.items():
        for url in urls:
            for record in ({'url': url}, {'url': None, 'func_code_url': url}):
                assert check({'record': record}, notes()) == reason, url
    assert filters.addresses('', '')({'record': {'url': 'spam.com'}}, notes()) is None
    refused(['filter must have a domain', 'adblock plus'], filters.addresses, '', f'{tmp_path}/filter')


def test_licenses_are_those_of_the_source_or_of_the_record_and_all_must_be_wanted():
    check = filters.licences('mit, BSD', {'web': ('x', 1), 'lib': ('stdlib', 1)})
    for record, source, reason in [
            ({'license': ['MIT', 'bsd']}, 'web', None), ({'license': 'MIT'}, 'lib', 'licence psf'),
            ({'license': ['MIT', 'GPL']}, 'web', 'licence mit, gpl'),
            ({'license': []}, 'web', 'licence unknown'),
            ({'licence': None, 'max_stars_repo_licenses': ['BSD']}, 'web', None)]:
        assert check({'record': record, 'source': source}, notes()) == reason, record


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
    for flags in [], ['--mode=raw']:
        prepare(tmp_path / 'out', source, '--dedup=none', '--val_fraction=0.3', f'--decontaminate={path}',
                *flags)
        assert kept(tmp_path / 'out') == sorted(innocent), flags
        assert read(tmp_path / 'out')[0]['decontaminated'] == {'problems': [str(path)], 'ngram': 13}


def test_a_benchmark_that_cannot_be_used_is_refused(tmp_path):
    write_records(tmp_path / 'long.jsonl', [{'prompt': prose(0)}, {'role': prose(1)}])
    write_records(tmp_path / 'short.jsonl', [{'prompt': 'too short'}])
    (tmp_path / 'damaged.jsonl').write_text(f'["{prose(0)}"]\n{{oops\n', encoding='utf-8')
    how = records.read, lambda text, mode: text, str.split, lambda words, n: np.array(
        [hash(tuple(words[i:i + n])) & 2 ** 63 - 1 for i in range(len(words) - n + 1)], np.uint64)
    texts = [prose(0), prose(1), ' '.join(prose(0).split()[:12])]
    check = filters.benchmarks(f'{tmp_path}/long.jsonl', *how)
    assert reasons(check, texts) == ['in a benchmark', None, None]
    for name, words in (('short', 'no text of 13 words'), ('none', 'does not exist'),
                        ('damaged', 'damaged.jsonl:2 .*must be the file of a benchmark')):
        refused(words, filters.benchmarks, f'{tmp_path}/long.jsonl,{tmp_path}/{name}.jsonl', *how)


# --- SimHash ------------------------------------------------------------------------------------------------
def test_simhash_joins_what_differs_in_three_bits_and_not_in_four():
    dice = random.Random(0)
    numbers = np.array([dice.getrandbits(64) for _ in range(1001)], np.uint64)      # each bit is a majority
    naive = sum((sum(x >> bit & 1 for x in numbers.tolist()) > 500) << bit for bit in range(64))
    [found] = filters.simhash(numbers)
    assert found.to_bytes(8, 'big') == naive.to_bytes(8, 'little')
    # the example of its docstring, in the lowest bits of the first byte
    example = np.array([0b0110, 0b1100, 0b0101], np.uint64)
    assert filters.simhash(example) == [0b0100 << 56] and filters.simhash(numbers[:0]) == [0]

    def all_that_share_a_key(columns, similar):
        n = len(columns[0])
        return np.array([any(similar(i, j) for i in range(j) if any(keys[i] == keys[j] for keys in columns))
                         for j in range(n)])

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
def test_lists_and_languages_are_stages_that_say_what_they_did(tmp_path):
    for name, lines in {'words': 'vile\nfoul # and its comment\n', 'allow': 'best-casino.com\nok.spam.com\n',
                        'block': '\ufeff.Spam.com\n# mine\n'}.items():
        (tmp_path / name).write_text(lines, encoding='utf-8')
    hosts = ['a.org', 'sub.spam.com', 'ok.spam.com', 'best-casino.com'] * 10
    rows = [{'text': text, 'url': f'https://{host}/x', 'license': ['mit', 'BSD']}
            for text, host in zip(PROSE, hosts)]
    rows += [{'text': text, 'license': 'MIT'} for text in GERMAN]
    rows += [{'text': PROSE[0], 'license': 'GPL'}, {'text': PROSE[1]}]
    # one toxic word in 1,400 is not much
    rows += [{'text': text, 'license': 'mit'} for text in (
        'This vile, vile thing is foul. ' + PROSE[0], 'One vile word. ' + ' '.join(PROSE))]
    source = write_records(tmp_path / 'x.jsonl', rows)
    prepare(tmp_path / 'out', source, '--dedup=none', '--languages=en', '--max_repetition=0',
            '--licences=mit, BSD', *(f'--{name}={tmp_path}/{path}' for name, path in (
                ('toxic_words', 'words'), ('url_block', 'block'), ('url_allow', 'allow'))))
    assert dropped(tmp_path / 'out') == {'licence gpl': 1, 'licence unknown': 1, 'blocked domain': 10,
                                         'language de': 20, 'toxic': 1}
    r = report(tmp_path / 'out')
    assert r['counts']['toxic words in what was dropped'] == {'vile': 2, 'foul': 1}
    assert r['counts'][f'licenses of {source}'] == {'mit, bsd': 40, 'mit': 22}


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
def test_samples_are_those_with_the_lowest_hashes_however_the_work_is_shared():
    def hash64(data):
        return int(data.split()[-1]) * 7919 % 1000

    stages = {'one': lambda document, notes: 'short' if len(document['texts'][0]) < 7 else None,
              'two': lambda document, notes: 'odd' if document['texts'][0][-1] in '13579' else None}
    parts = [notes(), notes()]
    for i in range(300):
        document = {'texts': [f'text {i}'], 'path': f'{i}\n.txt'}
        any(check(document, parts[i % 2]) for check in audit.watched(stages, 4, hash64).values())
    together = {title: parts[0][title] + parts[1][title] for title in parts[0] | parts[1]}
    assert max(map(len, together.values())) == 8
    page = audit.pages(together, 4, hash64)
    assert not together
    for reason, some in ('short', range(10)), ('odd', range(11, 300, 2)), ('kept', range(10, 300, 2)):
        lowest = sorted(some, key=lambda i: hash64(b'%d' % i))[:4]
        chapter = ''.join(f'## {i} .txt\n\n````\ntext {i}\n````\n\n' for i in lowest)
        assert f'# {reason}\n{chapter}' in page + '\n', reason


def test_a_text_has_the_genre_of_its_lines():
    for text, genre in [
            ('ROMEO:\nBut soft!\n\nJULIET:\nAy me!\n', 'dialogue'), ('Q: Why?\nBecause.\n' * 4, 'questions'),
            ('Buy\n- milk\n- bread\n- salt\n', 'list'), (prose(1), 'running text')]:
        assert audit.genre(text) == genre, text


def test_the_card_has_the_shares_of_tokens_and_names_what_dominates():
    sources = {'web': {'path': 'x', 'tokens': 300, 'passes': 3.0},
               'books': {'path': 'shakespeare', 'tokens': 200, 'passes': 0.5}}
    german = '- die alte Mühle stand und ist nicht mit dem Fluss, der in das Tal und zu den Wiesen\n'
    english = '- the old mill is not with the river that was in the valley and on to the meadows\n'
    texts = [('x = 1\n', 'unknown'), *[(english, 'unknown')] * 8, *[(german, 'mit')] * 4]
    sample = [{'texts': [text], 'path': 'x', **({'licence': name} if name == 'mit' else {})}
              for text, name in texts]
    mode_of = lambda text, path: 'code' if '=' in text else 'prose'
    card = audit.card(sample, sources, 1000, mode_of)
    skew = '; '.join(card['skew'])
    assert card['languages'] == {'en': 0.667, 'de': 0.333}
    assert card['licences'] == {'unknown': 0.692, 'mit': 0.308}
    assert '90% of the training tokens: web' in skew and '92% of the training tokens: list' in skew
    assert '69% of the training tokens name no license' in skew and 'books: plays by one author' in skew
    assert card['sources'] == {'web': 0.9, 'books': 0.1} and 'the prose' not in skew
    assert card['size'].startswith('1,000 training tokens; a corpus for pretraining has 10,000')
    unknown = [{'texts': ['17 ' * 99], 'path': 'x', 'licence': 'mit'}]
    assert 'unknown' not in str(audit.card(unknown, {}, 10 ** 9, mode_of)['skew'])
    # a document is taken as often as a run reads tokens of it
    weights = [random.Random(i).randrange(9) for i in range(50)]
    taken = collections.Counter(audit.spread(weights, sum(weights)).tolist())
    assert [taken[i] for i in range(50)] == weights
