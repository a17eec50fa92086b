"""
Point prepare.py at text and you get train.bin and val.bin: flat arrays of token ids for train.py.

    python prepare.py                               # Python's own standard library, without network
    python prepare.py --source=FOLDER --out_dir=data/mine --vocab_size=32768
    python prepare.py config/mix.py                 # several sources, weighted
    python prepare.py --kind=sft                    # 2,000 conversations of extras/problems.py

    each document by itself:    read -> normalise -> source -> language -> rules -> models
                                -> decontaminate -> personal data
    all of them together:       duplicates -> split -> tokenise -> mix -> report

A document is a file of text, or a record of .jsonl or .json. If the source is a single file of
text, such as Tiny Shakespeare, it passes no stage: a model trains on its first 90%, and the rest is
held out.

It writes into out_dir: meta.json; for text also train.bin, val.bin and tokenizer.json (with several
sources, val_<source>.bin for each, and with --write=text shards/ in place of train.bin); for
conversations and pairs train.jsonl and val.jsonl; report.md and report.json, unless the source is a
single file of text, or ours. The same command resumes an interrupted run.

You should see 12 MB of Python become 2.5 million tokens in a few seconds, and a table of what was
dropped. The decision made here is the corpus: a model shares its defects. Read report.md before you
train.

To read this file: section 1 finds the files and refuses settings that don't fit together. Section 2
has the stages, one function each, and section 3 has the other functions. Sections 4 to 10 do the
work, in the order of the diagram. They make what the functions use, such as `documents`, the
corpus, and `tok`, the tokenizer.
"""
import json, math, os, shlex, shutil, sys
from typing import Literal
from configurator import Mistake, configure, set_by
import numpy as np
from parts.prepare import clean, conversions, corpus, duplicates, files, filters, reading
from parts.prepare import report, text_models, workers
from parts.train import folders
from tokenizer import SPECIAL_TOKENS, Tokenizer

# --- settings: these are enough to begin ----------------------------------------------------------
source = 'stdlib'               # stdlib, shakespeare, codeparrot, hf:OWNER/NAME, file, folder, glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
kind: Literal['text', 'sft', 'preference'] = 'text'  # documents, conversations, or pairs
out_dir = ''                    # folder of results; '' = data/quickstart, data/sft or data/pairs
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or path of a tokenizer.json
vocab_size = 4096               # tokens of bpe: 256 bytes + merges + 64 special tokens
val_fraction = 0.1              # fraction of documents, or of a lone text, that is held out
mode: Literal['auto', 'code', 'prose', 'chat', 'raw'] = 'auto'  # auto looks at it; raw: no rules
dedup: Literal['none', 'exact', 'minhash', 'simhash'] = 'minhash'  # the last two drop near-copies
pii = True                      # e-mail, phone, SSN, keys become <EMAIL>, <PHONE>, <SSN>, <KEY>
decontaminate = ''              # benchmark files, a,b,...: drop what shares 13 words in a row
num_workers = 0                 # processes that share the work; 0 = all cores

