"""What goes wrong on purpose: text for run(before=), which a script's process executes before its first line.

PLACES is the only list of functions that tests replace: when one of them moves, its line here changes.
"""
import textwrap

PLACES = {name: place.split(':') for name, place in (line.split(' = ') for line in """
native bfloat16 = torch.cpu:_is_avx512_bf16_supported
clip = torch.nn.utils:clip_grad_norm_
orthogonal = extras.training.muon:orthogonal
sample = model:GPT.generate
save = torch:save
rename = os:replace
seed = torch:manual_seed
forward = model:GPT.forward
read = model:GPT.backbone
compile = torch:compile
shard = extras.training.sharding:shard
clean a shard = pathlib:Path.rename
build a tokenizer = tokenizer:Tokenizer.save
take a token = tokenizer:Tokenizer.decode_bytes
throw dice = random:Random
answer a batch = extras.tasks.answers:write_batch
""".strip().splitlines())}

# With `n` calls of that place before this one, and `gradient`, a tensor that the update will use.
DEEDS = {'nan': 'gradient.mul_(float("nan"))',
         'kill': 'os.kill(os.getpid(), signal.SIGKILL)'}


def replaced(place, body):
    """The function at that place becomes one with this body: `real` is the function, `arguments` and `more`
    are those of the call, and n counts the calls from 0."""
    module, name = PLACES[place]
    *owner, name = name.split('.')
    return f'''
def replace():
    import functools, itertools, json, os, signal, threading, torch
    import {module} as module
    owner = functools.reduce(getattr, {owner}, module)
    real, count = getattr(owner, {name!r}), itertools.count()
    def spoiled(*arguments, **more):
        n = next(count)
{textwrap.indent(textwrap.dedent(body).strip(), ' ' * 8)}
    setattr(owner, {name!r}, spoiled)
replace()
'''


def before(place, deed):
    """Something happens, and then the function does its work."""
    return replaced(place, f'{textwrap.dedent(deed).strip()}\nreturn real(*arguments, **more)')


# no accident, but it saves most of the time of a small run: a trainer shows 8 tokens, not 100
SHORT_SAMPLES = before('sample', 'arguments = [*arguments[:2], min(arguments[2], 8), *arguments[3:]]')


def killed_after(place, calls):
    """A process is killed when that function has returned for so many times."""
    return replaced(place, f'''
        result = real(*arguments, **more)
        if n + 1 == {calls}:
            os.kill(os.getpid(), 9)
        return result''')


def killed_while_saving(step):
    """The power fails when half of the last.pt of that step is written. A best.pt has no moments."""
    return before('save', f"""
        state, file = arguments
        if state['step'] == {step} and state.get('optimizer'):
            with open(file if isinstance(file, str | os.PathLike) else file.name, 'wb') as half:
                half.write(b'half')
            os.kill(os.getpid(), signal.SIGKILL)""")


# the power fails when the old last.pt has become last-1.pt
KILLED_WHILE_RENAMING = before('rename', """
    if str(arguments[1]).endswith('last.pt'):
        os.kill(os.getpid(), signal.SIGKILL)""")


def full_disk(n_bytes):
    """No file grows beyond so many bytes: what a full disk does, as far as a program can see."""
    return f'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))'


def accident(kind, *updates):
    """It happens in these updates of a trainer, counted from 0, before the gradient is clipped. badbatch: the
    batches of these steps are noise, which a model that has learned finds far too improbable."""
    if kind == 'badbatch':
        return replaced('forward', f'''
            model, x, y = arguments
            if model.training:
                model.n_steps = getattr(model, 'n_steps', -1) + 1
                if model.n_steps in {updates}:
                    arguments = model, torch.randint_like(x, 256), torch.randint_like(y, 256)
            return real(*arguments, **more)''')
    return before('clip', f'''
        if n in {updates}:
            arguments = [*arguments[0]], *arguments[1:]             # the parameters came as an iterator
            *_, gradient = [p.grad for p in arguments[0] if p.grad is not None]
            {DEEDS[kind]}''')
