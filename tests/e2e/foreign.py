"""Writers of safetensors and .npy files, by hand: no library of either format is needed, and wrong ones can be made.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import struct

import numpy as np
from common import bf16_bits

CODES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1"}


def tensor_bytes(x, dtype):
    return bf16_bits(x).astype("<u2").tobytes() if dtype == "BF16" else np.ascontiguousarray(x, CODES[dtype]).tobytes()


def safetensors(tensors, metadata=None, pad=True):
    """(header as a dictionary, data) of {name: (array, dtype)}."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (x, dtype) in tensors.items():
        block = tensor_bytes(x, dtype)
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    return header, data


def write_raw(path, header, data):
    """header: a dictionary, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    return path


def write_safetensors(path, tensors, metadata=None):
    header, data = safetensors(tensors, metadata)
    text = json.dumps(header).encode()
    return write_raw(path, text + b" " * (-len(text) % 8), data)


def npy_bytes(header, data, version=1):
    """header: the dictionary as text."""
    text = header.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def write_bytes(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path