# --- settings of single rules: skip them on a first reading ---------------------------------------
# read: files become documents, and answers that eval.py judged become conversations or pairs
max_chars = 1_000_000           # most characters of a record; a file may have more
download_dir = 'data/raw'       # folder for downloads
keep_downloads = True           # False: delete each one when its text is clean
prefer: Literal['passed', 'taste', 'both'] = 'passed'  # what makes one of eval.py's answers better
audit = 0                       # documents to show in audit.md for each reason; 0 = no audit
part = ''                       # 3/16: clean the third of 16 parts of the work; then run without it
# normalise, source, language
strip_markup = True             # remove HTML and LaTeX commands from prose
url_block = ''                  # file of domains to drop, one a line
url_allow = ''                  # file of domains that are never dropped
licences = ''                   # the only licenses to keep: mit,bsd,unknown,...; '' = all
languages = ''                  # such as en,de: drop prose and chat clearly in another one
# rules for prose, 0 = off; parts/prepare/filters.py says what each one does
min_words = 20                  # words
max_symbols = 0.3               # fraction of characters that are symbols, such as #
max_repetition = 0.7            # fraction of lines or words that repeat
max_gibberish = 0.2             # fraction of words that no language would spell
# rules for code, 0 or False = off
max_line = 1000                 # characters of the longest line
mean_line = 100                 # characters of the average line
min_alphanumeric = 0.25         # fraction of letters and digits
autogenerated = True            # drop files whose first lines say that a program wrote them
config_test = 0.7               # fraction of configuration and test files to drop
no_keywords = 0.7               # fraction of files without def, class, for, while to drop
min_assignments = 5             # number of = signs
parse = True                    # drop Python that does not compile, in answers, too
# rules for conversations (sft), then for pairs (preference)
n_examples = 2000               # conversations to write without a source; more teach more
min_score: float | None = None  # the score that a judge gave
min_answer = 0                  # characters of each answer
max_answer = 0                  # characters of each answer; 0 = no limit
unwanted = ''                   # file of phrases that no answer may have, one a line
min_margin = 0.0                # score of chosen - score of rejected
min_agreement = 0.0             # fraction of annotators who agree
# models: n-grams and a classifier
perplexity_reference = ''       # good text: its n-grams predict each document
min_bits = 0.5                  # bits per byte; documents below it are boilerplate
max_bits = 5.0                  # bits per byte; documents above it are noise; 0 = no limit
quality_good = ''               # texts as you want them, to train a classifier
quality_bad = ''                # texts as you do not want them
min_quality = 0.5               # probability that a text is like the good ones
toxic_words = ''                # file of words, one a line
max_toxic = 1.0                 # toxic words in 1,000 words; 0 = not one
# duplicates: the first of those that say the same stays
bands = 32                      # MinHash bands; texts that agree in one are compared
rows = 8                        # numbers in a band; more numbers, fewer comparisons
min_similarity = 0.85           # minhash: Jaccard similarity of n-grams that makes a copy
# tokenise, mix, write
gpt2_dir: str | None = None     # folder with vocab.bpe and encoder.json; None = download
write: Literal['bins', 'text'] = 'bins'  # text: shards/*.jsonl.gz, for train.py --streaming
temperature = 1.0               # for sources without weights; above 1: more equal parts
# The lowest and the highest value of numbers; any other number must be at least 0.
BOUNDS = {'vocab_size': (1, 1e7), 'val_fraction': (1e-9, 0.999), 'num_workers': (0, 1024),
          'max_chars': (1, 1e12), 'max_symbols': (0, 1), 'max_repetition': (0, 1),
          'max_gibberish': (0, 1), 'min_alphanumeric': (0, 1), 'config_test': (0, 1),
          'no_keywords': (0, 1), 'n_examples': (1, 1e7), 'min_score': (-1e18, 1e18),
          'min_margin': (-1e18, 1e18), 'min_agreement': (0, 1), 'min_quality': (0, 1),
          'bands': (1, 1024), 'rows': (1, 64), 'min_similarity': (0, 1),
          'temperature': (0.05, 1e6)}
config = configure(globals(), BOUNDS)
NGRAM = 13                      # words in a row that a document and a benchmark share; as for GPT-3

# --- 1. the sources, and the settings that do not fit together ------------------------------------
out_dir = out_dir or {'text': 'data/quickstart', 'sft': 'data/sft',
                      'preference': 'data/pairs'}[kind]
# From here on `sources` is a dict: a lone --source becomes {source: (source, None)}, no weight.
sources = files.sources_of(source, sources, 'source' in set_by)
# Processes share the work by shards. A shard is one file of records, or small files of one source,
# 16 MB together:
#     {'source': 'stdlib', 'files': [{'path': '/usr/lib/python3.11/abc.py'}, ...]}
shards = files.shards(sources, download_dir, kind)
inputs = [file for shard in shards for file in shard['files']]

