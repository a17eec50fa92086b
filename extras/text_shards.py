"""
Text in place of tokens, if these don't fit on your disk: train.py tokenizes it during training.

    python prepare.py --source=codeparrot --out_dir=data/text --vocab_size=32768 --write=text
    python train.py config/codeparrot.py --data_dir=data/text --streaming=data/text/shards

Each process of a run needs a shard of its own, so a shard of prepare.py's work becomes one here.
"""
import gzip, itertools, json


def write(folder, numbers, documents):
    """Write documents as FOLDER/shards/00000.jsonl.gz, ...: lines {"text": ..., "path": ...}.
    numbers: the shard of each document."""
    (folder / 'shards').mkdir()
    for number, some in itertools.groupby(zip(numbers, documents), lambda pair: pair[0]):
        with gzip.GzipFile(folder / f'shards/{number:05}.jsonl.gz', 'wb', 1, mtime=0) as f:
            for _, document in some:
                record = {'text': document['texts'][0], **document}
                for name in 'texts', 'roles', 'line', 'mode':
                    del record[name]
                f.write(json.dumps(record).encode() + b'\n')
