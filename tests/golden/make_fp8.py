#!/usr/bin/env python3
"""What the 8-bit floating-point formats of src/ops/fp8.h mean, by the package ml_dtypes.

    make_fp8.py           writes fp8.h beside this script
    make_fp8.py --check   compares with it

fp8.h has, for each format, the values of all 256 codes, and the CRC-32 of the codes that all finite
bf16 numbers up to the format's largest value become (in the order of their bits)."""

import argparse
import pathlib
import sys
import zlib

import ml_dtypes
import numpy as np

FORMATS = {"e4m3": (ml_dtypes.float8_e4m3fn, 448.0), "e5m2": (ml_dtypes.float8_e5m2, 57344.0)}


def literal(x):
    if np.isnan(x):
        return "NAN"
    if np.isinf(x):
        return "-INFINITY" if x < 0 else "INFINITY"
    return float(x).hex().replace(".0000000000000p", "p").replace("000000000000p", "p") + "f"


def header():
    lines = ["/* fp8.h: written by make_fp8.py. */", "/* clang-format off */", "#ifndef CRIA_TESTS_GOLDEN_FP8_H",
             "#define CRIA_TESTS_GOLDEN_FP8_H", "#include <math.h>", "#include <stdint.h>"]
    numbers = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
    for name, (dtype, largest) in FORMATS.items():
        values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
        words = [literal(x) for x in values]
        lines.append(f"static const float golden_{name}[256] = {{")
        lines += ["    " + ", ".join(words[i:i + 8]) + "," for i in range(0, 256, 8)]
        lines.append("};")
        finite = numbers[np.abs(numbers) <= largest]
        crc = zlib.crc32(finite.astype(dtype).view(np.uint8).tobytes())
        lines.append(f"static const uint32_t golden_{name}_codes_crc = 0x{crc:08x};")
    return "\n".join(lines + ["#endif", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the file")
    args = parser.parse_args()
    path = pathlib.Path(__file__).resolve().parent / "fp8.h"
    if not args.check:
        path.write_text(header())
        return 0
    same = path.read_text() == header()
    print("file and computation agree" if same else "fp8.h differs")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
