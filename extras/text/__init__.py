"""
What clean.py and chats.py read, mask, filter and audit. Each line: a file, the script or option
that imports it, and what it does.

pii                 clean.py, chats.py --pii, on by default: masks addresses and keys; tlds.txt
markup              clean.py --markup: removes HTML, LaTeX and images from text, and repairs
                    wrongly decoded characters
formats             files.py: reads .parquet, .csv, .tsv, .ipynb, .json, .zst
hub                 files.py, for --source=shakespeare, codeparrot, hf:OWNER/NAME: downloads
filters             clean.py --url_block, --licenses, --decontaminate; it imports the
                    next two
text_quality        clean.py --languages (languages.txt), --perplexity_reference, --quality_good,
                    --quality_bad
audit               clean.py --audit: a sample of documents to review, and the data card
streaming           train.py --streaming: tokenizes text while it is read
chat_schemas        chats.py: converts other schemas of conversations and preference pairs
preference_pairs    chats.py --prefer: pairs or conversations from answers that eval.py graded
"""
