/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TESTS_FUZZ_FOREIGN_H
#define LSP_TESTS_FUZZ_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer's entry: returns 0, or aborts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many inputs were taken for files so far. */
long fuzz_foreign_taken(void);

#endif
