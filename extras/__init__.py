"""
Find the file behind a flag here: each file is what one user wants, and a flag of the script above
it opens it. The scripts work without this folder as long as no flag asks for a file of it.

clean.py
    personal            --pii, which is on, in chats.py, too: addresses and keys are masked
    markup              --markup: HTML and LaTeX go, and wrong letters are repaired
    hub                 --source=shakespeare, codeparrot, hf:OWNER/NAME: downloads
    formats             .parquet, .csv, .tsv, .ipynb, .zst, .bz2, .xz; in chats.py, too
    filters             --url_block, --licenses, --toxic_words, --decontaminate, --dedup=simhash
    text_quality        --languages, --perplexity_reference, --quality_good, --quality_bad
    audit               --audit: documents to look at, and the data card
    mixture             sources = {...}: each source is read as often as it weighs; sft.py --replay
chats.py
    forms               more forms in which people keep conversations and pairs
    judged_answers      --prefer: answers that eval.py judged become pairs or conversations
tokenizer.py
    bpe                 training is faster if this file is there: many merges at a time
train.py
    records             --streaming: text is tokenized while it is read
    objectives          --objective=mlm, span, --document_mask: what is hidden
    sharding            --shard: each process holds a part of the gradients, moments and weights
    muon                --optimizer=muon: for the matrices of the blocks
    planner             --plan: memory, days and price of a run, before it starts
sft.py, dpo.py and rl.py
    lora                sft.py --lora: only small matrices train, beside the weights
    rewards             rl.py --reward=problems, FILE.jsonl, FOLDER: tests, rules or a reward model
eval.py, and who else asks questions and runs programs
    answers             --tasks: a model answers many prompts at a time
    problems            --tasks=problems: small Python problems with tests; chats.py writes examples
    questions           --data: one form for HumanEval, MBPP, GSM8K and your own
    grading             --tasks: how good an answer is, by tests or rules
    sandbox             --allow_code_execution: runs programs that a model wrote
models of others
    hf_model            --init_from, --ckpt=FOLDER of Hugging Face: read and written
    hf_tokenizer        tokenizer.json files of Hugging Face: read and written
    gguf                files of llama.cpp, ollama and LM Studio: read, and written by export
commands: python -m extras.NAME --help
    server              a page and OpenAI's API for the programs of this machine
    export              --to=hf, gguf, html: a folder to publish, a file for llama.cpp, a page
    page.html           of server and of export: the page
    demo.js             of export: the model once more, in JavaScript
    compare             is the second of two models better, and at what?
    judge               a command grades a model's answers
    fill                a model that was trained with --objective=mlm or span fills gaps
    fit                 does a tokenizer fit a text? next to GPT-2's; --pattern trains another
    chain_report        the table of what each stage of run.sh can do
    longer_context      a model reads more tokens at a time
"""
