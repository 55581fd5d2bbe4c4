"""sample_order.py: the random numbers and the shuffle of data/README.md, computed from that text."""


def philox(seed, stream, index):
    c = [index % 2**32, index >> 32, stream % 2**32, stream >> 32]
    k = [seed % 2**32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b % 2**32, a >> 32 ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c[0] + 2**32 * c[1]


def permute(S, seed, stream, x):
    """Where number x of S lies in the order of this stream."""
    h = 1
    while 4**h < S:
        h += 1
    while True:
        left, right = x >> h, x % 2**h
        for r in range(4):
            left, right = right, left ^ philox(seed, stream, 2**56 * r ^ right) % 2**h
        x = left * 2**h + right
        if x < S:
            return x
