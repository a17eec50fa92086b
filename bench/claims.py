"""
The arithmetic of docs/claims.md, again: this script reads the tables of the page and computes in seconds
what their column "arithmetic says" holds.

    python bench/claims.py              # a line for each claim: its number, the claim, the arithmetic
    python bench/claims.py FOLDER       # with the claims about Tiny Shakespeare and GPT-2's tokenizer:
                                        # FOLDER holds tinyshakespeare.txt, vocab.bpe and encoder.json
    python bench/claims.py --cost=10500 --price=30 --tokens=4_566_210
                                        # when does your own model pay? its cost, an API's price for a million
                                        # tokens, tokens a day

Equations ("22 / 6 = 3.67") are evaluated wherever they stand in README.md, docs/ and config/. A number of the
column that stands in no equation, in nothing computed here and not in the claim is a mistake, too. The exit
code is 1 if a figure differs.
"""
import argparse
import ast
import math
import pathlib
import platform
import re
import runpy
import sys
import sysconfig
import warnings

import peers                                    # puts this checkout's leaves on the path
import torch
from model import GPT, GPTConfig
from parts.tokenizer import tokenizer_report
from parts.prepare import clean
from parts.train import objectives, planner
from tokenizer import SPECIAL_TOKENS, Tokenizer, learn_merges

ROOT = pathlib.Path(peers.__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('config/*.py'))]
NUMBER = r'\d+(?:,\d{3})*(?:\.\d+)?'
EQUATION = re.compile(rf'(?<!\w)((?:[\d.,()$+/^ -]|\b(?:x|ln|cos|pi|e)\b)+) = \$?({NUMBER})((?: %)?)')
computed = {}       # number of a row -> phrases that its arithmetic must hold
figures = []        # (page, phrase that it must hold)


# --- the page -----------------------------------------------------------------------------------------------
def table_rows(text):
    """The numbered rows of the page's tables: {number: [claim, arithmetic, measured, command]}"""
    cells = [[cell.strip() for cell in line[1:-1].split('|')] for line in text.splitlines()]
    return {int(row[0]): row[1:] for row in cells if row[0].isdigit() and len(row) == 5}


def equations(text):
    """[(equation, value of its left side, its right side, half a unit of the last digit)], of any prose."""
    found = []
    for match in EQUATION.finditer(text):
        left, printed, percent = match.groups()
        left = left.strip(' ,.')
        python = re.sub('[$,]', '', left).replace(' x ', ' * ').replace('^', '**')
        python = re.sub(r'\bln ([\d.]+)', r'log(\1)', python)
        try:
            value = eval(python, {'__builtins__': {}}, vars(math))
        except SyntaxError:                                 # half of a sentence
            continue
        scale = 0.01 if percent else 1
        half = 0.5 * scale * 10 ** -len(printed.partition('.')[2])
        right = scale * float(printed.replace(',', ''))
        if re.search(r'[a-z+/*-]', python):                 # not '3 = 4'
            found.append((f'{left} = {printed}{percent}', value, right, half))
    return found


def wrong_equations(text):
    return [f'{equation}: it is {left:,.6g}' for equation, left, right, half in equations(text)
            if abs(left - right) > 1.001 * half]


def unproven(claim, arithmetic, phrases):
    """The numbers of a cell that stand in no equation, in no computed phrase and not in the claim."""
    numbers = lambda text: re.findall(rf'(?<![\w.:+-]){NUMBER}(?:e\+\d+)?(?!\w|\.\w)', text)
    proven = [claim, *phrases, *(equation[0] for equation in equations(arithmetic))]
    return sorted(set(numbers(arithmetic)) - {n for text in proven for n in numbers(text)})


# --- what is computed with the project's own files ----------------------------------------------------------
def shape_of(name, **changes):
    """The GPTConfig that train.py makes of config/NAME.py. Larger sizes of the ladder change nano.py."""
    settings = runpy.run_path(str(ROOT / 'config/nano.py')) if name in ('mini', 'midi', 'mega') else {}
    settings |= runpy.run_path(str(ROOT / 'config' / f'{name}.py'))
    settings |= changes
    fields = {key: settings[key] for key in GPTConfig.__dataclass_fields__ if key in settings}
    return GPTConfig(**fields).filled()


