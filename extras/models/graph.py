"""
Faster generation on a GPU: GPT.stream captures the forward pass of one token as a CUDA graph.

    next_logits = GraphRunner(model).next_logits    # a drop-in replacement of model.next_logits

For a small model, a GPU computes a token faster than Python launches its 500 kernels. A CUDA graph
launches all kernels at once: it is captured at the first token, and replayed at each later token.
A replay runs no Python code, so hooks and print() in a block do nothing. model.use_graph = False
disables graphs; without them model.py generates the same tokens, several times slower.
"""
import torch
import torch.nn.functional as F
from model import IGNORE, causal_mask


class GraphRunner:
    def __init__(self, model):
        self.model = model
        self.cache, self.replay = None, None        # the cache that the graph reads and writes

    def next_logits(self, idx, n_cached, cache):
        """Return what model.next_logits returns. A graph has fixed shapes, so each token attends to
        the whole cache, and a mask hides padding and keys that are not written yet."""
        if n_cached == 0:       # the whole context, not one token
            return self.model.next_logits(idx, 0, cache)
        positions = idx.new_full((1,), n_cached)
        keys = F.pad(idx, (0, cache.shape[-2] - idx.shape[1]), value=IGNORE)
        inputs = idx[:, -1:], positions, causal_mask(keys, positions)
        if self.cache is not cache:     # the first token, or finished sequences were removed
            self.cache, self.replay = cache, None       # free the old graph before capturing again
            self.replay = capture(self.model.next_logits_at, *inputs, cache=cache)
        return self.replay(*inputs)


def capture(function, *inputs, cache):
    """Return function(*inputs, cache) as a replayable CUDA graph. A graph uses fixed addresses, so
    new inputs are copied into the old ones. Replay it inside the autocast context of its capture,
    because leaving an autocast context frees the bfloat16 copies of the weights."""
    inputs, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
    function(*inputs, cache)    # warmup: loading kernels is not allowed during capture
    stream = torch.cuda.Stream(cache.device)
    # thread_local: NCCL's thread may call CUDA during the capture
    with torch.cuda.graph(graph, stream=stream, capture_error_mode='thread_local'):
        logits = function(*inputs, cache)

    def replay(*new):
        for old, x in zip(inputs, new):
            old.copy_(x)
        graph.replay()
        return logits
    return replay
