"""
Data: text from somewhere -> train.bin and val.bin, flat arrays of token ids that train.py maps into memory.

    python prepare.py                               # Python's own standard library, without network
    python prepare.py --source=FOLDER --out_dir=data/mine --vocab_size=32768
    python prepare.py --source=shakespeare --tokenizer=char --out_dir=data/shakespeare_char
    python prepare.py config/mix.py                 # several sources, weighted
    python prepare.py --kind=sft --source=conversations.json --out_dir=data/sft
    python prepare.py --kind=preference --source=out/sft/samples.jsonl --dedup=exact --out_dir=data/pairs

A source is a file, a folder or a glob. Of .py .txt .md, a file is a document; of .jsonl .json, a record is
one, its text under `text` or `content`; any of them may be gzipped. One single text file is taken as it is.

read -> normalise -> source (address, licence) -> language -> rules -> models -> personal data ->
decontaminate -> duplicates -> tokenise -> mix. A document that is dropped is counted, with the reason.

Input may be larger than memory. It is cut into shards, which several processes clean. What stays waits,
compressed, in out_dir/.work. A finished shard is never done again: after a crash, a full disk or a kill, the
same command resumes. Memory grows with the number of documents only, by about 100 bytes each.

Writes under out_dir: train.bin, val.bin (uint16, or uint32 above 65,536 ids; a document ends with
<|endoftext|>), val_<source>.bin if there are several sources, tokenizer.json, meta.json, report.md and
report.json. For --kind=sft and preference, train.jsonl and val.jsonl instead of bins and tokenizer.

You should see 12 MB of Python become 2.5 million tokens in a few seconds, and a table of what was dropped.

The decision made here is the corpus: a model can only know what these files hold, and it shares their
defects. Read report.md before you train. Each stage calls a file of parts/, which you may skip.
"""
import functools, json, time
import numpy as np
from tqdm import tqdm
from configurator import configure, show
from parts import clean, corpus, files, filters, funnel, language, texts
from parts import dedup as copies, pii as personal, sources as inputs      # these names are settings here
from tokenizer import SPECIAL_TOKENS, Tokenizer, to_utf8

# --- settings -----------------------------------------------------------------------------------------------
# what, and where to
source = 'stdlib'               # stdlib, shakespeare, codeparrot, or a file, folder or glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
kind = 'text'                   # text | sft | preference: sft: conversations; preference: two answers each
out_dir = 'data/quickstart'     # train.bin, val.bin, tokenizer.json, meta.json, report.* go here
val_fraction = 0.1              # (0, 1): held out, of the documents, or of the characters if there is but one
max_docs = 0                    # >= 0: stop after so many documents of the one source; 0 = all
max_chars = 1_000_000           # >= 1: a longer record or .py file is not read
processes = 0                   # >= 0: 0 = one per core
download_dir = 'data/raw'       # downloads are kept here
keep_downloads = True           # False: delete a shard of codeparrot once it is cleaned
hub = 'https://huggingface.co'  # of codeparrot
dataset = 'codeparrot/codeparrot-clean'     # of codeparrot: any dataset of .json.gz files there