def count(shape):
    """Parameters in closed form; tests/test_model_cli.py holds it to the real model."""
    return planner.count_parameters(vars(shape))['total']


def gpt2_count(L, C, V=32_768, T=1024):
    """Parameters with GPT-2's block: biases, two norms with biases, learned positions, a tied output."""
    return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


def sizes():
    V = {'nano': 256, 'mini': 256, 'midi': 256, 'mega': 256, 'codeparrot_small': 32_768,
         'codeparrot': 32_768, 'quickstart': 4096, 'shakespeare_cpu': 65,
         'shakespeare_laptop': 65}
    n = {}
    for name in V:
        n[name] = count(shape_of(name, vocab_size=V[name]))
        figures.append((f'config/{name}.py', f'{n[name]:,}'))
    for name in 'nano', 'mini', 'midi', 'mega':
        flops = planner.flops_per_token(vars(shape_of(name)), 512)
        row = f'| {name} | {n[name]:,} | {16 * n[name] / 1e9:.2f} GB | {flops / 1e6:,.0f} million |'
        figures.append(('docs/claims.md', row))
    for name in 'quickstart', 'shakespeare_cpu', 'shakespeare_laptop':
        figures.append(('README.md', f'{n[name] / 1e6:.1f}M parameters'))

    block = planner.count_parameters(vars(shape_of('nano')))['per block']
    computed[28] = [f'{n["nano"]:,} parameters', f'6 x {block:,}',
                    f'n_ffn=2048 has {count(shape_of("nano", n_ffn=2048)):,}',
                    f'n_embd=384 with n_ffn=1024 has {count(shape_of("nano", n_embd=384, n_ffn=1024)):,}']
    tiny = count(GPTConfig(32_000, 2048, 22, 32, 4, 2048, 5632, tie_embeddings=False))
    fifty = count(shape_of('mini', n_head=11, n_embd=704, n_ffn=2112))
    two_hundred = count(shape_of('midi', n_layer=16, n_head=16, n_embd=1024, n_ffn=2816))
    computed[29] = [f'{n["mini"]:,}, {n["midi"]:,} and {n["mega"]:,}',
                    f'TinyLlama has {tiny:,}, {tiny / n["nano"]:.0f} times',
                    f'8 layers of 704 have {fifty:,}', f'16 layers of 1,024 have {two_hundred:,}']
    computed[64] = [f"GPT-2's blocks: {gpt2_count(12, 768):,} and {gpt2_count(48, 1600):,}",
                    f'ours: {n["codeparrot_small"]:,} and {n["codeparrot"]:,}']
    computed[85] = [f'{n["codeparrot_small"]:,} parameters']


def first_loss():
    torch.manual_seed(0)
    nano = GPT(shape_of('nano'))
    idx = torch.randint(256, (4, 65))
    loss = nano(idx[:, :-1], idx[:, 1:])[1].item()
    computed[34] = [f'random weights give {loss:.2f}']


