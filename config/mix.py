# Several weighted sources: put your own folders in place of data/raw. A weight is a share of the tokens that
# train.py reads; train.bin holds each source once. These shares are a lesson's for LLaMA 3; Meta's paper says
# 50 % general, 25 % mathematics and reasoning, 17 % code, 8 % other languages (arXiv:2407.21783). A source
# that is too small for its share is read several times; more than four passes add little (arXiv:2305.16264).
# Of a large one, each epoch reads another part.
# You should see in report.md how often each source is read, and a val_<source>.bin for each.
#
#   python prepare.py config/mix.py --vocab_size=32768
out_dir = 'data/mix'
sources = {
    'web': ('data/raw/web', 50),                # a folder of .txt, .md, .py, .jsonl or .json, gzipped or not
    'code': ('stdlib', 15),
    'academic': ('data/raw/academic', 10),
    'other': ('data/raw/other', 25)}
