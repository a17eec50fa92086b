"""
The depth behind the lesson, one idea a file, in five rooms. Each room is named after the file that it
serves first. A reader may skip all of them.

tokenizer/
    merges              merges of byte-pair encoding, learned many at a time
    chunks              texts cut into chunks, which are counted on all cores
    hf_tokenizer        tokenizer.json files of Hugging Face, read and written
    known_vocabularies  the vocabularies of GPT-2 and GPT-4
    tokenizer_report    does a tokenizer fit some texts?
prepare/                in the order in which a text meets them
    files               the files of a source, found on the disk or downloaded once
    reading             a file becomes text in the right encoding, or records of JSON
    conversions         records of many forms become texts, conversations or pairs
    samples             answers that were judged become records to train on
    clean               a text gets one form, whatever its source
    filters             why a document is not worth learning from
    text_models         how surprising a text is, and which language or quality it has
    personal_data       e-mail addresses, phone numbers and keys become placeholders
    duplicates          documents that say the same, found without comparing each with each
    infilling           documents are rearranged for filling in the middle
    corpus              documents on their way to the disk, in files that are never half written
    funnel              an account of what came in, what was dropped and why
    data_card           the report for people about what is left
    workers             many jobs, computed by several processes
train/
    planner             memory, days and price of a run, before it starts
    devices             the device and the precision of a run
    processes           one process for each device, and ways to share the work
    start               from nothing, from where a run stopped, or from the weights of another
    token_bins          the training tokens, and the order in which a run reads them
    streams             texts that are read while the model trains
    objectives          which tokens are hidden, and which the model must predict
    records             conversations and pairs as token ids, in batches
    copies              of a model: another config, more tokens, another tokenizer
    reward_model        a score instead of the next token
    optim               AdamW and Muon, the clipped gradient, the step
    adapters            LoRA: only small matrices train
    guards              which updates may reach the weights
    validation          the loss on data that the model does not train on
    checkpoint          files that are never half written
    journal             train.log, metrics.jsonl and the other files of a run
    texts               is a text Python, does it repeat itself?
    self_test           does a device compute what the CPU computes?
eval/
    problems            small Python problems with tests
    benchmarks          HumanEval, MBPP, GSM8K and files of your own
    sandbox             runs programs that a model wrote
    trial               one run of a program in the sandbox
    grading             how good an answer is, by tests, rules or a judge
    comparison          two models on the same problems
    tables              how results are printed
    report              the table of `bash run.sh`
    verdict             does a run go well?
sample/
    decoding            many answers in one batch, each as if it were alone
    asking              prompts become ids, and the ids of answers become text
    gaps                hidden tokens and spans are filled
    rollouts            answers for a step of rl.py
    rewards             what an answer earns: tests, a number, a function of yours
    writer              a thread writes for many readers, who come and go
    http_server         a server for a page and for OpenAI's API
    openai_api          requests and answers in OpenAI's form
    hf_model            folders of Hugging Face, read and written
    gguf_file           a file for llama.cpp
    model_card          a folder to publish, with its card
"""