def plans():
    nano, codeparrot = shape_of('nano'), gpt2_count(48, 1600)
    n = count(nano)
    one, two = (planner.flops_per_token(vars(nano), T) for T in (512, 1024))
    computed[6] = ['6 N + 12 n_layer n_embd T', f'{6 * n:,} + {one - 6 * n:,} FLOPs',
                   f'{two / one:.2f} times as much']
    computed[68] = [f'{10_000 * 32 * 512 * one:.2e} FLOPs']

    llama = count(GPTConfig(128_256, 8192, 32, 32, 8, 4096, 14_336, tie_embeddings=False))
    rate = 6 * llama * 15e12 / 3600 / 1e12          # TFLOP/s, if it were one GPU in one hour
    computed[8] = [f'6 FLOPs x {llama:,} parameters', f'2M hours mean {rate / 2e6:.0f} TFLOP/s a GPU',
                   f'1.3M hours of its model card {rate / 1.3e6:.0f}',
                   f'{15e12 / llama:,.0f} tokens a parameter']

    single, half = (planner.device_bytes(vars(nano), 1, 0, 16, width) / 1e6 for width in (4, 2))
    computed[49] = [f'nano with 16 sequences takes {single:,.0f} MB in float32 and {half:,.0f} in bfloat16']
    single, half = (planner.activation_bytes(vars(nano), 16, width) / 1e6 for width in (4, 2))
    computed[71] = [f'16 sequences are planned at {single:,.0f} and {half:,.0f} MB, '
                    f'{single / half:.2f} times']
    computed[70] = []
    for shape in nano, shape_of('nano', n_layer=24, n_ffn=0, block_size=256):
        all_kept, inputs = (planner.activation_bytes(vars(shape), 8, checkpoint=checkpoint, cpu=True) / 1e6
                            for checkpoint in (False, True))
        computed[70].append(f'{shape.n_layer} layers: {all_kept:.0f} and {inputs:.0f} MB, '
                            f'{all_kept / inputs:.1f} times less')

    sent = planner.bytes_sent(codeparrot, 16, 0) / 1e9
    computed[51] = [f'{codeparrot:,} parameters']
    computed[52] = [f'{4 * codeparrot / 1e9:.1f} GB of gradients', f'16 GPUs each sends {sent:.1f} GB a step']
    sizes = [planner.state_bytes(7, 8, stage, (12, 2, 2)) for stage in (0, 1, 2, 3)]
    computed[76] = ['DDP {:.1f} GB, ZeRO-1 {:.1f}, ZeRO-2 {:.2f}, ZeRO-3 {:.1f}'.format(*sizes)]
    computed[74] = []
    for n, days, tokens in ((codeparrot, 7, 50_000 * 512 * 1024),
                            (gpt2_count(12, 768), 1, 150_000 * 192 * 1024)):
        share = 6 * n * tokens / (16 * days * 86_400 * 312e12)
        computed[74].append(f'{tokens / 1e9:.1f}B tokens, {tokens / n:.0f} a parameter, '
                            f'{100 * share:.1f} % of the peak')
    equal = [100 * (1 - math.comb(200 - 8, k) / math.comb(200, k)) for k in (1, 10, 100)]       # pass@k
    computed[73] = ['8 of 200 samples', '{:.1f} %, {:.1f} % and {:.1f} %'.format(*equal)]
    computed[47] = [f'float16 is {torch.finfo(torch.float16).max:,.0f}, the largest bfloat16 '
                    f'{torch.finfo(torch.bfloat16).max:.1e}']
    n_text, n_hidden, n_spans = objectives.span_lengths(512)
    computed[39] = [f'15 % in spans of 3, a context of 512 holds {n_text} tokens, {n_hidden} of them '
                    f'hidden in {n_spans} spans']


def chats():
    """The converter of the source as it stands there, and its mask of one prefix."""
    chat = [{'role': role, 'content': text} for role, text in
            (('user', '2 + 2?'), ('assistant', '4'), ('user', '3 + 3?'), ('assistant', '6'))]
    found = [message.get(key, 'None') for key in ('instruction', 'user', 'assistant') for message in chat]
    computed[56] = [f'{len(chat)} messages become {found.count("None")} times "None"']
    byte = Tokenizer.byte(SPECIAL_TOKENS)
    ids, mask = byte.render(chat)
    prompt = len(byte.render(chat[:1], add_generation_prompt=True)[0])
    computed[57] = [f'{len(ids) - prompt} of {len(ids)} tokens are trained',
                    f"{sum(mask)} are the assistant's"]


def merges():
    pieces, steps = [chr(byte) for byte in range(256)], []
    for a, b in learn_merges([b'low', b'lower', b'lowest'], [1, 1, 1], 3)[0]:
        steps.append(f'({pieces[a]}, {pieces[b]})')
        pieces.append(pieces[a] + pieces[b])
    computed[62] = [', '.join(steps)]
    lost = sum(character.isspace() for character in tokenizer_report.SAMPLE)
    computed[24] = [f'{lost} of {len(tokenizer_report.SAMPLE)} characters']


def gpt2_pieces(gpt2):
    theirs = [gpt2.all_bytes[i].decode() for i in gpt2.encode(tokenizer_report.SAMPLE)]
    indent = theirs[theirs.index('\n'):theirs.index(' print') + 1]
    computed[22] = [f'{len(theirs)} tokens', f'{indent.count(" ")} single spaces', repr(indent[-1])]
    printed = theirs.index(')') + 1                 # the source prints its own list up to here: 12 tokens
    whole = len(theirs) - printed + 12
    computed[23] = [f'{printed} tokens become 12, {printed / 12:.2f} times fewer',
                    f'{len(theirs)} become {whole}, {len(theirs) / whole:.2f} times']
    computed[61] = [f'{len(theirs)} become {whole}']