# Settings that do not fit together are refused now, because the cleaning may take hours. A mixture,
# shards of text, and conversations or pairs exclude each other.
mixing = temperature != 1, any(weight for _, weight in sources.values())
if sum([*mixing, write == 'text', kind != 'text']) > 1:
    raise Mistake('weights, --temperature and --write=text need --kind=text; weights and '
                  '--temperature also need --write=bins, and exclude each other')
# Without a source, --kind=sft writes problems of ours, which need no other setting.
lacks_source = kind != 'text' and not set_by.keys() & {'source', 'sources'}
if lacks_source and kind == 'preference':
    raise Mistake('--kind=preference needs --source=FILE with pairs or labels, such as the '
                  'samples.jsonl that eval.py writes')
for name in set_by:
    if lacks_source and name not in ('kind', 'out_dir', 'n_examples'):
        raise Mistake(f'--{name} needs conversations of your own; add --source=FILE')
if not lacks_source and 'n_examples' in set_by:
    raise Mistake('--n_examples is the number of examples that we write: it needs --kind=sft and '
                  'no --source')
# A lone text passes no stage, so other settings than these would do nothing.
path = inputs[0]['path']
is_lone_text = kind == 'text' and len(inputs) == 1 and not reading.is_kind(path, reading.RECORDS)
for_lone_texts = ('source sources kind out_dir tokenizer vocab_size val_fraction num_workers '
                  'download_dir keep_downloads gpt2_dir')
for name in set_by.keys() - for_lone_texts.split() if is_lone_text else ():
    if config[name] != 'raw':       # raw is what happens
        raise Mistake(f'{name}={config[name]} needs documents: a folder or .jsonl, not {path}')
# A tokenizer that exists is loaded now, so that a wrong path is refused now. bpe and char are made
# later, from the texts that are left.
tok = None                      # the tokenizer; the setting `tokenizer` is only its name or path
smallest_bpe = 256 + len(SPECIAL_TOKENS)
if tokenizer == 'gpt2':
    tok = Tokenizer.gpt2(gpt2_dir)
elif tokenizer.endswith('.json'):
    tok = Tokenizer.load(tokenizer)
elif tokenizer not in ('bpe', 'byte', 'char'):
    raise Mistake(f'tokenizer={tokenizer!r} must be bpe, byte, char, gpt2 or the path of a '
                  'tokenizer.json')
elif tokenizer == 'bpe' and vocab_size < smallest_bpe:
    raise Mistake(f'vocab_size={vocab_size} must be >= {smallest_bpe}: bytes and special tokens')


# --- 2. the stages: what happens to a document by itself ------------------------------------------
# A document is a dict. A file, and a conversation of a .jsonl, may be
#     {'texts': ['import abc\n...'], 'path': 'lib/abc.py', 'source': 'stdlib', 'mode': 'code'}
#     {'texts': ['Hi!', 'Hello.'], 'roles': ['user', 'assistant'], 'path': 'a.jsonl:7', ...}
# A stage may change a document. It returns the reason to drop it, or None. In notes,
# {name: Counter}, it counts for the report. Rules come before duplicates for two reasons. A rule
# needs one document at a time, so processes can share the work. And of several copies the first
# one stays. If a rule dropped that one later, no copy would be left.

# what the stages look things up in
wanted_licences = {name.strip() for name in licences.lower().split(',')} - {''}
blocked = filters.domains_of(url_block)
allowed = filters.domains_of(url_allow)
wanted_languages = text_models.languages_of(languages)
phrases = filters.lines_of(unwanted)
toxic = filters.lines_of(toxic_words)
benchmarks = [path for path in decontaminate.split(',') if path]
# The files of these lists, of the benchmarks, and of the texts that train models: {path: files}. An
# interrupted run goes on only if none of them changed. Section 5 refuses a missing benchmark.
stage_files = {path: files.find_files(path, download_dir) for path in (
    url_block, url_allow, unwanted, toxic_words, perplexity_reference, quality_good, quality_bad,
    *filter(os.path.exists, benchmarks)) if path}


