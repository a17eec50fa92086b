# Several sources, weighted as LLaMA 3's data are said to be: 50 % web, 15 % code, 10 % academic, 25 % other.
# The weights are shares of the tokens of train.bin; a source that is too small for its share is read several
# times (report.md says how often, and that more than four passes add little), one that is too large in part.
# You should see these shares, to the token, in report.md, and a val_<source>.bin for each source.
#
#   python prepare.py config/mix.py --vocab_size=32768
out_dir = 'data/mix'
sources = {
    'web': ('data/raw/web', 50),                # folders of .txt, .md, .py, .jsonl or .json, gzipped or not
    'code': ('stdlib', 15),
    'academic': ('data/raw/academic', 10),
    'other': ('data/raw/other', 25)}
