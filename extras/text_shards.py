"""
Text in place of tokens, if these don't fit on your disk: train.py tokenizes it during training.

    python prepare.py --source=codeparrot --out_dir=data/text --vocab_size=32768 --write=text
    python train.py config/codeparrot.py --data_dir=data/text --streaming=data/text/shards

Each process of a run needs a shard of its own, so a shard of prepare.py's work becomes one here.
"""
import gzip, hashlib, itertools, json


def write(folder, numbers, documents):
    """Write documents as FOLDER/shards/00000.jsonl.gz, ...: lines {"text": ..., "path": ...}.
    numbers: the shard of each document. Return the hash of each file."""
    (folder / 'shards').mkdir()
    hashes = {}
    for number, some in itertools.groupby(zip(numbers, documents), lambda pair: pair[0]):
        path = folder / f'shards/{number:05}.jsonl.gz'
        with gzip.GzipFile(path, 'wb', 1, mtime=0) as f:
            for _, document in some:
                facts = {name: value for name, value in document.items()
                         if name not in ('texts', 'roles', 'line', 'mode')}
                f.write(json.dumps({'text': document['texts'][0], **facts}).encode() + b'\n')
        digest = hashlib.sha256()
        with open(path, 'rb') as f:
            while block := f.read(1 << 20):
                digest.update(block)
        hashes[f'{number:05}'] = digest.hexdigest()
    return hashes