def mode_of(doc):
    """Return how to treat a document: as code (Python), other code, prose, chat or raw."""
    if mode != 'auto':
        return mode
    return clean.form_of(doc['texts'][0], doc['path']) if kind == 'text' else 'chat'


def check_text(doc, notes):
    """Drop what has no text, and records that are longer than max_chars, because such records are
    most often data. A file that long may be a book."""
    if not any(map(str.strip, doc['texts'])):
        return 'empty'
    # Only a file has an encoding.
    if 'encoding' not in doc and sum(map(len, doc['texts'])) > max_chars:
        return 'too long'


def normalise(doc, notes):
    """Give texts one form, whatever their source: Unicode, line ends, markup. A page that has only
    tags is empty then."""
    doc['texts'] = [clean.normalise(text, doc['mode'], strip_markup) for text in doc['texts']]
    return check_text(doc, notes)


def check_source(doc, notes):
    """Drop a document by its license or its address."""
    licence = doc['licence'] = report.licence(sources[doc['source']][0], doc)
    if wanted_licences and not wanted_licences.issuperset(licence.split(', ')):
        return f'licence {licence}'
    if 'url' in doc:
        return filters.url_reason(doc['url'], blocked, allowed)


def check_language(doc, notes):
    """Drop a text that is clearly in another language. If we have no words of that language, the
    reason is 'language unknown'. A text that is too short to tell stays."""
    if wanted_languages and doc['mode'] in ('prose', 'chat'):
        text = '\n'.join(doc['texts'])
        if text_models.is_foreign(text, wanted_languages):
            return f'language {text_models.language_of(text)}'


def check_rules(doc, notes):
    """Drop what a rule for this kind of text objects to. parts/prepare/filters.py has the rules."""
    if doc['mode'] == 'raw':
        return None
    if kind == 'preference':
        return filters.preference_reason(conversions.to_record(doc), min_margin, min_agreement)
    if kind == 'sft':
        messages = conversions.to_record(doc)['messages']
        return filters.messages_reason(messages, doc.get('score', math.inf), min_score, min_answer,
                                       max_answer, phrases, parse)

    text = doc['texts'][0]
    if doc['mode'] in ('prose', 'chat'):
        return filters.prose_reason(text, min_words, max_symbols, max_repetition, max_gibberish)
    # A rule such as config_test drops only 7 in 10 of what it finds: texts whose hash, in [0, 1),
    # is below 0.7. So the next run drops the same ones. The split in section 7 holds out documents
    # whose hash is below 0.1, and its hash is another one. With the same one, it would hold out
    # nothing of what such a rule keeps, because all of that has a hash above 0.7.
    chance = corpus.hash64(b'rules' + text.encode()) / 2 ** 64
    return filters.code_reason(text, chance, max_line, mean_line, min_alphanumeric, autogenerated,
                               config_test, no_keywords, min_assignments, doc['mode'] == 'code',
                               parse)


def check_models(doc, notes):
    """Drop what is too predictable or too surprising, what is like the bad examples, and what has
    many toxic words. `judges` are the two models that section 5 trains."""
    text = '\n'.join(doc['texts'])
    reason = judges.reason(text, notes, min_bits, max_bits, min_quality)
    hits = filters.toxic_words(text, toxic)
    if not reason and hits.total() * 1000 > max_toxic * len(text.split()):
        notes['toxic words in what was dropped'].update(hits)
        return 'toxic'
    return reason


def check_benchmarks(doc, notes):
    """Drop what shares 13 words in a row with a benchmark: a model would know the answers. Section
    5 makes benchmark_ngrams."""
    if benchmarks and any(duplicates.has_ngram(text, benchmark_ngrams, NGRAM)
                          for text in doc['texts']):
        return 'in a benchmark'


def hide_personal_data(doc, notes):
    """Replace personal data by placeholders. This stage drops nothing."""
    if pii:
        for i, text in enumerate(doc['texts']):
            doc['texts'][i], hits = filters.hide(text)
            notes[f'personal data in {doc["source"]}'].update(hits)