# cleaning; 0, False, '' or None switches a rule off; parts/filters.py says what each one does
mode = 'auto'                   # auto | code | prose | chat | raw: raw: no rules; auto: code for .py, ...
strip_markup = True             # of prose: HTML tags and entities, LaTeX commands
strip_licence = False           # of code: the comment at the top, if it is a licence
basic_clean = False             # of prose: the source document's filter instead of ours, to compare
url_block: str | None = None    # file of domains, one a line; for records with a `url`
url_allow: str | None = None    # file of domains that are never blocked
licences = ''                   # keep only these, comma-separated: mit,bsd,apache-2.0,unknown,...
languages = ''                  # keep only prose and chat in these, comma-separated: en,de,...
min_words = 20                  # >= 0: of prose
max_words = 1_000_000           # >= 0: of prose
max_symbols = 0.3               # [0, 1]: of prose: share of visible characters that are not letters or digits
max_repetition = 0.7            # [0, 1]: of prose: share of repeated lines, or of repeated words within 200
max_gibberish = 0.2             # [0, 1]: of prose: share of words that no language would spell
max_line = 1000                 # >= 0: of code: characters of the longest line
mean_line = 100                 # >= 0: of code: characters of the average line
min_alphanumeric = 0.25         # [0, 1]: of code: share of letters and digits
autogenerated = True            # of code: dropped if the first five lines say so
config_test = 0.7               # [0, 1]: of code: probability to drop configuration and test files
no_keywords = 0.7               # [0, 1]: of code: probability to drop a file without def, class, for, while
min_assignments = 5             # >= 0: of code: signs =
parse = True                    # of code, and of ```python in chat: dropped if Python cannot compile it
min_chars_per_token = 1.5       # >= 0: of code, with a vocabulary of 4,096 or more; tables have fewer
perplexity_reference: str | None = None     # good text (file, folder, glob), whose n-grams predict the rest
min_bits = 0.5                  # >= 0: per byte under the reference; less is boilerplate
max_bits = 5.0                  # >= 0: per byte; more is noise, or another language
quality_good: str | None = None # texts as you want them; with quality_bad, trains a classifier
quality_bad: str | None = None  # texts as you do not want them
min_quality = 0.5               # [0, 1]: probability of `good`
toxic_words: str | None = None  # file of words, one a line; report.md says what each of them removed
max_toxic = 1.0                 # >= 0: such words per 1,000
min_margin = 0.0                # of preference: score of chosen - score of rejected
min_agreement = 0.0             # [0, 1]: of preference: share of annotators who agree
max_per_prompt = 4              # >= 1: of eval.py's samples.jsonl: pairs, or passed answers, of a prompt
prefer = 'passed'               # passed | taste | both: ... which won: passed, over failed; taste, ...
pii = True                      # e-mail, phone, SSN, keys -> <EMAIL>, <PHONE>, <SSN>, <KEY>
decontaminate = ''              # benchmark files, comma-separated; documents that share an n-gram are dropped
decontaminate_ngram = 13        # >= 1: words; GPT-3's choice
dedup = 'minhash'               # none | exact | minhash | simhash: the last two include exact
min_similarity = 0.85           # [0, 1]: minhash: Jaccard similarity of the sets of word n-grams
shingle = 5                     # >= 1: words per n-gram
bands = 32                      # >= 1: of the MinHash signature
rows = 8                        # >= 1: per band
simhash_distance = 3            # [0, 31]: simhash: bits of 64

# tokens
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or the path of a tokenizer.json
vocab_size = 4096               # >= 1: for bpe: 256 bytes + merges + 64 special tokens
tokenizer_bytes = 1_000_000_000 # >= 1: train it on a sample of so many bytes
gpt2_dir: str | None = None     # has GPT-2's vocab.bpe and encoder.json; None = tiktoken's cache or network
write = 'bins'                  # bins | text: text: shards/*.jsonl.gz, for train.py --streaming
temperature = 1.0               # > 0: sources without weights get shares ~ tokens ^ (1 / temperature)
mix_tokens = 0                  # >= 0: training tokens to mix; 0 = as many as the sources hold
chat_format = 'messages'        # messages | alpaca | vicuna: of sft
audit = 0                       # >= 0: so many random samples per reason in audit.md, for you to read
config = configure(globals())

# --- settings that need each other --------------------------------------------------------------------------
start_time = time.time()
tok = None                      # a tokenizer that exists is loaded now, not when all is clean
if tokenizer == 'gpt2':
    tok = Tokenizer.gpt2(gpt2_dir)
elif tokenizer.endswith('.json'):
    tok = Tokenizer.load(tokenizer)
