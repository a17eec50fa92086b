# A language model of Python, from Python's own source, on a laptop: the run of `bash run.sh`.
#
#   python prepare.py --out_dir=data/quickstart --vocab_size=2048
#   python train.py config/quickstart.py
data_dir = 'data/quickstart'
out_dir = 'out/quickstart'
n_layer = 6