STAGES = {'read': check_text, 'normalise': normalise, 'source': check_source,
          'language': check_language, 'rules': check_rules, 'models': check_models,
          'decontaminate': check_benchmarks, 'personal data': hide_personal_data}

# --- 3. the other functions -----------------------------------------------------------------------
# They use what the work below makes: near, documents, in_val, tok and dtype.


def texts_of(path):
    """Yield the texts that train a model, normalised like documents."""
    ignore = lambda *error: None        # a record that can't be read
    files.fetch_all(stage_files[path])
    for doc in conversions.documents(reading.entries(stage_files[path], ignore), ignore):
        yield clean.normalise(doc['texts'][0], mode_of(doc), strip_markup)


def make_tokenizer(train_texts, all_texts, special_tokens):
    """Return the tokenizer that --tokenizer names, and the dtype of its ids. Only training texts
    decide about bpe's merges, but with char the characters of validation texts need ids, too."""
    if tokenizer == 'bpe':
        new = Tokenizer.train(train_texts, vocab_size, special_tokens,
                              processes=num_workers or None)
    elif tokenizer == 'char':
        new = Tokenizer.char(all_texts, special_tokens)
    else:
        new = tok or Tokenizer.byte(special_tokens)
    print(f'tokenizer: {tokenizer}, {new.vocab_size:,} tokens, hash {new.hash}')
    return new, 'uint16' if new.vocab_size <= 2 ** 16 else 'uint32'


def shingles_of(text):
    """Return the hashes of the word n-grams by which near-duplicates are found."""
    if kind == 'sft':
        text = '\n'.join(conversions.strings_in(json.loads(text)))
    return duplicates.shingles(text)


def keys_of(text):
    """Return the numbers, 32 with MinHash, by which near-duplicates of this text will be found."""
    return duplicates.near_keys(shingles_of(text), near, bands, rows) if near else []


def kept_documents(shard, account):
    """Yield the documents that pass all stages. The account counts what each stage drops."""
    entries = reading.entries(shard['files'], account.reject)
    for doc in conversions.documents(entries, account.reject, kind, prefer):
        doc['source'] = shard['source']
        doc['mode'] = mode_of(doc)
        # Each stage in turn, until one returns a reason to drop the document.
        if account.passes(doc, STAGES):
            yield doc


def clean_shard(i):
    """Send the documents of a shard through the stages, and write those that pass into a file,
    unless an interrupted run has done it. Return the number of the shard."""
    if not documents.has_shard(i):
        downloads = files.fetch_all(shards[i]['files'])
        account = report.Account(audit)
        documents.write_shard(i, kept_documents(shards[i], account), keys_of, account)
        if not keep_downloads:
            for path in downloads:
                os.remove(path)
    return i


def encoded_documents(shard):
    """Yield for each document of a shard: 'train' or 'val', its length, its data. The length of a
    text is in tokens, with <|endoftext|>. That of a conversation or pair is in characters, with the
    end of its line, and nothing uses it."""
    for numbers, records in documents.batches(shard):
        texts = [record['text'] for record in records]
        encoded = tok.encode_batch(texts) if kind == 'text' else texts
        for i, record, ids in zip(numbers, records, encoded):
            side = 'val' if in_val[i] else 'train'
            if kind != 'text':
                data = f'{record["text"]}\n'.encode()
            elif write == 'text' and side == 'train':
                data = json.dumps(record).encode() + b'\n'
            else:
                data = np.array([*ids, tok.special['<|endoftext|>']], dtype)
            yield side, len(ids) + 1, data


def encode_shard(shard):
    """Write a shard's part of train.bin and val.bin. Return the length of each document."""
    return documents.write_pieces(shard, encoded_documents(shard), write == 'text')


