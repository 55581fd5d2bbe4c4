#!/usr/bin/env python3
"""Writes a table of what `cria plan` predicts over ranks and sequence lengths.

    scripts/plan_scaling.py configs/llama-1b-example.yaml [key=value ...]
        [--ranks 8,64] [--tokens 128k,1M]

The table is Markdown. It is simulation: plans are made for ranks that are not
there, documents are drawn unless data.train can be read, and times come from
the cost model. Of a few chunk sizes the one with the least predicted time is
shown."""
import json
import subprocess
import sys

from runlog import Parser, fail

UNITS = {'k': 1 << 10, 'M': 1 << 20}
CHUNKS_PER_RANK = (8, 32, 128)
SMALLEST_SHARD = 1024  # tokens of a rank


def tokens(text):
    """8k, 1M"""
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def numbers(text):
    return [int(word) for word in text.split(',')]


def lengths(text):
    return [(word, tokens(word)) for word in text.split(',')]


def plan(args, ranks, length, chunk):
    nodes = ['--ranks-per-node', str(args.ranks_per_node)] if ranks > args.ranks_per_node else []
    command = [args.cria, 'plan', args.config, *args.override, f'parallel.cp={ranks}',
               f'model.seq_len={length}', f'parallel.chunk_size={chunk}', '--json', *nodes]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def seconds(backend, what='seconds'):
    return backend['forward'][what] + backend['backward'][what]


def best_plan(args, ranks, length):
    sizes = {max(128, length // (ranks * n)) for n in CHUNKS_PER_RANK}
    plans = [plan(args, ranks, length, size) for size in sorted(sizes)]
    return min(plans, key=lambda p: seconds(p['plan']['backends'][0]))


def row(args, ranks, length, text):
    report = best_plan(args, ranks, length)
    p = report['plan']
    backends = {b['backend']: b for b in p['backends']}
    chosen, ring = p['backends'][0], backends['ring']
    moved = sum(p['bytes'].values()) / sum(p['ring_bytes'].values())
    return (f"| {ranks:,} | {text} | {p['chunk']:,} | {100 * p['imbalance']:.1f} % "
            f"| {100 * moved:.2g} % | {p['degree']} | {1e3 * seconds(chosen):.3g} "
            f"| {100 * seconds(chosen, 'exposed') / seconds(chosen):.0f} % "
            f"| {1e3 * seconds(ring):.3g} | {report['plan_seconds']:.2g} |")


def main():
    parser = Parser(__doc__)
    parser.add_argument('config', metavar='CONFIG', help='a YAML file')
    parser.add_argument('override', nargs='*', metavar='key=value', help='overrides the file')
    parser.add_argument('--ranks', type=numbers, default='8,64,256,1024,8192', help='default: %(default)s')
    parser.add_argument('--tokens', type=lengths, default='128k,1M,8M,64M', help='of a sequence; default: %(default)s')
    parser.add_argument('--ranks-per-node', type=int, default=8, help='default: 8')
    parser.add_argument('--cria', default='build/cria', help='the program; default: build/cria')
    args = parser.parse_intermixed_args()
    print('| ranks | tokens | chunk | imbalance | bytes of ring | degree | layer ms | exposed '
          '| ring ms | planned in s |')
    print('|---:' * 10 + '|')
    for ranks in args.ranks:
        for text, length in args.tokens:
            if length >= ranks * SMALLEST_SHARD:
                print(row(args, ranks, length, text), flush=True)


if __name__ == '__main__':
    try:
        main()
    except subprocess.CalledProcessError as error:  # cria has said why
        sys.exit(error.returncode if error.returncode > 0 else 3)
    except OSError as error:
        fail(f"cannot start {error.filename}: {error.strerror}", 3)
