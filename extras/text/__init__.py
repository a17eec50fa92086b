"""
What clean.py and chats.py read, mask, filter and look at. A line a file: who opens it, and why.

pii                 clean.py, chats.py --pii, which is on: addresses and keys are masked; tlds.txt
markup              clean.py --markup: HTML, LaTeX and pictures in a text go, and wrong letters
                    are repaired
formats             files.py: .parquet, .csv, .tsv, .ipynb, .json, .zst
hub                 files.py, for --source=shakespeare, codeparrot, hf:OWNER/NAME: downloads
filters             clean.py --url_block, --licenses, --decontaminate; it opens the
                    next two
text_quality        clean.py --languages (languages.txt), --perplexity_reference, --quality_good,
                    --quality_bad
audit               clean.py --audit: documents to look at, and the data card
streaming           train.py --streaming: text is tokenized while it is read
chat_schemas        chats.py: more forms in which people keep conversations and pairs
preference_pairs    chats.py --prefer: answers that eval.py judged become pairs or conversations
"""