# meta.json holds the settings that decide about the data. A run knows its data by the hash of that
# file, so the number of workers, which changes no token, must not change the hash.
settings = {name: value for name, value in config.items() if name not in (
    'out_dir', 'num_workers', 'download_dir', 'keep_downloads', 'part', 'audit', 'preset')}


def publish_and_exit(folder, meta, pages):
    """Move the results from their work folder into out_dir, with the tokenizer, meta.json and these
    pages, {name: text}. Say what comes next, and end the script."""
    if kind == 'text':
        tok.save(folder / 'tokenizer.json')
        meta |= {'dtype': dtype, 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash}
    corpus.publish(out_dir, {**meta, 'config': settings}, pages)
    # What the next stage starts from is perhaps not there yet: then it is made first. The preset
    # reads 256 tokens at a time, and a bin must have more.
    if kind == 'text':
        steps = ['python train.py config/quickstart.py --sample_prompt=']
        if (n := min(meta['tokens'].values())) <= 256:
            steps[0] += f' --block_size={n - 1}'
        if write == 'text':
            steps[0] += f' --streaming={shlex.quote(out_dir)}/shards'
    elif kind == 'sft':
        base, steps = folders.reach('out/base')
        steps.append(f'python sft.py{folders.flag("init_from", base, "out/base")}')
    else:
        model, steps = folders.reach('out/sft')
        labels = any(any(reading.read_jsonl(f'{out_dir}/{name}.jsonl', lambda record:
                                            'completion' in record, ''))
                     for name in ('train', 'val'))
        steps.append(f'python dpo.py{folders.flag("init_from", model, "out/sft")}'
                     f'{" --loss_type=kto" * labels}')
    run = folders.unused(f'out/{os.path.basename(os.path.realpath(out_dir))}')
    print(f'next: {" && ".join(steps)} --data_dir={shlex.quote(out_dir)} '
          f'--out_dir={shlex.quote(run)}')
    sys.exit()


# --- 4. two short cuts, each of which ends the script: skip them on a first reading ---------------
# --kind=sft without a source: conversations are problems of ours with their answers.
if lacks_source:
    from extras import problems
    folder = corpus.new_folder(out_dir, [], kind)
    for name, examples in (
            ('train', problems.problems(n_examples, with_tests=False)),
            ('val', problems.problems(300, 0, 'validation', with_tests=False))):
        (folder / f'{name}.jsonl').write_text(problems.to_jsonl(examples), encoding='utf-8')
    print(f'{out_dir}: {n_examples:,} conversations to train on, 300 held out')
    publish_and_exit(folder, {}, {})

# A lone text: a model trains on its beginning, and its end is held out.
if is_lone_text:
    text, _ = reading.text_of(path)
    cut = int(len(text) * (1 - val_fraction))
    if not 0 < cut < len(text):
        raise Mistake(f'{path} has {len(text)} characters, too few to hold some out')
    folder = corpus.new_folder(out_dir, [path], kind)
    # One text needs no <|endoftext|>. So bytes have the ids 0 to 255, and nothing is added to the
    # 65 characters of Tiny Shakespeare.
    special_tokens = () if tokenizer in ('byte', 'char') else SPECIAL_TOKENS
    tok, dtype = make_tokenizer([text[:cut]], [text], special_tokens)
    n_tokens = {}
    for side, half in ('train', text[:cut]), ('val', text[cut:]):
        ids = np.array(tok.encode(half), dtype)
        ids.tofile(folder / f'{side}.bin')
        n_tokens[side] = len(ids)
        print(f'{side}.bin: {len(ids):,} tokens')
    publish_and_exit(folder, {'tokens': n_tokens, 'sources': sources}, {})

# --- 5. each document by itself: processes send the shards through the stages ---------------------
if kind == 'text' and tok and '<|endoftext|>' not in tok.special:
    raise Mistake(f'{tokenizer} has no <|endoftext|> to end documents; use another, or '
                  '--tokenizer=bpe')