def survives(source):
    """Is a program the same program after each run of white space became one space?"""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return ast.dump(ast.parse(re.sub(r'\s+', ' ', source))) == ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def shakespeare(text):
    lines, words, used = text.splitlines(keepends=True), text.split(), sorted(set(text))
    share = [100 * sum(map(len, lines[:n])) / len(text) for n in (32_000, 36_000)]
    computed[10] = [f'{len(lines):,} lines', f'32,000 hold {share[0]:.1f} % of the characters',
                    f'36,000 hold {share[1]:.1f} %']
    absent = ' '.join(character for character in '#*8@' if character not in used)
    computed[20] = [f'{len(used)} of 256 ids occur', f'{absent} do not']
    computed[21] = [f'id 0 is {used[0]!r}']
    computed[27] = [f'{len(set(words)):,} different words']
    computed[65] = [f'{len(used)} characters', f'{len(text):,} characters in all']
    if platform.python_version() == '3.11.7':
        paths = pathlib.Path(sysconfig.get_paths()['stdlib']).glob('*.py')
        sources = [path.read_text(encoding='utf-8') for path in paths]
        dropped = sum(clean.basic_clean(source) is None for source in sources)
        computed[17] = [f'{len(set(words)) / len(words):.3f} different words for each word',
                        f'{len(sources)} modules of Python 3.11.7 it drops {dropped}',
                        f'{sum(map(survives, sources))} keep their syntax tree']


# --- the report ---------------------------------------------------------------------------------------------
WITH_FOLDER = {10, 17, 20, 21, 22, 23, 27, 61, 65}     # rows that need Tiny Shakespeare or GPT-2's files


def differences(claim, arithmetic, phrases):
    """What a row's arithmetic says otherwise: a list of texts."""
    return [*(f'computed: {phrase}' for phrase in phrases if phrase not in arithmetic),
            *wrong_equations(arithmetic),
            *(f'{number} is computed nowhere' for number in unproven(claim, arithmetic, phrases))]


def report(table):
    """Print a line for each claim; return how many differ."""
    wrong = 0
    for number, (claim, arithmetic, _, _) in sorted(table.items()):
        if number in WITH_FOLDER and number not in computed:
            print(f'{number:>3} not run  {claim}: give FOLDER; row 17 needs Python 3.11.7, too')
            continue
        found = differences(claim, arithmetic, computed.get(number, []))
        if found:
            wrong += 1
        print(f'{number:>3} ' + ('DIFFERS  ' + '; '.join(found) if found else
                                 f'agrees   {claim} | {arithmetic or "no arithmetic"}'))
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folder', nargs='?', type=pathlib.Path)
    parser.add_argument('--cost', type=float, default=0)
    parser.add_argument('--price', type=float, default=0)
    parser.add_argument('--tokens', type=float, default=0)
    args = parser.parse_args()
    if args.price and args.tokens:
        day = args.price * args.tokens / 1e6
        print(f'the API costs ${day:,.2f} a day: your own model pays after {args.cost / day:,.2f} days')
        return 0

    for compute in sizes, first_loss, plans, chats, merges:
        compute()
    if args.folder:
        shakespeare((args.folder / 'tinyshakespeare.txt').read_text(encoding='utf-8'))
        gpt2_pieces(Tokenizer.gpt2(args.folder))
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8') for path in PAGES}
    table = table_rows(texts['docs/claims.md'])
    wrong = report(table)
    elsewhere = [f'{page}: computed: {phrase}' for page, phrase in figures if phrase not in texts[page]]
    elsewhere += [f'{page}: {equation}' for page, text in texts.items() for equation in wrong_equations(text)]
    n = sum(len(equations(text)) for text in texts.values())
    print(f'{len(table)} claims, {wrong} differ; {n} equations and {len(figures)} counts on all pages, '
          f'{len(elsewhere)} differ')
    print('\n'.join(elsewhere))
    return 1 if wrong or elsewhere else 0


if __name__ == '__main__':
    sys.exit(main())
