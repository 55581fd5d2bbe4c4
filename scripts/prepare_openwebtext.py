#!/usr/bin/env python3
"""prepare.py with one other default: nothing is held out unless --val says so.

    scripts/prepare_openwebtext.py --tokenizer gpt2 --val 0.0005 \\
        --out data/openwebtext/ 'owt/*.parquet'

scripts/prepare.py --help explains the options."""
from prepare import main

if __name__ == "__main__":
    main(__doc__, val=0)