# Two stages compare documents with these models and these n-grams. The models train now, on the
# texts that the settings name. The processes that clean are forked from this one, so they share
# all of it.
judges = text_models.Judges(texts_of, perplexity_reference, quality_good, quality_bad)
benchmark_ngrams = np.zeros(0, np.uint64)
for benchmark in benchmarks:
    # A document may have a problem as it was published, or as normalise leaves it, without LaTeX.
    records = reading.read_jsonl(benchmark, lambda record: record,
                                 'it must be the file of a benchmark')
    forms = (form for text in conversions.strings_in(records) for form in clean.variants(text))
    ngrams = duplicates.ngrams_of(forms, NGRAM)
    if not len(ngrams):
        raise Mistake(f'{benchmark} has no text of {NGRAM} words, so it could find nothing')
    benchmark_ngrams = np.union1d(benchmark_ngrams, ngrams)

jobs = workers.part_of(range(len(shards)), part)        # numbers of the shards to clean
# Near-duplicates of pairs stay, because two pairs may differ in the one word that they teach.
near = dedup if dedup in ('minhash', 'simhash') and kind != 'preference' else None
# The corpus. At this moment it is a folder for the work, out_dir/.work, and has no documents.
# clean_shard writes them into the folder, and only then gather fills the arrays that the rest of
# this file uses. If an interrupted run has left clean shards in the folder, only the others are
# cleaned, provided that the settings and all files that a run reads are still the same.
read_files = sum(stage_files.values(), inputs)
documents = corpus.Corpus(out_dir, kind, [settings, audit], read_files, shards)
cleaned = list(workers.in_parallel(clean_shard, jobs, num_workers, 'cleaning'))     # [0, 1, ...]
if part:
    print(f'part {part}: {len(cleaned)} shards are clean; after all parts, run without --part')
    sys.exit()

# From here on, one process looks at the n documents that are left, all together. Their texts stay
# on the disk. gather fills these arrays, (n,) each:
#     documents.size      bytes of its text
#     documents.exact     a hash of its text: equal for copies
#     documents.split     a hash that decides whether it is for training or for validation
#     documents.shard     the number of its shard; documents.owners[shard] is the source of a shard
# The account of all shards has what their stages dropped, and takes what is dropped from here on.
whole_account = report.Account(audit)
documents.gather(cleaned, whole_account)

# --- 6. duplicates: of the documents that say the same, the first one stays -----------------------
# A search returns, for each document, the position of the first one that says the same: [0, 1, 0]
# means that the third is a copy of the first. drop_copies takes it out of all arrays.
#
# MinHash finds near-duplicates without comparing each document with each. Let one text have the
# n-grams a, b, c and another one b, c, d. They share 2 of 4: their Jaccard similarity J is 0.5. A
# hash function gives each n-gram a number that is as good as random:
#     n-gram      a     b     c     d
#     number      71    35    12    58
# The smallest number of the first text is 12, and so is that of the second. They agree because c,
# which has the smallest of the four numbers, is in both texts. If a or d had it, they would differ.
# Each of the four is as likely to have it as the others, so they agree with probability 2 / 4 = J.
# A text gets 256 such numbers from 256 hash functions, in 32 bands of 8. All 8 of a band agree with
# probability J^8, and at least one band of 32 with 1 - (1 - J^8)^32. Only texts that agree in a
# band have their n-grams compared:
#     J                                   0.4     0.5     0.9
#     probability of being compared       0.02    0.12    0.99999998
if dedup != 'none':
    documents.drop_copies(whole_account, 'exact duplicate', documents.exact_copies())
if near and len(documents.size):
    first_ones = duplicates.near_clusters(
        near, documents.band_keys(), lambda i: shingles_of(documents.text(i)), min_similarity)
    documents.drop_copies(whole_account, 'near duplicate', first_ones)

