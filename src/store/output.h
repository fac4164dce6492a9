/* Inside of an output that is being written.
 *
 * Rank 0 alone makes the file and its metadata, before and after; between, all ranks write rows into
 * storage that is there already, without HDF5 (transfer.h). So no metadata is written in parallel, no call is collective
 * but for the verdicts, and what fails on one rank alone leaves nobody waiting.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_OUTPUT_H
#define LSP_STORE_OUTPUT_H

#include "comm/context.h"
#include "store/checksum.h"

#include <limits.h>

typedef enum lsp_attribute_kind {
    LSP_ATTRIBUTE_TEXT,
    LSP_ATTRIBUTE_I64,
    LSP_ATTRIBUTE_F64
} lsp_attribute_kind;

/* One attribute, kept until commit (on rank 0). */
typedef struct lsp_attribute {
    struct lsp_attribute *next;
    int index; /* of the dataset; -1: the file */
    lsp_attribute_kind kind;
    char *name, *text;
    int64_t integer;
    double real;
} lsp_attribute;

typedef struct lsp_output_part {
    char *name;
    lsp_placing placing;
    int64_t origin;  /* of its first row in the file */
    lsp_tally tally; /* rows that this rank wrote */
} lsp_output_part;

struct lsp_output {
    lsp_context *ctx;
    char file[PATH_MAX];      /* the final name */
    char temporary[PATH_MAX]; /* in the same folder */
    bool overwrite, made;     /* made: the temporary file is there (rank 0) */
    bool keep_previous;       /* what stands under the final name becomes NAME.prev */
    int fd;                   /* of the temporary file; -1: none */
    lsp_output_part *parts;
    int count;
    lsp_attribute *attributes;
};

/* Local (rank 0). Chooses final and temporary name and refuses what cannot be created. */
lsp_status lsp_output_name(lsp_output *output, const char *file);

/* Local (rank 0). Free space is enough for `bytes` more in the folder; else LSP_ERR_FILE with both numbers. */
lsp_status lsp_output_check_space(lsp_output *output, int64_t bytes);

/* Local (rank 0). Reserves the file's blocks, where the file system can. */
lsp_status lsp_output_reserve(lsp_output *output, int64_t bytes);

/* Local (rank 0). Makes the temporary file with all datasets, scales and first attributes, and notes where each dataset
 * lies. *bytes: the file's size. */
lsp_status lsp_output_make(lsp_output *output, const lsp_output_dataset *datasets, int64_t *bytes);

/* Local (rank 0). Writes attributes and checksums into the file that all ranks have written. */
lsp_status lsp_output_finish(lsp_output *output, const uint64_t *checksums);

/* Local. Closes and frees; removes the temporary file when it was not renamed. */
void lsp_output_free(lsp_output *output);

#endif