elif tokenizer not in ('bpe', 'byte', 'char'):
    raise ValueError(f'tokenizer={tokenizer!r} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
elif tokenizer == 'bpe' and vocab_size < 256 + len(SPECIAL_TOKENS):
    raise ValueError(f'vocab_size={vocab_size} must be >= {256 + len(SPECIAL_TOKENS)}: bytes, special tokens')
if bool(quality_good) != bool(quality_bad):
    raise ValueError('a quality classifier needs both kinds of examples: --quality_good and --quality_bad')
wanted_licences = {*licences.lower().split(',')} - {''}
wanted_languages = language.check(languages)

sources = sources or {source: (source, None)}
if max_docs and len(sources) > 1:
    raise ValueError(f'max_docs={max_docs} would stop within the first source; use --mix_tokens')
shards = files.shards(sources, download_dir, hub, dataset)      # the files that are cleaned together
weighted = any(weight for _, weight in sources.values())
if write == 'text' and (kind != 'text' or mix_tokens or temperature != 1 or weighted):
    raise ValueError('write=text writes every document once; weights, --temperature and --mix_tokens need '
                     '--write=bins')

# --- what there is to read ----------------------------------------------------------------------------------
n_files = {name: sum(len(s['files']) for s in shards if s['source'] == name) for name in sources}
one_file = shards[0]['files'][0]['path']
single = kind == 'text' and sum(n_files.values()) == 1 and not inputs.is_kind(one_file, inputs.RECORDS)
if single:                      # one text without documents in it
    for name, off in (('decontaminate', ''), ('mix_tokens', 0), ('temperature', 1), ('write', 'bins')):
        if config[name] != off:
            raise ValueError(f'{name}={config[name]} needs documents, and {one_file} is one text; give a '
                             'folder or a .jsonl')
    n_chars = files.count_chars(one_file)

examples = {path: files.find_files(path, download_dir, hub, dataset)
            for path in (perplexity_reference, quality_good, quality_bad) if path}
blocked, allowed, toxic = map(filters.lines_of, (url_block, url_allow, toxic_words))
benchmarks = {path: inputs.read_problems(path) for path in decontaminate.split(',') if path}
benchmark_ngrams = copies.ngrams_of(inputs.strings_in([*benchmarks.values()]), decontaminate_ngram)
show(config)

# --- the stages: what happens to a document -----------------------------------------------------------------
# A stage looks at a document, may change it, and returns the reason to drop it, or None. What it counts goes
# into tally, one Counter per name, and from there into the report.


def mode_of(path, source):
    """How a document is treated: code, prose, chat or raw."""
    if mode != 'auto':
        return mode
    if kind != 'text':
        return 'chat'
    return 'code' if source == 'codeparrot' or inputs.is_kind(path, '.py') else 'prose'


def texts_of(source):
    """The texts of examples, normalised like documents, up to 50 MB."""
    size = 0
    for doc in inputs.read_documents([file['path'] for file in examples[source]], lambda *_: None):
        size += len(doc['texts'][0])
        if size < 50_000_000:
            yield clean.normalise(doc['texts'][0], mode_of(doc['path'], source))


language_model = language.Classifier.languages() if wanted_languages else None
reference_model = language.NgramModel.of(texts_of(perplexity_reference)) if perplexity_reference else None
quality = [(text, name) for name, path in (('good', quality_good), ('bad', quality_bad)) if path
           for text in texts_of(path)]
quality_model = language.Classifier.train(quality) if quality_good else None


def in_one_form(doc, tally):
    doc['texts'] = [clean.normalise(text, doc['mode'], strip_markup) for text in doc['texts']]
    if doc['mode'] == 'code':
        doc.setdefault('licence', filters.licence(doc['texts'][0]))
        if strip_licence:
            doc['texts'] = [clean.without_licence(doc['texts'][0])]
    return None if any(map(str.strip, doc['texts'])) else 'empty'


def from_good_source(doc, tally):
    known = {'stdlib': 'psf', 'shakespeare': 'public domain'}.get(doc['source'])
    licence = known or doc.get('licence', 'unknown').lower()
    tally[f'licences of {doc["source"]}'][licence] += 1
    reason = filters.url_reason(doc['url'], blocked, allowed) if 'url' in doc else None
    if not reason and wanted_licences and licence not in wanted_licences:
        reason = f'licence {licence}'
    return reason


def in_wanted_language(doc, tally):
    if wanted_languages and doc['mode'] in ('prose', 'chat'):
        chances = language_model.predict('\n'.join(doc['texts']))
        found = max(chances, key=chances.get)
        if found not in wanted_languages:
            return f'language {found}'


PROSE = 'min_words', 'max_words', 'max_symbols', 'max_repetition', 'max_gibberish'
CODE = ('max_line', 'mean_line', 'min_alphanumeric', 'autogenerated', 'config_test', 'no_keywords',
        'min_assignments')


def by_rules(doc, tally):
    record, text = inputs.to_record(doc), doc['texts'][0]
    if kind == 'sft' and chat_format == 'alpaca' and not inputs.fits_alpaca(doc['roles']):
        return 'not in the Alpaca form'
    if doc['mode'] == 'raw':
        return None
    if kind == 'sft':
        programs = filters.programs(record['messages']) if parse else []
        wrong = 'code does not parse' if any(map(texts.syntax_error, programs)) else None
        return filters.messages_reason(record['messages']) or wrong
    if kind == 'preference':
        return filters.preference_reason(record, min_margin, min_agreement)
    if doc['mode'] == 'code':
        chance = corpus.hash64(to_utf8(text)) / 2 ** 64
        reason = filters.code_reason(text, chance, **{name: config[name] for name in CODE})
        if not reason and parse and texts.syntax_error(text):
            reason = 'does not parse'
        return reason
    if basic_clean:
        doc['texts'] = [clean.basic_clean(text) or '']
        return None if doc['texts'][0] else 'basic_clean'
    return filters.prose_reason(text, **{name: config[name] for name in PROSE})


def by_models(doc, tally):
    text = '\n'.join(doc['texts'])
    if reference_model:
        bits = reference_model.bits_per_byte(text)
        tally['documents by bits per byte'][f'{bits:.1f}'] += 1
        if bits < min_bits:
            return 'too predictable'
        if max_bits and bits > max_bits:
            return 'too surprising'
    if quality_model and quality_model.predict(text)['good'] < min_quality:
        return 'low quality'
    hits = filters.toxic_words(text, toxic) if toxic else {}
    if sum(hits.values()) * 1000 > max_toxic * len(text.split()):
        tally['toxic words in what was dropped'].update(hits)
        return 'toxic'


def without_personal_data(doc, tally):
    for i, text in enumerate(doc['texts'] if pii else ()):
        doc['texts'][i], hits = personal.hide_pii(text)
        tally[f'personal data in {doc["source"]}'].update(hits)
        if hits and doc['mode'] == 'code':
            if texts.syntax_error(doc['texts'][i]) and not texts.syntax_error(text):
                return 'personal data, or code like it'     # x@model.co is a product of matrices


def not_in_benchmark(doc, tally):
    for text in doc['texts'] if len(benchmark_ngrams) else ():
        if np.isin(copies.word_ngrams(text, decontaminate_ngram), benchmark_ngrams).any():
            return 'in a benchmark'


STAGES = {'normalise': in_one_form, 'source': from_good_source, 'language': in_wanted_language,
          'rules': by_rules, 'models': by_models, 'personal data': without_personal_data,
          'decontaminate': not_in_benchmark}

# --- the first pass: each shard through all stages, by several processes ------------------------------------


def through_stages(doc, account):
    """Change a document stage by stage; returns the reason to drop it, or None. Each stage is counted."""
    size = inputs.size_of(doc)
    reason = None if any(map(str.strip, doc['texts'])) else 'empty'
    account.count('read', reason, size, size)
    for name, stage in STAGES.items():
        if not reason:
            before = size
            reason = stage(doc, account.counters)
            size = inputs.size_of(doc)
            account.count(name, reason, before, size)
    return reason


def kept_documents(shard, account):
    """Yield what is kept of a shard, as Corpus stores it."""
    paths = [file['path'] for file in shard['files']]
    for doc in inputs.read_documents(paths, account.reject, kind, max_chars, max_per_prompt, prefer):
        doc['source'] = shard['source']
        doc['mode'] = mode_of(doc['path'], doc['source'])
        original = '\n'.join(doc['texts'])
        reason = through_stages(doc, account)
        account.sample(reason, corpus.hash64(to_utf8(original)), doc['path'], original)
        if audit:
            account.count_words(original, not reason)
        if reason:
            continue

        text = doc['texts'][0]
        if kind != 'text':      # a line of train.jsonl
            text = json.dumps(inputs.to_record(doc, chat_format), ensure_ascii=False)
        # Copies may differ in white space. Conversations that begin alike stay on one side, whatever system
        # they share.
        whole = to_utf8('\n'.join(doc['texts'])).translate(None, b' \t\n\r\f\v')
        start = 1 if doc.get('roles', [''])[0] == 'system' else 0
        yield {'data': to_utf8(text), 'name': doc['path'], 'size': inputs.size_of(doc),
               'exact': corpus.hash64(whole), 'split': corpus.hash64(to_utf8(doc['texts'][start])),
               'is_code': doc['mode'] == 'code', 'keys': near_keys(text)}


def shingles_of(text):
    """The set of word n-grams; of a line of JSON, of the texts in it."""
    words = text if kind == 'text' else '\n'.join(inputs.strings_in(json.loads(text)))
    return copies.shingles(words, shingle)


def near_keys(text):
    """Numbers by which documents like this one are found."""
    if dedup == 'minhash':
        return copies.band_keys(copies.minhash(shingles_of(text), bands * rows), bands)
    return [copies.simhash(shingles_of(text))] if dedup == 'simhash' else []


def clean_shard(i):
    if not docs.has_shard(i):
        files.fetch_all(shards[i]['files'])
        account = funnel.Funnel(n_samples)
        docs.write_shard(i, kept_documents(shards[i], account), account)
        if not keep_downloads:
            files.remove_fetched(shards[i]['files'])
    return i


# Work that was done under other settings or rules, or with files that have changed since, must not be used.
PARTS = clean, copies, corpus, files, filters, funnel, inputs, language, personal, texts
LATER = {'tokenizer', 'vocab_size', 'tokenizer_bytes', 'gpt2_dir', 'write', 'temperature', 'mix_tokens',
         'out_dir', 'processes', 'val_fraction', 'max_docs', 'min_similarity', 'simhash_distance',
         'min_chars_per_token'}                 # settings that act after this pass
read = sum([shard['files'] for shard in shards] + [*examples.values()], [])
rules = [__file__, *(part.__file__ for part in PARTS), url_block, url_allow, toxic_words, *benchmarks]
state = corpus.state_of(config, LATER, read + [{'path': path} for path in rules if path])

n_samples = max(3, audit)
account = funnel.Funnel(n_samples)
docs = corpus.Corpus(f'{out_dir}/.work', state, account)
if not single:
    docs.gather(corpus.in_parallel(clean_shard, range(len(shards)), processes, 'cleaning'), max_docs)
in_val = docs.split / 2 ** 64 < val_fraction            # sides follow from the text alone

# --- duplicates: the first document of a cluster stays ------------------------------------------------------
if max_docs:
    docs.drop('max_docs', 'beyond max_docs', np.flatnonzero(docs.keep)[max_docs:])
if dedup != 'none':
    docs.drop_copies('exact duplicates', 'exact duplicate', docs.exact_copies())
if dedup in ('minhash', 'simhash') and docs.keep.any():
    left = np.flatnonzero(docs.keep)
    if dedup == 'minhash':
        shingles = functools.lru_cache(512)(lambda i: shingles_of(docs.text(left[i])))
        columns = map(docs.keys, tqdm(range(bands), 'near duplicates', unit=' bands', disable=None))
        same = lambda i, j: copies.jaccard(shingles(i), shingles(j)) >= min_similarity
    else:
        prints = docs.keys(0).tolist()
        columns = np.array([copies.simhash_keys(p, simhash_distance) for p in prints], np.uint64).T
        same = lambda i, j: (prints[i] ^ prints[j]).bit_count() <= simhash_distance
    docs.drop_copies('near duplicates', 'near duplicate', left[copies.clusters(columns, same)])

# --- the tokenizer: trained on training documents only ------------------------------------------------------
train, val = docs.keep & ~in_val, docs.keep & in_val
if single:                      # its last part is held out
    cut = int(n_chars * (1 - val_fraction))
    n_train, n_val, unit = cut, n_chars - cut, 'characters of text'
    train_texts, all_texts = files.pieces(one_file, 0, cut), files.pieces(one_file)
else:
    n_train, n_val, unit = int(train.sum()), int(val.sum()), 'documents with text'
    share = min(1.0, tokenizer_bytes / max(1, docs.size[train].sum()))
    sample = train & (docs.exact / 2 ** 64 <= share)            # the hash is as good as random
    train_texts = map(docs.text, np.flatnonzero(sample))
    all_texts = map(docs.text, np.flatnonzero(docs.keep))
if not (n_train and n_val):
    docs.forget()
    raise ValueError(f'{", ".join(sources)}: {n_train} {unit} are left to train on and {n_val} to validate '
                     f'({account.unread()}); give more, or another --val_fraction, or --mode=raw: no rules')

dtype, separator = np.dtype('uint8'), [ord('\n')]        # of train.jsonl
if kind == 'text':
    special_tokens = () if single and tokenizer in ('byte', 'char') else SPECIAL_TOKENS
    if tokenizer == 'bpe':
        tok = Tokenizer.train(tqdm(train_texts, 'reading', disable=None), vocab_size, special_tokens)
    elif tokenizer == 'char':   # of all texts: a character that only validation holds must have an id too
        tok = Tokenizer.char(all_texts, special_tokens)
    elif tokenizer == 'byte':
        tok = Tokenizer.byte(special_tokens)
    separator = [] if single else [tok.special['<|endoftext|>']]
    dtype = np.dtype('uint16' if tok.vocab_size <= 2 ** 16 else 'uint32')
    print(f'tokenizer: {tok.kind}, {tok.vocab_size:,} tokens, hash {tok.hash}')

# --- encode: each shard -> the token ids of its documents ---------------------------------------------------


def encoded_documents(shard):
    """Yield number, tokens, file and data of each document, as Corpus stores it."""
    for numbers, names, some in docs.batches(shard):
        for i, name, text, ids in zip(numbers, names, some, tok.encode_batch(some)):
            if docs.is_code[i] and tok.vocab_size >= 4096 and len(text) < min_chars_per_token * len(ids):
                continue
            if write == 'text' and not in_val[i]:
                line = json.dumps({'text': text, 'path': name}).encode() + b'\n'
                yield i, len(ids) + 1, 'jsonl.gz', line
            else:
                yield i, len(ids) + 1, 'val' if in_val[i] else 'train', np.array(ids + separator, dtype)


def encode_shard(shard):
    depends_on = f'{tok.hash} {val_fraction} {write} {min_chars_per_token}'.encode()
    return docs.write_ids(shard, depends_on, encoded_documents(shard))


ending = 'bin' if kind == 'text' else 'jsonl'
bins = {side: corpus.Bin(f'{out_dir}/{side}.{ending}', dtype, separator) for side in ('train', 'val')}
if single:
    for side, (start, end) in {'train': (0, cut), 'val': (cut, n_chars)}.items():
        for text in files.pieces(one_file, start, end):
            bins[side].write(np.array(tok.encode_batch([text])[0], dtype), 0)
            bins[side].bytes += len(to_utf8(text))
        bins[side].documents = bins[side].written = 1
        account.count('read', None, bins[side].bytes, bins[side].bytes)
elif kind == 'text':
    docs.gather_ids(corpus.in_parallel(encode_shard, range(docs.n_shards), processes, 'encoding'), dtype)
    docs.drop('tokenise', 'few characters per token', np.flatnonzero(docs.keep & (docs.lengths == 0)))
    train, val = docs.keep & ~in_val, docs.keep & in_val
else:
    for i in np.flatnonzero(docs.keep):
        bins['val' if in_val[i] else 'train'].write(docs.text(i).encode() + b'\n', 1)
for side, which in (('train', train), ('val', val)):
    bins[side].documents += int(which.sum())
    bins[side].bytes += int(docs.size[which].sum())

# --- mix: as many passes over each source as its weight asks for --------------------------------------------
of_source = {}                  # {source: what the report says of it}
own_shards = {}                 # {source: the numbers of its shards}
weights = {}
for name, (path, weight) in sources.items():
    s = of_source[name] = {'path': path, 'weight': weight, 'files': n_files[name]}
    s['licences'] = dict(account.counters[f'licences of {name}'].most_common())
    if kind == 'text' and not single:
        own_shards[name] = [i for i in range(docs.n_shards) if shards[i]['source'] == name]
        own = docs.in_shards(own_shards[name])
        s['documents'] = int((docs.keep & own).sum())
        s['tokens'] = int(docs.lengths[train & own].sum())
        if not s['tokens']:
            raise ValueError(f'no training document is left of the source {name}; --audit=20 writes down why')
        weights[name] = weight or s['tokens'] ** (1 / temperature)

total = mix_tokens or sum(of_source[name]['tokens'] for name in weights)
for name, own in own_shards.items():
    s = of_source[name]
    s['begins'] = bins['train'].items
    wanted = round(total * weights[name] / sum(weights.values()))
    docs.write_tokens(bins['train'], own, train, wanted)        # --write=text: one pass, over no ids
    s['mixed'] = bins['train'].items - s['begins']
    s['epochs'] = s['mixed'] / s['tokens']

    docs.write_all(bins['val'], 'val', own, val)
    if len(sources) > 1:
        bins[f'val_{name}'] = corpus.Bin(f'{out_dir}/val_{name}.bin', dtype, separator)
        docs.write_all(bins[f'val_{name}'], 'val', own, val)

# --- count again, report, and give the files their names ----------------------------------------------------
for b in bins.values():
    b.check()
stages = 'read', *STAGES, 'max_docs', 'exact duplicates', 'near duplicates', 'tokenise'
report = account.report(stages, bins, of_source, docs.clusters)
meta = {'format': 'nanoparrot-data-1', **{key: report[key] for key in ('documents', 'bytes', 'sources')},
        'sha256': {side: b.sha256.hexdigest() for side, b in bins.items()}, 'config': config}
if benchmarks:
    dropped = account.counters['stage decontaminate']['dropped in a benchmark']
    problems = {path: len(records) for path, records in benchmarks.items()}
    meta['decontaminated'] = {'problems': problems, 'ngram': decontaminate_ngram, 'dropped': dropped}
if kind == 'text':
    n_train = bins['train'].items if write == 'bins' else total
    meta['tokens'] = report['tokens'] = {'train': n_train, 'val': bins['val'].items}
    meta |= {'dtype': dtype.name, 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash,
             'separators': not single}
    tok.save(f'{out_dir}/tokenizer.json.new')

pages = funnel.pages(report, meta, account, bins)
corpus.publish(out_dir, pages, bins.values(), read, docs.bases if write == 'text' else ())
docs.forget()

print(*funnel.summary(report, meta, bins), sep='\n')
following = {'text': 'train.py config/quickstart.py', 'sft': 'sft.py', 'preference': 'dpo.py'}[kind]
command = f'python {following} --data_dir={out_dir}'
if write == 'text':
    command += f' --streaming={out_dir}/shards'
if kind == 'text' and tok.kind == 'char':       # the config's prompt may have other characters
    command += ' --sample_prompt='
print(f'{time.time() - start_time:.1f} s; next: {command}')
