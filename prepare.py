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

Input may be larger than memory. It is cut into shards, which several processes clean; what survives waits,
compressed, in out_dir/.work. A finished shard is never done again: after a crash, a full disk or a kill, the
same command goes on. Memory grows with the number of documents only, by about 100 bytes each.

Writes under out_dir: train.bin, val.bin (uint16, or uint32 above 65,536 ids; a document ends with
<|endoftext|>), val_<source>.bin if there are several sources, tokenizer.json, meta.json, and report.md /
report.json: what came in, what was dropped and why, what is on the disk. For --kind=sft and preference,
train.jsonl and val.jsonl instead of bins and tokenizer.

You should see 12 MB of Python become 2.5 million tokens in a few seconds, and a table of what was dropped.

The decision made here is the corpus: a model can only know what these files hold, and it shares their
defects. Read report.md before you train.
"""
import collections, functools, glob, gzip, hashlib, json, math, os, re, shutil, time, zlib
import numpy as np
from tqdm import tqdm
from parts import clean
from configurator import configure
from parts.corpus import PIECE, Bin, Funnel, in_parallel, write_file
from parts.dedup import (band_keys, clusters, jaccard, match_probability, minhash, shingles, simhash, simhash_keys,
                   word_hashes, word_ngrams)
from parts.sources import (RECORDS, download, find_files, is_kind, lines_of, open_bytes, open_text, pieces,
                     read_documents, strings_in, to_alpaca, to_vicuna)
from tokenizer import SPECIAL_TOKENS, Tokenizer, to_utf8

# --- settings -----------------------------------------------------------------------------------------------
# what, and where to
source = 'stdlib'               # stdlib, shakespeare, codeparrot, or a file, folder or glob
sources: dict | None = None     # instead, in a config file: {'name': ('path', weight), ...}
kind = 'text'                   # text; sft: conversations; preference: chosen and rejected answers
out_dir = 'data/quickstart'     # train.bin, val.bin, tokenizer.json, meta.json, report.* go here
val_fraction = 0.1              # held out: of the documents, or of the characters if there is but one
max_docs = 0                    # stop after so many documents of the one source; 0 = all
max_chars = 1_000_000           # a longer record or .py file is not read
processes = 0                   # 0 = one per core
download_dir = 'data/raw'       # downloads are kept here
keep_downloads = True           # False: delete a shard of codeparrot once it is cleaned
hub = 'https://huggingface.co'  # of codeparrot
dataset = 'codeparrot/codeparrot-clean'     # of codeparrot: any dataset of .json.gz files there
# cleaning; 0, False, '' or None switches a rule off; clean.py says what each one does
mode = 'auto'                   # code, prose, chat, raw: no rules; auto = code for .py, else prose, or chat
strip_markup = True             # of prose: HTML tags and entities, LaTeX commands
strip_licence = False           # of code: the comment at the top, if it is a licence
basic_clean = False             # of prose: the source document's filter instead of ours, to compare
url_block: str | None = None    # file of domains, one a line; for records with a `url`
url_allow: str | None = None    # file of domains that are never blocked
licences = ''                   # keep only these, comma-separated: mit,bsd,apache-2.0,unknown,...
languages = ''                  # keep only prose and chat in these, comma-separated: en,de,...
min_words = 20                  # of prose
max_words = 1_000_000           # of prose
max_symbols = 0.3               # of prose: share of visible characters that are no letters or digits
max_repetition = 0.7            # of prose: share of repeated lines, or of repeated words within 200
max_gibberish = 0.2             # of prose: share of words that no language would spell
max_line = 1000                 # of code: characters of the longest line
mean_line = 100                 # of code: characters of the average line
min_alphanumeric = 0.25         # of code: share of letters and digits
autogenerated = True            # of code: dropped if the first five lines say so
config_test = 0.7               # of code: probability to drop configuration and test files
no_keywords = 0.7               # of code: probability to drop what has no def, class, for, while
min_assignments = 5             # of code: signs =
parse = True                    # of code, and of ```python in chat: dropped if Python cannot compile it
min_chars_per_token = 1.5       # of code, with a vocabulary of 4,096 or more; tables have fewer
perplexity_reference: str | None = None     # good text (file, folder, glob), whose n-grams predict the rest
min_bits = 0.5                  # per byte under the reference; less is boilerplate
max_bits = 5.0                  # per byte; more is noise, or another language
quality_good: str | None = None # texts as you want them; with quality_bad, trains a classifier
quality_bad: str | None = None
min_quality = 0.5               # probability of `good`
toxic_words: str | None = None  # file of words, one a line; report.md says what each of them removed
max_toxic = 1.0                 # such words per 1,000
min_margin = 0.0                # of preference: score of chosen - score of rejected
min_agreement = 0.0             # of preference: share of annotators who agree
max_per_prompt = 4              # of eval.py's samples.jsonl: pairs, or passed answers, of a prompt
prefer = 'passed'               # ... which won: passed, over failed; taste, among passed; both
pii = True                      # e-mail, phone, SSN, keys -> <EMAIL>, <PHONE>, <SSN>, <KEY>
decontaminate = ''              # benchmark files, comma-separated: what shares an n-gram with them is dropped
decontaminate_ngram = 13        # words; GPT-3's choice
dedup = 'minhash'               # none, exact, minhash, simhash; the last two include exact
min_similarity = 0.85           # minhash: Jaccard similarity of the sets of word n-grams
shingle = 5                     # words per n-gram
bands = 32                      # of the MinHash signature
rows = 8                        # per band
simhash_distance = 3            # simhash: bits of 64
# tokens
tokenizer = 'bpe'               # bpe (trained here), byte, char, gpt2, or the path of a tokenizer.json
vocab_size = 4096               # for bpe: 256 bytes + merges + 64 special tokens
tokenizer_bytes = 1_000_000_000 # train it on a sample of so many bytes
gpt2_dir: str | None = None     # has GPT-2's vocab.bpe and encoder.json; None = tiktoken's cache or network
write = 'bins'                  # or text: training documents as shards/*.jsonl.gz, for train.py --streaming
temperature = 1.0               # sources without weights get shares ~ tokens ^ (1 / temperature)
mix_tokens = 0                  # training tokens to mix; 0 = as many as the sources hold
chat_format = 'messages'        # of sft: messages, alpaca, vicuna
audit = 0                       # so many random samples per reason in audit.md, for you to read
config = configure(globals())

for _name, _choices in (('kind', 'text sft preference'), ('mode', 'auto code prose chat raw'),
                        ('dedup', 'none exact minhash simhash'), ('write', 'bins text'),
                        ('chat_format', 'messages alpaca vicuna'), ('prefer', 'passed taste both')):
    if config[_name] not in _choices.split():
        raise ValueError(f'{_name}={config[_name]!r} must be one of: {_choices.replace(" ", ", ")}')
if not 0 < val_fraction < 1:
    raise ValueError(f'val_fraction={val_fraction} must be between 0 and 1, for instance 0.1')
if tokenizer not in ('bpe', 'byte', 'char', 'gpt2') and not tokenizer.endswith('.json'):
    raise ValueError(f'tokenizer={tokenizer!r} must be bpe, byte, char, gpt2 or the path of a tokenizer.json')
if tokenizer == 'bpe' and vocab_size < 256 + len(SPECIAL_TOKENS):
    raise ValueError(f'vocab_size={vocab_size} must be at least {256 + len(SPECIAL_TOKENS)}: the bytes and '
                     'the special tokens')
tok = Tokenizer.gpt2(gpt2_dir) if tokenizer == 'gpt2' else Tokenizer.load(tokenizer) \
    if tokenizer.endswith('.json') else None        # now, not when all is clean
for _name in ('bands', 'rows', 'shingle', 'decontaminate_ngram', 'temperature', 'max_chars'):
    if config[_name] <= 0:
        raise ValueError(f'{_name}={config[_name]} must be positive')
if not 0 <= simhash_distance < 32:
    raise ValueError(f'simhash_distance={simhash_distance} must be between 0 and 31, of 64 bits')
if bool(quality_good) != bool(quality_bad):
    raise ValueError('a quality classifier needs both kinds of examples: --quality_good and --quality_bad')
sources = sources or {source: (source, None)}
for _name, _source in sources.items():
    if not (isinstance(_source, tuple | list) and len(_source) == 2 and isinstance(_source[0], str)
            and (_source[1] is None or isinstance(_source[1], int | float) and _source[1] > 0)):
        raise ValueError(f"sources[{_name!r}]={_source!r} must look like ('path', weight), the weight "
                         'positive or None')
    if len(sources) > 1 and not re.fullmatch(r'[\w.-]+', _name):
        raise ValueError(f'source name {_name!r} becomes a file name: use letters, digits, _ . -')
weighted = [weight is not None for _, weight in sources.values()]
if any(weighted) and not all(weighted):
    raise ValueError('give every source a weight, or none of them')
if max_docs and len(sources) > 1:
    raise ValueError(f'max_docs={max_docs} would stop within the first source; to have less of several, use '
                     '--mix_tokens')
if write == 'text' and (kind != 'text' or mix_tokens or temperature != 1 or any(weighted)):
    raise ValueError('write=text writes every training document once; weights, --temperature and '
                     '--mix_tokens need --write=bins')
for _name in ('max_words', 'max_line', 'mean_line', 'max_symbols', 'max_repetition', 'max_gibberish',
              'max_bits'):
    globals()[_name] = config[_name] or math.inf
start_time = time.time()

# --- the stages: what happens to a document -----------------------------------------------------------------
# A stage looks at a document, may change it, and returns the reason to drop it, or None. What it counts goes
# into tally, one Counter per name, and from there into the report.


def mode_of(doc):
    """How a document is treated: code, prose, chat or raw."""
    if mode != 'auto':
        return mode
    return 'chat' if kind != 'text' else \
        'code' if is_kind(doc['path'], '.py') or doc['source'] == 'codeparrot' else 'prose'


def texts_of(pattern):
    """The texts of examples, normalised like documents, up to 50 MB."""
    size = 0
    for doc in read_documents([f['path'] for f in find_files(pattern)], lambda *_: None):
        size += len(doc['parts'][0])
        if size < 50_000_000:
            yield clean.normalise(doc['parts'][0], mode_of(doc | {'source': pattern}))


def shingles_in(text):
    return shingles(text if kind == 'text' else '\n'.join(strings_in(json.loads(text))), shingle)


def hash64(data):
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'big')


blocked, allowed, toxic = lines_of(url_block), lines_of(url_allow), lines_of(toxic_words)
wanted_licences, wanted_languages = ({*s.lower().split(',')} - {''} for s in (licences, languages))
if unknown := wanted_languages - clean.WORDS.keys():
    raise ValueError(f'languages={languages}: {", ".join(unknown)} is not among '
                     f'{",".join(sorted(clean.WORDS))}')
language_model = clean.Classifier.languages() if wanted_languages else None
reference_model = clean.NgramModel() if perplexity_reference else None
for _text in texts_of(perplexity_reference) if perplexity_reference else ():
    reference_model.add(_text)
quality_model = clean.Classifier.train(
    [(text, 'good') for text in texts_of(quality_good)] +
    [(text, 'bad') for text in texts_of(quality_bad)]) if quality_good else None
benchmarks, benchmark_ngrams = {}, [np.zeros(0, np.uint64)]     # {file: number of problems}
for _path in filter(None, decontaminate.split(',')):
    try:
        with open_bytes(_path) as f:        # json knows what to do with a byte order mark
            _problems = json.load(f) if is_kind(_path, '.json') else [json.loads(x) for x in f if x.strip()]
    except (ValueError, EOFError, zlib.error) as e:
        raise ValueError(f'decontaminate: {_path} is not JSON, nor JSON lines ({e})') from e
    benchmarks[_path] = len(_problems)
    benchmark_ngrams += [word_ngrams(text, decontaminate_ngram) for text in strings_in(_problems)
                         if len(word_hashes(text)) >= decontaminate_ngram]
benchmark_ngrams = np.unique(np.concatenate(benchmark_ngrams))


def normalise(doc, tally):
    how = mode_of(doc)
    doc['parts'] = [clean.normalise(text, how, strip_markup) for text in doc['parts']]
    if how == 'code':
        doc.setdefault('licence', clean.licence(doc['parts'][0]))
        if strip_licence:
            doc['parts'] = [clean.strip_licence(doc['parts'][0])]
    return None if any(map(str.strip, doc['parts'])) else 'empty'


def from_good_source(doc, tally):
    known = {'stdlib': 'psf', 'shakespeare': 'public domain'}.get(doc['source'])
    name = known or doc.get('licence', 'unknown').lower()
    tally[f'licences of {doc["source"]}'][name] += 1
    if 'url' in doc and (reason := clean.url_reason(doc['url'], blocked, allowed)):
        return reason
    return f'licence {name}' if wanted_licences and name not in wanted_licences else None


def in_wanted_language(doc, tally):
    if not wanted_languages or mode_of(doc) not in ('prose', 'chat'):
        return None
    chances = language_model.predict('\n'.join(doc['parts']))
    language = max(chances, key=chances.get)
    return None if language in wanted_languages else f'language {language}'


def by_rules(doc, tally):
    how, text = mode_of(doc), doc['parts'][0]
    if kind == 'sft' and chat_format == 'alpaca':
        try:
            to_alpaca(record_of(doc)['messages'])
        except ValueError:
            return 'not in the Alpaca form'
    if how == 'raw':
        return None
    if kind == 'sft':
        return clean.messages_reason(record_of(doc)['messages'], parse)
    if kind == 'preference':
        if 'label' in doc['scores']:            # of kto: one answer, and whether it is good
            return None if doc['parts'][-1].strip() else 'empty answer'
        return clean.preference_reason(record_of(doc), min_margin, min_agreement)
    if how == 'code':
        chance = hash64(to_utf8(text)) / 2 ** 64
        return clean.code_reason(text, chance, max_line, mean_line, min_alphanumeric, autogenerated,
                                 config_test, no_keywords, min_assignments, parse)
    if basic_clean:
        doc['parts'] = [clean.basic_clean(text) or '']
        return None if doc['parts'][0] else 'basic_clean'
    return clean.prose_reason(text, min_words, max_words, max_symbols, max_repetition, max_gibberish)


def by_models(doc, tally):
    text = '\n'.join(doc['parts'])
    if reference_model:
        bits = reference_model.bits_per_byte(text)
        tally['documents by bits per byte'][f'{bits:.1f}'] += 1
        if not min_bits <= bits <= max_bits:
            return 'too predictable' if bits < min_bits else 'too surprising'
    if quality_model and quality_model.predict(text)['good'] < min_quality:
        return 'low quality'
    if toxic:
        found = clean.toxic_words(text, toxic)
        if sum(found.values()) * 1000 > max_toxic * len(text.split()):
            tally['toxic words in what was dropped'].update(found)
            return 'toxic'
    return None


def hide_personal_data(doc, tally):
    for i, text in enumerate(doc['parts'] if pii else ()):
        doc['parts'][i], hits = clean.hide_pii(text)
        tally[f'personal data in {doc["source"]}'].update(hits)
        if hits and mode_of(doc) == 'code' and clean.parses(text) and not clean.parses(doc['parts'][i]):
            return 'personal data, or code like it'         # x@model.co is a product of matrices
    return None


def not_in_benchmark(doc, tally):
    for text in doc['parts'] if len(benchmark_ngrams) else ():
        if np.isin(word_ngrams(text, decontaminate_ngram), benchmark_ngrams).any():
            return 'in a benchmark'
    return None


STAGES = {'normalise': normalise, 'source': from_good_source, 'language': in_wanted_language,
          'rules': by_rules, 'models': by_models, 'personal data': hide_personal_data,
          'decontaminate': not_in_benchmark}


def record_of(doc):
    """A conversation or a preference, as it was read."""
    messages = [{'role': role, 'content': text} for role, text in zip(doc['roles'], doc['parts'])]
    if kind == 'sft':
        return {'messages': messages}
    prompt = messages[0]['content'] if len(messages) == 1 else messages
    names = ('completion',) if 'label' in doc['scores'] else ('chosen', 'rejected')
    return {'prompt': prompt, **dict(zip(names, doc['parts'][len(messages):])), **doc['scores']}


def finished(doc):
    """What is kept of a document, as text; of a conversation or preference, a line of JSON."""
    if kind == 'text':
        return doc['parts'][0]
    record = record_of(doc)
    if kind == 'sft' and chat_format != 'messages':
        record = (to_alpaca if chat_format == 'alpaca' else to_vicuna)(record['messages'])
    return json.dumps(record, ensure_ascii=False)


# --- the first pass: each shard -> .work/NNNNN.* ------------------------------------------------------------


def clean_shard(index):
    """One shard through all stages. Of the survivors there remain their texts, each compressed, and in arrays
    what the later passes ask of all documents at once. NNNNN.json comes last: it says that all is there."""
    base, shard = f'{work}/{index:05}', shards[index]
    if os.path.exists(f'{base}.json'):
        return index
    for file in shard['files']:
        if 'url' in file:
            download(file['url'], file['sha256'], file['path'])
    funnel, known, keys, names = Funnel(max(3, audit)), [], [], []
    with open(f'{base}.texts', 'wb') as texts:
        for doc in read_documents([f['path'] for f in shard['files']], funnel.reject, kind, max_chars,
                                  max_per_prompt, prefer):
            doc['source'], original = shard['source'], '\n'.join(doc['parts'])
            size, chance = sum(len(to_utf8(text)) for text in doc['parts']), hash64(to_utf8(original))
            reason = None if original.strip() else 'empty'
            funnel.count('read', reason, size, size)
            for name, stage in STAGES.items() if not reason else ():
                before, reason = size, stage(doc, funnel.counters)
                size = sum(len(to_utf8(text)) for text in doc['parts'])
                funnel.count(name, reason, before, size)
                if reason:
                    break
            funnel.sample(reason, chance, doc['path'], original)
            if audit:
                words = set(re.findall(r'[^\W\d_]{3,}', original.lower()))
                funnel.counters['words in'].update(words)
                funnel.counters['words out'].update(words if not reason else ())
            if reason:
                continue
            text, parts = finished(doc), [to_utf8(text) for text in doc['parts']]
            texts.write(packed := zlib.compress(to_utf8(text), 1))
            # copies may differ in white space; conversations that begin alike, after what all of them may be
            # told, stay on one side
            told = doc.get('roles', [''])[0] == 'system'
            known.append((len(packed), size, hash64(b'\n'.join(parts).translate(None, b' \t\n\r\f\v')),
                          hash64(parts[told]), mode_of(doc) == 'code'))
            names.append(doc['path'])
            if dedup == 'minhash':
                keys.append(band_keys(minhash(shingles_in(text), bands * rows), bands))
            elif dedup == 'simhash':
                keys.append([simhash(shingles_in(text))])
    np.save(f'{base}.known.npy', np.array(known, np.uint64).reshape(-1, 5))
    np.save(f'{base}.keys.npy', np.array(keys, np.uint64).T.copy())       # a band is read at once
    write_file(f'{base}.names.json', json.dumps(names))
    write_file(f'{base}.json', funnel.to_json())
    for file in shard['files']:
        if 'url' in file and not keep_downloads:
            os.remove(file['path'])
    return index


# A file of records is a shard; of small files, 16 MB together are one. The sources follow each other.
shards, n_files = [], collections.Counter()
for _name, (_path, _) in sources.items():
    _size = PIECE
    for _file in find_files(_path, download_dir, hub, dataset):
        n_files[_name] += 1
        if _size >= PIECE:
            shards.append({'source': _name, 'files': []})
            _size = 0
        shards[-1]['files'].append(_file)
        _size += PIECE if is_kind(_file['path'], RECORDS) else os.path.getsize(_file['path'])
one_file = shards[0]['files'][0]['path']
single = n_files.total() == 1 and kind == 'text' and not is_kind(one_file, RECORDS)
for _name, _off in (('decontaminate', ''), ('mix_tokens', 0), ('temperature', 1), ('write', 'bins')):
    if single and config[_name] != _off:
        raise ValueError(f'{_name}={config[_name]} is for documents, and {one_file} is one text, taken as it '
                         'is; give a folder or a .jsonl')

# What was cleaned under other settings or rules, or with files that have changed since, is of no use.
_code = [os.path.join(os.path.dirname(os.path.abspath(__file__)), f'{name}.py')
         for name in ('prepare', 'parts/sources', 'parts/clean', 'parts/dedup', 'parts/corpus')]
_inputs = [f for shard in shards for f in shard['files']] + [{'path': path} for path in (
    *_code, url_block, url_allow, toxic_words, *decontaminate.split(',')) if path] + [
    f for path in (perplexity_reference, quality_good, quality_bad) if path for f in find_files(path)]
_later = {'tokenizer', 'vocab_size', 'tokenizer_bytes', 'gpt2_dir', 'write', 'temperature', 'mix_tokens',
          'out_dir', 'processes', 'val_fraction', 'max_docs', 'min_similarity', 'simhash_distance',
          'min_chars_per_token'}
_state = json.dumps([{name: value for name, value in config.items() if name not in _later}, [
    [f['path'], f.get('sha256') or [os.path.getsize(f['path']), os.path.getmtime(f['path'])]]
    for f in _inputs]])
in_out_dir = functools.partial(os.path.join, out_dir)
work, _old = in_out_dir('.work'), None


def forget_work():
    if os.path.exists(f'{work}/settings'):      # first: a folder without it is never gone on with
        os.remove(f'{work}/settings')
    shutil.rmtree(work, ignore_errors=True)


if os.path.exists(f'{work}/settings'):
    with open(f'{work}/settings', encoding='utf-8') as f:
        _old = f.read()
if _old != _state:
    forget_work()
os.makedirs(out_dir if single else work, exist_ok=True)
if not single:
    write_file(f'{work}/settings', _state)

funnel, known = Funnel(max(3, audit)), [np.zeros((0, 5), np.uint64)]
for _i in in_parallel(clean_shard, range(0 if single else len(shards)), processes, 'cleaning'):
    with open(f'{work}/{_i:05}.json', encoding='utf-8') as f:
        funnel.add(**json.load(f))
    known.append(np.load(f'{work}/{_i:05}.known.npy'))
    if 0 < max_docs <= sum(map(len, known)):
        break
first = np.cumsum([0, *map(len, known[1:])])        # the number of each shard's first document
n_shards, n_docs = len(first) - 1, int(first[-1])
packed, sizes, exact, split, is_code = np.concatenate(known).T
packed, sizes = packed.astype(np.int64), sizes.astype(np.int64)
ends = np.concatenate([np.cumsum(k[:, 0].astype(np.int64)) for k in known])
keep, in_val = np.ones(n_docs, bool), split / 2 ** 64 < val_fraction    # sides follow from the text alone


@functools.lru_cache(64)
def open_texts(shard):
    return open(f'{work}/{shard:05}.texts', 'rb')


def shard_of(i):
    return int(np.searchsorted(first, i, 'right')) - 1


def text_of(i):
    """Document i, from the disk."""
    f = open_texts(shard_of(i))
    f.seek(ends[i] - packed[i])
    return zlib.decompress(f.read(packed[i])).decode()


def name_of(i):
    with open(f'{work}/{shard_of(i):05}.names.json', encoding='utf-8') as f:
        return json.load(f)[i - first[shard_of(i)]]


def drop(stage, reason, which):
    """Take documents out of the corpus, by their numbers, and write it down."""
    row = funnel.counters[f'stage {stage}']
    row.update({'docs_in': int(keep.sum()), 'bytes_in': int(sizes[keep].sum())})
    keep[which] = False
    row.update({'docs_out': int(keep.sum()), 'bytes_out': int(sizes[keep].sum())})
    if len(which):
        row[f'dropped {reason}'] += len(which)
    for i in which[np.argsort(split[which])][:max(3, audit)].tolist():
        funnel.sample(reason, int(split[i]), name_of(i), text_of(i))


# --- duplicates: the first document of a cluster stays ------------------------------------------------------
clusters_found = {}         # {stage: sizes of clusters, and the largest}


def drop_copies(stage, reason, heads):
    """heads: for each document that is left, the number of the first one of its cluster."""
    left = np.flatnonzero(keep)
    head, size = np.unique(heads, return_counts=True)
    largest = [i for i in np.argsort(-size, kind='stable')[:5].tolist() if size[i] > 1]
    clusters_found[stage] = {'sizes': dict(sorted(collections.Counter(size[size > 1].tolist()).items())),
                             'largest': [[int(size[i]), name_of(int(head[i]))] for i in largest]}
    drop(stage, reason, left[left != heads])


if max_docs and keep.any():
    drop('max_docs', 'beyond max_docs', np.flatnonzero(keep)[max_docs:])
if dedup != 'none' and keep.any():
    left = np.flatnonzero(keep)
    _, head, inverse = np.unique(exact[left], return_index=True, return_inverse=True)
    drop_copies('exact duplicates', 'exact duplicate', left[head[inverse]])
if dedup in ('minhash', 'simhash') and keep.any():
    left = np.flatnonzero(keep)

    def stored(row):            # of all documents; no file stays open, there may be thousands
        return np.concatenate([np.load(f'{work}/{i:05}.keys.npy', mmap_mode='r')[row].copy()
                               for i in range(n_shards) if first[i] < first[i + 1]])[left]

    if dedup == 'minhash':
        print(f'{bands} bands of {rows} rows make candidates of documents of similarity ' + ', '.join(
            f'{s} with probability {match_probability(s, bands, rows):.3f}' for s in (0.5, 0.7, 0.8, 0.9))
            + f'; duplicates are those of {min_similarity} or more')
        shingles_of = functools.lru_cache(512)(lambda i: shingles_in(text_of(left[i])))
        heads = clusters(map(stored, tqdm(range(bands), 'near duplicates', unit=' bands', disable=None)),
                         lambda i, j: jaccard(shingles_of(i), shingles_of(j)) >= min_similarity)
    else:
        prints = stored(0).tolist()
        columns = np.array([simhash_keys(p, simhash_distance) for p in prints], np.uint64)
        heads = clusters(columns.reshape(-1, simhash_distance + 1).T,
                         lambda i, j: (prints[i] ^ prints[j]).bit_count() <= simhash_distance)
    drop_copies('near duplicates', 'near duplicate', left[heads])

# --- the tokenizer ------------------------------------------------------------------------------------------
if single:      # one document: its last part is held out, and nothing separates documents
    try:
        with open_text(one_file) as f:
            n_characters = sum(len(block) for block in iter(lambda: f.read(PIECE), ''))
    except (ValueError, EOFError, zlib.error) as e:
        raise ValueError(f'{one_file} cannot be read as UTF-8 text: {e}') from e
    cut = int(n_characters * (1 - val_fraction))
    sides = {'train': (0, cut), 'val': (cut, n_characters)}
    n_train, n_val, unit = cut, n_characters - cut, 'characters of text'
    train_texts, all_texts = pieces(one_file, 0, cut), pieces(one_file, 0, n_characters)
else:
    train = keep & ~in_val
    n_train, n_val, unit = int(train.sum()), int((keep & in_val).sum()), 'documents with text'
    share = min(1.0, tokenizer_bytes / max(1, sizes[train].sum()))      # the exact hash is as good as random
    train_texts = (text_of(i) for i in np.flatnonzero(train & (exact / 2 ** 64 <= share)))
    all_texts = (text_of(i) for i in np.flatnonzero(keep))
if not (n_train and n_val):
    forget_work()
    unread = ''.join(f', {path} because of {m["first"]}' for path, m in [*funnel.malformed.items()][:1])
    raise ValueError(f'{", ".join(sources)}: {n_train} {unit} are left to train on and {n_val} to validate '
                     f'({len(funnel.malformed)} files could not be read{unread}); both need some: give more, '
                     'or another --val_fraction, or switch off rules (--mode=raw: all)')
if kind == 'text':
    special_tokens = () if single and tokenizer in ('byte', 'char') else SPECIAL_TOKENS
    if tokenizer == 'bpe':
        tok = Tokenizer.train(tqdm(train_texts, 'reading', unit=' docs', disable=None), vocab_size,
                              special_tokens)
    elif tokenizer == 'char':       # of all texts: a character that only validation holds must have an id too
        tok = Tokenizer.char(all_texts, special_tokens)
    elif tokenizer == 'byte':
        tok = Tokenizer.byte(special_tokens)
    separator = [] if single else [tok.special['<|endoftext|>']]
    dtype = 'uint16' if tok.vocab_size <= 2 ** 16 else 'uint32'
    print(f'tokenizer: {tok.kind}, {tok.vocab_size:,} tokens, hash {tok.hash}')

# --- encode: each shard -> the token ids of its documents ---------------------------------------------------


def encode_shard(index):
    """Writes a shard's ids into .work; returns how the names of its files begin. NNNNN.*.npy comes last: the
    number of tokens of each document, 0 if it is not in."""
    lo, hi = first[index], first[index + 1]
    state = keep[lo:hi].tobytes() + f'{tok.hash} {val_fraction} {write} {min_chars_per_token}'.encode()
    base = f'{work}/{index:05}.{hashlib.sha256(state).hexdigest()[:12]}'
    if os.path.exists(f'{base}.npy') and os.path.exists(f'{base}.jsonl.gz'):    # which is moved at the end
        return base
    with open(f'{work}/{index:05}.names.json', encoding='utf-8') as f:
        names = json.load(f)
    lengths = np.zeros(hi - lo, np.int64)
    with open(f'{base}.train', 'wb') as train_file, open(f'{base}.val', 'wb') as val_file, \
            gzip.GzipFile(f'{base}.jsonl.gz', 'wb', 1, mtime=0) as records:
        for part in np.array_split(np.flatnonzero(keep[lo:hi]), 1 + sizes[lo:hi].sum() // 4_000_000):
            texts = [text_of(lo + i) for i in part]
            for i, text, ids in zip(part.tolist(), texts, tok.encode_batch(texts)):
                if is_code[lo + i] and tok.vocab_size >= 4096 and len(text) < min_chars_per_token * len(ids):
                    continue
                lengths[i] = len(ids) + 1
                if write == 'text' and not in_val[lo + i]:
                    records.write(json.dumps({'text': text, 'path': names[i]}).encode() + b'\n')
                else:
                    (val_file if in_val[lo + i] else train_file).write(np.array(ids + separator, dtype))
    with open(f'{base}.tmp', 'wb') as f:
        np.save(f, lengths)
    os.replace(f'{base}.tmp', f'{base}.npy')
    return base


ending = 'bin' if kind == 'text' else 'jsonl'
bins = {side: Bin(in_out_dir(f'{side}.{ending}')) for side in ('train', 'val')}
if single:
    for side, (start, end) in sides.items():
        for text in pieces(one_file, start, end):
            bins[side].write(np.array(tok.encode_batch([text])[0], dtype), 0)
            bins[side].bytes += len(to_utf8(text))
        bins[side].documents = bins[side].written = 1
        funnel.count('read', None, bins[side].bytes, bins[side].bytes)
elif kind == 'text':
    encoded = list(in_parallel(encode_shard, range(n_shards), processes, 'encoding'))
    lengths = np.concatenate([np.load(f'{base}.npy') for base in encoded])
    drop('tokenise', 'few characters per token', np.flatnonzero(keep & (lengths == 0)))

    def ids_of(shard, side):
        path = f'{encoded[shard]}.{side}'
        return np.memmap(path, dtype, 'r') if os.path.getsize(path) else ()
else:
    for i in np.flatnonzero(keep):
        bins['val' if in_val[i] else 'train'].write(text_of(i).encode() + b'\n', 1)
for side, which in (('train', keep & ~in_val), ('val', keep & in_val)) if not single else ():
    bins[side].documents, bins[side].bytes = int(which.sum()), int(sizes[which].sum())

# --- mix: as many passes over each source as its weight asks for --------------------------------------------
of_source = {name: {'path': path, 'weight': weight, 'files': n_files[name],
                    'licences': dict(funnel.counters[f'licences of {name}'].most_common())}
             for name, (path, weight) in sources.items()}
if kind == 'text' and not single:
    train, where = keep & ~in_val, {}           # {source: its shards, its documents}
    for name, s in of_source.items():
        mine = [i for i in range(n_shards) if shards[i]['source'] == name]
        span = slice(first[mine[0]], first[mine[-1] + 1]) if mine else slice(0)
        where[name] = mine, span
        s |= {'documents': int(keep[span].sum()), 'tokens': int(lengths[span][train[span]].sum())}
        if not s['tokens']:
            raise ValueError(f'no training document is left of the source {name}; --audit=20 writes down why')
    total = mix_tokens or sum(s['tokens'] for s in of_source.values())
    parts = {name: s['weight'] or s['tokens'] ** (1 / temperature) for name, s in of_source.items()}
    for name, s in of_source.items():
        (mine, span), s['begins'] = where[name], bins['train'].items
        passes, rest = divmod(round(total * parts[name] / sum(parts.values())), s['tokens'])
        order = np.flatnonzero(train[span]) + span.start
        order = order[np.argsort(exact[order], kind='stable')]          # as good as shuffled
        before = np.cumsum(lengths[order]) - lengths[order]
        once_more = np.zeros(n_docs, np.int64)                          # tokens; the last document is cut
        once_more[order] = np.clip(rest - before, 0, lengths[order])
        for i in mine * passes:             # with --write=text there is one pass, over no ids
            bins['train'].write(ids_of(i, 'train'), int(train[first[i]:first[i + 1]].sum()))
        if len(sources) > 1:
            bins[f'val_{name}'] = Bin(in_out_dir(f'val_{name}.bin'))
        for i in mine:
            here, ids = slice(first[i], first[i + 1]), ids_of(i, 'train')
            ends_here = np.cumsum(lengths[here] * train[here])
            for k in np.flatnonzero(once_more[here] > 1):
                begin = ends_here[k] - lengths[here][k]
                bins['train'].write(ids[begin:begin + once_more[here][k] - 1], 1)
                bins['train'].write(np.array(separator, dtype), 0)
            for side in {'val', f'val_{name}'} & bins.keys():
                bins[side].write(ids_of(i, 'val'), int((keep[here] & in_val[here]).sum()))
        s['mixed'] = bins['train'].items - s['begins']
        s['epochs'] = s['mixed'] / s['tokens']

# --- count again: the files on the disk, and the stages against each other ----------------------------------
for b in bins.values():
    b.check(*(np.dtype(dtype), separator) if kind == 'text' else (np.dtype('uint8'), [ord('\n')]))
stages = [{'name': name, **{key: row[key] for key in ('docs_in', 'docs_out', 'bytes_in', 'bytes_out')},
           'dropped': {key[8:]: n for key, n in row.most_common() if key.startswith('dropped ')}}
          for name in ('read', *STAGES, 'max_docs', 'exact duplicates', 'near duplicates', 'tokenise')
          if (row := funnel.counters.get(f'stage {name}'))]
both = bins['train'], bins['val']
left = {'docs_in': sum(b.documents for b in both), 'bytes_in': sum(b.bytes for b in both)}
for before, after in zip(stages, [*stages[1:], left]):
    if (before['docs_out'], before['bytes_out']) != (after['docs_in'], after['bytes_in']) or \
            before['docs_in'] - before['docs_out'] != sum(before['dropped'].values()):
        raise ValueError(f'the figures after {before["name"]} do not add up: please report this bug')

# --- the report ---------------------------------------------------------------------------------------------
counts = {name: dict(counter.most_common(100)) for name, counter in sorted(funnel.counters.items())
          if not name.startswith(('stage ', 'words ', 'licences '))}
vanished = [word for word, n in funnel.counters['words in'].most_common(50_000)
            if n >= 10 and not funnel.counters['words out'][word]][:200]
report = {'stages': stages, 'malformed': sum(m['records'] for m in funnel.malformed.values()),
          'malformed_files': funnel.malformed,
          'documents': {'train': bins['train'].documents, 'val': bins['val'].documents},
          'bytes': {'train': bins['train'].bytes, 'val': bins['val'].bytes},
          'sources': of_source, 'duplicates': clusters_found, 'counts': counts}
meta = {'format': 'nanoparrot-data-1', **{key: report[key] for key in ('documents', 'bytes', 'sources')},
        'sha256': {side: b.sha256.hexdigest() for side, b in bins.items()}, 'config': config}
if benchmarks:
    dropped = funnel.counters['stage decontaminate']['dropped in a benchmark']
    meta['decontaminated'] = {'problems': benchmarks, 'ngram': decontaminate_ngram, 'dropped': dropped}
if kind == 'text':
    n_tokens = bins['train'].items if write == 'bins' else sum(s['tokens'] for s in of_source.values())
    meta['tokens'] = report['tokens'] = {'train': n_tokens, 'val': bins['val'].items}
    meta |= {'dtype': dtype, 'vocab_size': tok.vocab_size, 'tokenizer_hash': tok.hash,
             'separators': not single}


def table(*rows):
    rows = ['| ' + ' | '.join(f'{x:,}' if isinstance(x, int) else str(x) for x in row) + ' |' for row in rows]
    return ['', rows[0], '|' + '---|' * (rows[0].count(' | ') + 1), *rows[1:]]


def listed(counter):
    return ', '.join(f'{name}: {n:,}' for name, n in counter.items()) or 'none'


lines = [f'# {out_dir}', '', 'Made from ' + listed({f'{name}, files': n for name, n in n_files.items()})
         + (f'; tokenizer {tok.kind} of {tok.vocab_size:,}, hash {tok.hash}' if kind == 'text' else '')]
lines += table(('stage', 'documents in', 'out', 'bytes in', 'out', 'dropped'), *(
    (s['name'], s['docs_in'], s['docs_out'], s['bytes_in'], s['bytes_out'],
     ', '.join(f'{reason}: {n:,} ({n / s["docs_in"]:.1%})' for reason, n in s['dropped'].items()))
    for s in stages))
lines += ['', f'{report["malformed"]} records could not be read', *(
    f'- {path}: {m["records"]}, the first at {m["first"]}' for path, m in funnel.malformed.items())]
shown = [b for side, b in bins.items() if write == 'bins' or side != 'train']
lines += table(('file', 'documents', 'tokens' if kind == 'text' else 'bytes', 'bytes of text'), *(
    (os.path.basename(b.path), b.written, b.items, b.bytes or '') for b in shown))
for name, s in of_source.items():
    lines += ['', f'{name} ({s["path"]}): licences {listed(dict(list(s["licences"].items())[:20]))}']
    if 'epochs' in s:
        share = s['mixed'] / max(1, bins['train'].items)
        lines += [f'{s["documents"]:,} documents, {s["tokens"]:,} training tokens' + (
            f' x {s["epochs"]:.2f} passes = {share:.1%} of train.bin' * (write == 'bins'))
            + '; more than 4 passes add little' * (s['epochs'] > 4)]
for stage, found in clusters_found.items():
    lines += ['', f'{stage}, clusters by size: {listed(found["sizes"])}',
              *(f'- {n:,} copies of {path}' for n, path in found['largest'])]
for name, counter in counts.items():
    lines += ['', f'{name}: {listed(counter)}']
lines += ['', 'decontaminated: ' + (f'{", ".join(benchmarks)}, by {decontaminate_ngram}-grams of words'
                                    if benchmarks else 'no (--decontaminate=HumanEval.jsonl.gz)')]
if audit:
    lines += ['', 'words of ten documents or more that are gone (who writes them?): ' + ', '.join(vanished)]
lines += table(('reason', 'for example', 'begins'), *(
    (reason, path, '`' + ' '.join(re.sub('[`|]', ' ', text[:90]).split()) + '`')
    for reason, samples in sorted(funnel.samples.items()) for _, path, text in samples[:3]))

# --- the names: all is written; a folder without meta.json is no data, so two runs never mix ----------------
if audit:
    write_file(in_out_dir('audit.md.new'), '\n'.join(
        f'# {reason}\n' + '\n'.join(f'## {path}\n\n````\n{text}\n````\n' for _, path, text in samples)
        for reason, samples in sorted(funnel.samples.items())))
write_file(in_out_dir('report.md.new'), '\n'.join(lines) + '\n')
write_file(in_out_dir('report.json.new'), json.dumps(report, indent=1))
write_file(in_out_dir('meta.json.new'), json.dumps(meta, indent=1))
if kind == 'text':
    tok.save(in_out_dir('tokenizer.json.new'))
if os.path.exists(in_out_dir('meta.json')):
    os.remove(in_out_dir('meta.json'))
# What an earlier run left goes, unless this one has just read it.
_stay = {os.path.realpath(path) for path in [b.path for b in bins.values()] + [
    f['path'] for f in _inputs if write == 'bins']}
for _pattern in ('val_*.bin', 'audit.md', f'shards/{"[0-9]" * 5}.jsonl.gz'):
    for _path in glob.glob(in_out_dir(_pattern)):
        if os.path.realpath(_path) not in _stay:
            os.remove(_path)
if os.path.isdir(in_out_dir('shards')) and not os.listdir(in_out_dir('shards')):
    os.rmdir(in_out_dir('shards'))
for b in bins.values():
    os.replace(f'{b.path}.tmp', b.path)
if write == 'text':                 # the shards are what there is to train on
    os.remove(bins['train'].path)
    os.makedirs(in_out_dir('shards'), exist_ok=True)
    for i, base in enumerate(encoded):
        os.replace(f'{base}.jsonl.gz', in_out_dir(f'shards/{i:05}.jsonl.gz'))
for name in ('audit.md', 'report.md', 'report.json', 'tokenizer.json', 'meta.json'):
    if os.path.exists(in_out_dir(f'{name}.new')):
        os.replace(in_out_dir(f'{name}.new'), in_out_dir(name))
forget_work()

for s in stages:
    if s['dropped']:
        print(f'{s["name"]}: {s["docs_in"]:,} -> {s["docs_out"]:,} documents ({listed(s["dropped"])})')
for b in shown:
    unit = f'tokens ({dtype})' if kind == 'text' else 'bytes'
    once = kind == 'text' and b.bytes and b.documents == b.written and b.items
    per_token = f', {b.bytes / b.items:.2f} bytes per token' if once else ''
    print(f'{b.path}: {b.written:,} documents, {b.items:,} {unit}{per_token}')
if funnel.malformed:
    print(f'{report["malformed"]} records could not be read; {out_dir}/report.md says which')
_next = {'text': 'train.py config/quickstart.py', 'sft': 'sft.py', 'preference': 'dpo.py'}[kind]
_more = ''
if write == 'text':
    print(f'{in_out_dir("shards")}: {bins["train"].documents:,} documents, {n_tokens:,} tokens, as text')
    _more = f' --streaming={in_out_dir("shards")}'
if kind == 'text' and tok.kind == 'char':       # the config's prompt may have others
    _more += ' --sample_prompt='
print(f'{time.time() - start_time:.1f} s; next: python {_next} --data_dir={out_dir}{_more}')
