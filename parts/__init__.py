"""
The depth behind the lesson, one idea a file, in five folders, in the order in which a text flows through
them. A reader may skip all of them.

prepare/                a text becomes tokens on the disk
    files               the files of a source, found on the disk or downloaded once
    reading             a file becomes text in the right encoding, or records of JSON
    conversions         records of many forms become texts, conversations or pairs
    clean               a text gets one form, whatever its source
    texts               is a text Python, and what has its writer learned?
    filters             why a document is not worth learning from; personal data become placeholders
    text_models         how surprising a text is, and which language or quality it has
    duplicates          documents that say the same, found without comparing each with each
    corpus              documents on their way to the disk, in files that are never half written
    report              what came in, what was dropped and why, and a card of what is left
    workers             many jobs, computed by several processes
model/                  whatever takes a GPT or its config
    checkpoints         found, read, and opened to sample from
train/                  a run
    folders             the folders that scripts read by default, and what makes them
    processes           the device and the precision of a script that samples or measures
sample/                 a model writes
    asking              prompts become ids, and the ids of answers become text, many in one batch
eval/                   is it right, is it well?
"""
from configurator import Mistake      # noqa: F401