# --- 7. split: training or validation, by a hash of the text --------------------------------------
# A random number would put a document on another side in the next run, and its copies on both
# sides. With a hash of the text a document stays where it is, next to its copies. Conversations are
# split by a hash of their first question, so no question that is held out is trained on.
in_val = documents.split / 2 ** 64 < val_fraction       # bool (n,)
in_train = ~in_val
origin = documents.owners[documents.shard]              # the name of each document's source, (n,)
# Each source of text needs a document to train on, because section 9 divides by its tokens. For
# conversations and pairs, one document of any source is enough.
missing = []
for name in sources:
    to_train_on = in_train[origin == name] if kind == 'text' else in_train
    if not to_train_on.any():
        missing.append(f'to train on from the source {name}')
if not in_val.any():
    missing.append('to validate')
if missing:
    # The next run must have other settings, so it can't go on with what is clean.
    shutil.rmtree(documents.new.parent)
    raise Mistake(f'no documents are left {" and ".join(missing)} ({whole_account.lost()}; of '
                  'copies, the first one stays); give more, drop fewer, or change --val_fraction')

# --- 8. tokenise and write ------------------------------------------------------------------------
# train.bin holds ids and nothing else, document after document. `x = 1` ends and `y = 2` begins:
#     id        120     273     32      49      4032             121     ...     uint16, two bytes
#     token     'x'     ' ='    ' '     '1'     <|endoftext|>    'y'     ...
if kind == 'text':
    # bpe is trained on at most a gigabyte. A hash draws this sample, the same one in every run.
    fraction = 1e9 / documents.size[in_train].sum()
    sample = in_train & (documents.exact / 2 ** 64 <= fraction)
    tok, dtype = make_tokenizer(documents.texts(sample), documents.texts(in_train | in_val),
                                SPECIAL_TOKENS)
# The number of tokens of each document, int64 (n,).
lengths = np.concatenate([*workers.in_parallel(encode_shard, cleaned, num_workers, 'encoding')])

# The documents of each result, bool (n,). Several sources also have a val_<source>.bin each.
results = {'train': in_train, 'val': in_val}
if kind == 'text' and len(sources) > 1:
    results |= {f'val_{name}': in_val & (origin == name) for name in sources}
for name, which in results.items():
    if name != 'train' or write == 'bins':
        documents.join(f'{name}.{"bin" if kind == "text" else "jsonl"}', which)

# --- 9. mix: a weight is a fraction of an epoch, and the passes over a source follow from it ------
# train.bin holds each source once, and an epoch reads as many tokens as it has. With 900 tokens of
# web and 100 of books, both of weight 50, an epoch reads 500 of each: 500 / 900 = 0.56 passes over
# web and 500 / 100 = 5 passes over books.
by_source = {name: {'path': path} for name, (path, _) in sources.items()}
if kind == 'text':
    for name, entry in by_source.items():
        entry['tokens'] = int(lengths[in_train & (origin == name)].sum())
        entry['weight'] = sources[name][1] or entry['tokens'] ** (1 / temperature)
    n_tokens = int(lengths[in_train].sum())
    sum_of_weights = sum(entry['weight'] for entry in by_source.values())
    for entry in by_source.values():
        entry['passes'] = round(entry['weight'] / sum_of_weights * n_tokens / entry['tokens'], 6)

# --- 10. the report, and what a run must know of its data -----------------------------------------
content, sizes = whole_account.report(documents, results, by_source,
                                      lengths if kind == 'text' else None)
facts = 'documents', 'tokens', 'bytes', 'sources'
# mixed: False says that train.bin holds each source once. In folders of older versions, the
# passes of a mixture are in the file.
meta = {'mixed': False} | {name: content[name] for name in facts if name in content}
if benchmarks:
    meta['decontaminated'] = {'problems': benchmarks, 'ngram': NGRAM}
pages = {'report.md': report.report_md(out_dir, content, sizes),
         'report.json': json.dumps(content, indent=1)}
if audit:
    pages['audit.md'] = whole_account.audit_md()
print(report.summary(content, sizes))
if any(mixing):
    print('train.bin alone is unweighted; train.py reads each source as often as meta.json says')
publish_and_exit(documents.new, meta, pages)
