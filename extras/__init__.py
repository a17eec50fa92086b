"""
Options of the scripts at the top, one idea a file. A script opens a file of this folder when a flag
asks for it, and works without the folder as long as no flag does.

what prepare.py opens: --kind=sft or preference
    conversations       conversations for sft.py, and the rules for them
    messages            the forms that conversations have, as one
    pairs               pairs of answers, and single ones with a thumb up or down
    judged_answers      --prefer: answers that eval.py judged become pairs or conversations
    next_steps          the command that trains on them, and what must be made before
what prepare.py opens for a flag
    hub                 --source=shakespeare, codeparrot, hf:OWNER/NAME; packed formats
    licences            --licences: only documents with one of these licenses
    url_lists           --url_block, --url_allow: domains that are dropped or never dropped
    languages           --languages: what is clearly in another language goes
    perplexity          --perplexity_reference: boilerplate and noise go
    quality             --quality_good, --quality_bad: a classifier of your own examples
    toxic_words         --toxic_words: texts with many words of a list go
    decontaminate       --decontaminate: what shares 13 words in a row with a benchmark goes
    simhash             --dedup=simhash: near-copies by one number of 64 bits
    audit               --audit: documents to look at, and the data card
    weights             sources = {...}, --temperature: how often a run reads each source
    text_shards         --write=text: shards of text, for train.py --streaming
    repair              letters that were decoded wrongly, and LaTeX; opened when it is there
    records             records of files as prepare.py reads them, for other programs
what train.py opens
    objectives          which tokens are hidden, and which the model must predict
    streaming           text is tokenized while it is read
    mixture             each source is read as often as it weighs
    sharding            each process holds a part of the gradients, moments and weights
    muon                an optimizer for the matrices of the blocks
    planner             memory, days and price of a run, before it starts
what sft.py and dpo.py open
    lora                only small matrices train, beside the weights
    replay              sft.py also reads base text, and measures how much of it is forgotten
    reward_model        dpo.py trains a head that scores answers
what rl.py opens
    reward_tests        an answer earns 1 if its program passes the tests
    reward_scores       an answer earns what a reward model says
what eval.py opens for --tasks=problems, humaneval, own, ...
    answers             a model answers many prompts at a time
    learned             a command: do a model's texts look like those of the data?
what rl.py, prepare.py, sample.py and eval.py need for programs and their tests
    problems            small Python problems with tests
    questions           one form for HumanEval, MBPP, GSM8K and your own
    grading             how good an answer is: tests, rules, a judge
    sandbox             runs programs that a model wrote
    trial               one run of a program in the sandbox
    crossing            what the program and its tests say to each other
what tokenizer.py opens
    bpe                 training is faster if this file is there: many merges at a time, on all cores
    fit                 --report, --pattern, gpt2(): does a tokenizer fit a text? next to GPT-2's and GPT-4's
what sample.py opens
    server              a page and OpenAI's API for the programs of this machine: --serve=8000
    api_fields          what a client of the server asks is read, or refused
    html_file           the page as one file, whose models answer without Python: --export=html
    page.html, demo.js  the page; the model once more, in JavaScript
    model_card          a folder to publish, with a card: --export=hf
    gguf_file           a file for llama.cpp: --export=gguf
    gaps                models of --objective=mlm or span: hidden tokens and spans are filled
what run.sh needs
    chain_report        a command: the table of what each stage can do
models
    hf_model            folders of Hugging Face, read and written
    hf_tokenizer        tokenizer.json files of Hugging Face, read and written
    longer_context      a command: a model reads more tokens at a time
    new_vocabulary      a command: a model gets another tokenizer
"""
