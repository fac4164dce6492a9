/* Runs the fuzz target on mutations of small files: the same ones every time.
 *   mutate [ROUNDS] [FOLDER]     FOLDER: writes the files that it starts from, for libFuzzer, and ends
 * SPDX-License-Identifier: BSD-3-Clause */
#include "fuzz_foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

/* A file of one of the formats: the header's text, then data. */
typedef struct sample {
    int version; /* of a .npy; 0: safetensors */
    char text[MOST];
    size_t length, data;
} sample;

static const char *const headers[] = {
    "{\"__metadata__\":{\"format\":\"pt\"},\"a.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_"
    "offsets\":[0,24]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},\"c\":{\"dtype\":\"I64\",\"shape\":[],"
    "\"data_offsets\":[32,40]}}   ",
    "{\"x\":{\"dtype\":\"F16\",\"shape\":[2,1,3,2],\"data_offsets\":[0,24]},\"y\":{\"dtype\":\"F4\","
    "\"shape\":[2,4],"
    "\"data_offsets\":[24,28]},\"z\":{\"dtype\":\"U8\",\"shape\":[12],\"data_offsets\":[28,40]}}",
    "{\"e\":{\"dtype\":\"F64\",\"shape\":[0,9],\"data_offsets\":[0,0]},\"f\":{\"dtype\":\"F64\",\"shape\":[5,"
    "1],"
    "\"data_offsets\":[0,40]}}",
};
static const char *const arrays[] = {
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5), }    \n",
    "{'descr': '>f8', 'fortran_order': True, 'shape': (1, 5, 1), }\n",
    "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 1, 5, 2), }\n",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (40,), }\n",
};
enum { HEADERS = sizeof headers / sizeof headers[0], ARRAYS = sizeof arrays / sizeof arrays[0] };
enum { SEEDS = HEADERS + ARRAYS, DATA = 40 };

static void make_seed(int index, sample *to)
{
    const char *text = index < HEADERS ? headers[index] : arrays[index - HEADERS];
    to->version = index < HEADERS ? 0 : 1 + index % 3;
    to->length = strlen(text);
    to->data = DATA;
    memcpy(to->text, text, to->length);
}

/* The file's bytes, [2 * MOST]; returns their number. */
static size_t assemble(const sample *from, uint8_t *bytes)
{
    size_t head = from->version == 0 ? 8 : from->version == 1 ? 10 : 12, at = from->version == 0 ? 0 : 8;
    memset(bytes, 0, head);
    if (from->version > 0) memcpy(bytes, "\x93NUMPY", 6);
    if (from->version > 0) bytes[6] = (uint8_t)from->version;
    bytes[at] = (uint8_t)(from->length & 0xFF);
    bytes[at + 1] = (uint8_t)(from->length >> 8);
    memcpy(bytes + head, from->text, from->length);
    for (size_t i = 0; i < from->data; i++) bytes[head + from->length + i] = (uint8_t)(37 * i);
    return head + from->length + from->data;
}

/* ---- changes ---------------------------------------------------------------------------------------- */

/* Marsaglia's xorshift. */
static size_t below(uint64_t *state, size_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return limit ? (size_t)(*state % limit) : 0;
}

/* Replaces `gone` bytes at `at` by a word. */
static void replace(sample *s, size_t at, size_t gone, const char *word, size_t length)
{
    if (s->length - gone + length > MOST) return;
    memmove(s->text + at + length, s->text + at + gone, s->length - at - gone);
    memcpy(s->text + at, word, length);
    s->length += length - gone;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Pieces that mean something in one of the formats, instead of some bytes or between them. */
static void change_text(sample *s, uint64_t *state)
{
    static const char *const words[] = {"0",
                                        "-1",
                                        "9007199254740993",
                                        "18446744073709551616",
                                        "1e400",
                                        "[",
                                        "]",
                                        "{",
                                        "}",
                                        "\"",
                                        "'",
                                        "(",
                                        ")",
                                        ",",
                                        "\\u0000",
                                        "\\",
                                        "\"dtype\":",
                                        "\"shape\":[",
                                        "F32",
                                        "F4",
                                        "'descr'",
                                        "True",
                                        "<f4",
                                        ">i8",
                                        "L",
                                        "null",
                                        "\"a\":{}",
                                        "\xff",
                                        "\n",
                                        "8",
                                        "24",
                                        "40",
                                        "2",
                                        "1",
                                        "__metadata__"};
    size_t at = below(state, s->length + 1), left = s->length - at;
    char piece[64];
    switch (below(state, 5)) {
    case 0: { /* a digit becomes another: shapes and offsets that lie a little */
        const char digit = (char)('0' + below(state, 10));
        for (size_t i = at; i < s->length; i++) {
            if (s->text[i] < '0' || s->text[i] > '9') continue;
            s->text[i] = digit;
            return;
        }
        return;
    }
    case 1: /* a piece of the text again, elsewhere */
        left = at_most(below(state, sizeof piece), left);
        memcpy(piece, s->text + at, left);
        replace(s, below(state, s->length + 1), 0, piece, left);
        return;
    case 2: replace(s, at, at_most(below(state, 16), left), "", 0); return;
    default: {
        const char *word = words[below(state, sizeof words / sizeof words[0])];
        replace(s, at, at_most(below(state, 3), left), word, strlen(word));
    }
    }
}

static size_t mutate(uint64_t *state, uint8_t *bytes)
{
    sample s;
    make_seed((int)below(state, SEEDS), &s);
    for (size_t i = below(state, 4); i > 0; i--) change_text(&s, state);
    if (below(state, 4) == 0) s.data = below(state, 2 * DATA);
    size_t size = assemble(&s, bytes);
    if (below(state, 4) == 0)
        for (size_t i = 1 + below(state, 4); i > 0; i--)
            bytes[below(state, size)] = (uint8_t)below(state, 256);
    return below(state, 8) == 0 ? below(state, size + 1) : size;
}

/* ---- the program ------------------------------------------------------------------------------------ */

static int write_seeds(const char *folder)
{
    uint8_t bytes[2 * MOST];
    char name[512];
    for (int i = 0; i < SEEDS; i++) {
        sample s;
        make_seed(i, &s);
        size_t size = assemble(&s, bytes);
        (void)snprintf(name, sizeof name, "%s/seed-%d", folder, i);
        FILE *stream = fopen(name, "wb");
        if (!stream || fwrite(bytes, 1, size, stream) != size || fclose(stream) != 0) return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
    if (argc > 2) return write_seeds(argv[2]);
    uint64_t state = 88172645463325252u;
    long taken = 0;
    for (long round = 0; round < rounds; round++) {
        static uint8_t bytes[2 * MOST];
        size_t size = mutate(&state, bytes);
        taken += LLVMFuzzerTestOneInput(bytes, size) == 0;
    }
    (void)printf("%ld files, none of them did harm; %ld of them were as they should be\n", taken,
                 fuzz_foreign_taken());
    /* A driver whose files are all refused at the door, or never, tests nothing. */
    return fuzz_foreign_taken() > rounds / 20 && fuzz_foreign_taken() < rounds * 19 / 20 ? 0 : 1;
}
