/* What `import` takes from which file, and where it goes. Everything here is found by each rank for itself, alike.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_IMPORT_H
#define LSP_APP_IMPORT_H

#include "app/app.h"

#include <longspan/foreign.h>

enum {
    LSP_IMPORT_NAME = LSP_FOREIGN_NAME_MOST + 256, /* bytes of a tensor's whole name */
    LSP_IMPORT_PARTS = 3,                          /* q, k and v */
    LSP_IMPORT_SHOWN = 100,                        /* bytes of a name in a message */
    LSP_IMPORT_LIST = 400                          /* bytes of a list of names in a message */
};

/* A tensor of a file. file < 0: none; as part of a dataset: zeros. */
typedef struct lsp_import_ref {
    int file;
    int64_t tensor;
} lsp_import_ref;

typedef struct lsp_import_part {
    lsp_import_ref from;
    bool transposed;
    int64_t at, rows; /* rows of the dataset */
} lsp_import_part;

/* A dataset of the output: its parts stand one below the other. */
typedef struct lsp_import_dataset {
    char *path; /* owned */
    lsp_dtype type;
    int axes, part_count;
    int64_t dims[4];
    lsp_import_part parts[LSP_IMPORT_PARTS];
    uint64_t checksum;
} lsp_import_dataset;

typedef struct lsp_import_file {
    char *path; /* owned */
    lsp_foreign *file;
    bool array; /* of import.arrays */
} lsp_import_file;

/* The parts that a layer's attention is made of. */
typedef enum lsp_import_role {
    LSP_PART_QKV_WEIGHT, /* either this or the next three */
    LSP_PART_Q_WEIGHT,
    LSP_PART_K_WEIGHT,
    LSP_PART_V_WEIGHT,
    LSP_PART_OUT_WEIGHT,
    LSP_PART_QKV_BIAS,
    LSP_PART_Q_BIAS,
    LSP_PART_K_BIAS,
    LSP_PART_V_BIAS,
    LSP_PART_OUT_BIAS,
    LSP_PART_Q_NORM,
    LSP_PART_K_NORM,
    LSP_PART_COUNT
} lsp_import_role;

/* A layer's attention, as it was found. */
typedef struct lsp_import_layer {
    const char *names; /* of the layout; NULL: no layer is taken */
    bool transposed;   /* weights stand as [input, output] */
    char prefix[LSP_IMPORT_NAME];
    lsp_import_ref roles[LSP_PART_COUNT];
    int64_t q_rows, kv_rows, d_model;
    int64_t heads, kv_heads, head_dim; /* 0: not known */
} lsp_import_layer;

typedef struct lsp_import {
    lsp_app *app;
    lsp_import_file *files;
    int file_count;
    lsp_import_layer layer;
    lsp_import_dataset *datasets;
    int count, room;
} lsp_import;

/* ---- files (import_files.c) ------------------------------------------------------------------------- */

/* Local. Opens the files of import.source and import.arrays. */
lsp_status lsp_import_open(lsp_import *import);
void lsp_import_close(lsp_import *import);

/* Local. The tensor called so in import.source; file -1 when there is none. The one of a ref. */
lsp_import_ref lsp_import_lookup(const lsp_import *import, const char *name);
lsp_foreign_tensor lsp_import_tensor(const lsp_import *import, lsp_import_ref ref);

/* Local. The name in import.source that is most like this one; NULL when there is no tensor. */
const char *lsp_import_nearest(const lsp_import *import, const char *name);

/* Local. The next item of a list with commas, without blanks around it (lsp_memory_free), *list then behind it; NULL at
 * the end of the list. *status: LSP_ERR_LIMIT without memory. */
char *lsp_import_item(lsp_import *import, const char **list, lsp_status *status);

/* Local. Room for one dataset more, with the axes and sizes of `dims`; NULL with *status set. */
lsp_import_dataset *lsp_import_add(lsp_import *import, const char *path, int axes, const int64_t *dims,
                                   lsp_status *status);

/* Local. "[3, 4] F32"; returns text. */
enum { LSP_IMPORT_SHAPE = 22 * LSP_FOREIGN_AXES + 32 };
const char *lsp_import_shape(const lsp_foreign_tensor *tensor, char *text);

/* ---- what is taken ---------------------------------------------------------------------------------- */

/* Local. Finds the layer that names, prefix and layer ask for, and its tensors (import_names.c). */
lsp_status lsp_import_find_layer(lsp_import *import);

/* Local. Checks that they fit each other, and adds their datasets (import_layer.c). */
lsp_status lsp_import_take_layer(lsp_import *import);

/* Local. Adds the datasets of import.tensors and import.arrays (import_copy.c). */
lsp_status lsp_import_take_copies(lsp_import *import);

/* ---- telling (import_report.c) ---------------------------------------------------------------------- */

/* Local. Prints what a file holds. */
void lsp_import_list(const lsp_foreign *file, const char *path);

/* Collective. import.list = yes. Summary and JSON of an import. */
lsp_status lsp_import_report_list(lsp_import *import);
lsp_status lsp_import_report(lsp_import *import);

#endif
