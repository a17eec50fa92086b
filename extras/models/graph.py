"""
GPT.stream opens this file on a GPU: it captures the step that reads one token as a CUDA graph.

    read = CapturedReader(model).read       # the same arguments and results as model.read

A GPU computes a token of a small model sooner than Python launches its 500 kernels. A CUDA graph
launches all of them at once: it is captured for the first token, and replayed for each later one.
A replay runs no Python, so hooks and prints in a block are silent. model.use_graph = False turns
it off, and model.py writes the same tokens without this file, several times slower.
"""
import torch
import torch.nn.functional as F
from model import IGNORE, without_padding


class CapturedReader:
    def __init__(self, model):
        self.model = model
        self.cache, self.replay = None, None        # the cache that the captured graph writes to

    def read(self, idx, n_cached, cache):
        """Return what model.read returns. Shapes in a graph never change, so each token attends to
        the whole cache, and a mask hides what is padding or not written yet."""
        if n_cached == 0:       # a whole window, not one token
            return self.model.read(idx, 0, cache)
        positions = idx.new_full((1,), n_cached)
        keys = F.pad(idx, (0, cache.shape[-2] - idx.shape[1]), value=IGNORE)
        inputs = idx[:, -1:], positions, without_padding(keys, positions)
        if self.cache is not cache:     # the first token, or finished sequences were removed
            self.cache, self.replay = cache, None       # frees the old graph before the new one
            self.replay = capture(self.model.read_at, *inputs, cache=cache)
        return self.replay(*inputs)


def capture(read, *inputs, cache):
    """Return read(*inputs, cache) with its kernels captured as a CUDA graph. A graph always uses
    the same addresses, so new inputs are copied there. Call it inside the autocast in which it was
    captured, because the end of an autocast frees the bfloat16 weights that it made."""
    inputs, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
    read(*inputs, cache)        # loads kernels, which must not happen during the capture
    stream = torch.cuda.Stream(cache.device)
    # thread_local: NCCL's own thread may work meanwhile
    with torch.cuda.graph(graph, stream=stream, capture_error_mode='thread_local'):
        logits = read(*inputs, cache)

    def replay(*new):
        for old, x in zip(inputs, new):
            old.copy_(x)
        graph.replay()
        return logits
    return replay
