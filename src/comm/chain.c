/* A pipelined chain of point-to-point messages. SPDX-License-Identifier: BSD-3-Clause */
#include "comm/chain.h"

#include "base/checked.h"
#include "base/memory.h"
#include "comm/rows.h"

/* 256 KiB: the time of a segment (20 us at 100 Gb/s) is well above a message's latency, and a chain of
 * P ranks adds P - 2 of them to a panel of some MiB. */
enum { SEGMENT_BYTES = 1 << 18 };

static int64_t segment_bytes = SEGMENT_BYTES;

int64_t lsp_chain_set_segment_bytes(int64_t bytes)
{
    int64_t before = segment_bytes;
    segment_bytes = bytes > 0 ? bytes : SEGMENT_BYTES;
    return before;
}

int64_t lsp_chain_segment_bytes(void)
{
    int64_t limit = lsp_rows_set_limit(0);
    lsp_rows_set_limit(limit);
    return lsp_min(segment_bytes, limit);
}

int lsp_chain_reserve(lsp_chain *chain, int64_t bytes)
{
    int segments = 0;
    if (!lsp_checked_int(lsp_ceil_div(bytes, lsp_chain_segment_bytes()), &segments)) return MPI_ERR_COUNT;
    if (segments <= chain->capacity) return MPI_SUCCESS;
    lsp_memory_free(chain->receives);
    chain->receives = lsp_memory_alloc(2 * (int64_t)segments, sizeof *chain->receives);
    chain->capacity = chain->receives ? segments : 0;
    chain->sends = chain->receives ? chain->receives + segments : NULL;
    return chain->receives ? MPI_SUCCESS : MPI_ERR_NO_MEM;
}

static int64_t segment_size(const lsp_chain *chain, int segment)
{
    return lsp_min(chain->segment_bytes, chain->bytes - segment * chain->segment_bytes);
}

static int forward(lsp_chain *chain)
{
    int code = MPI_SUCCESS;
    if (chain->next < 0) chain->forwarded = chain->received;
    for (; code == MPI_SUCCESS && chain->forwarded < chain->received; chain->forwarded++)
        code = lsp_rows_isend(chain->data + chain->forwarded * chain->segment_bytes,
                              segment_size(chain, chain->forwarded), chain->next, chain->tag, chain->comm,
                              &chain->sends[chain->forwarded]);
    return code;
}

int lsp_chain_start(lsp_chain *chain, void *data, int64_t bytes, int previous, int next, int tag,
                    MPI_Comm comm)
{
    chain->segment_bytes = lsp_chain_segment_bytes();
    int segments = 0;
    if (!lsp_checked_int(lsp_ceil_div(bytes, chain->segment_bytes), &segments)) return MPI_ERR_COUNT;
    if (segments > chain->capacity) return MPI_ERR_COUNT;
    int code = MPI_SUCCESS;
    chain->data = data;
    chain->bytes = bytes;
    chain->segments = segments;
    chain->forwarded = 0;
    chain->waiting_send = 0;
    chain->previous = previous;
    chain->next = next;
    chain->tag = tag;
    chain->comm = comm;
    chain->received = previous < 0 ? segments : 0;
    for (int s = 0; s < segments; s++) chain->sends[s] = MPI_REQUEST_NULL;
    for (int s = 0; previous >= 0 && code == MPI_SUCCESS && s < segments; s++)
        code = lsp_rows_irecv(chain->data + s * chain->segment_bytes, segment_size(chain, s), previous, tag,
                              comm, &chain->receives[s]);
    return code == MPI_SUCCESS ? forward(chain) : code;
}

int lsp_chain_progress(lsp_chain *chain)
{
    int code = MPI_SUCCESS, done = 1;
    while (code == MPI_SUCCESS && done && chain->received < chain->segments) {
        code = MPI_Test(&chain->receives[chain->received], &done, MPI_STATUS_IGNORE);
        chain->received += code == MPI_SUCCESS && done;
    }
    if (code == MPI_SUCCESS) code = forward(chain);
    done = 1;
    while (code == MPI_SUCCESS && done && chain->next >= 0 && chain->waiting_send < chain->forwarded) {
        code = MPI_Test(&chain->sends[chain->waiting_send], &done, MPI_STATUS_IGNORE);
        chain->waiting_send += code == MPI_SUCCESS && done;
    }
    return code;
}

bool lsp_chain_arrived(const lsp_chain *chain)
{
    return chain->received == chain->segments;
}

bool lsp_chain_idle(const lsp_chain *chain)
{
    return chain->received == chain->segments && (chain->next < 0 || chain->waiting_send == chain->segments);
}

void lsp_chain_free(lsp_chain *chain)
{
    lsp_memory_free(chain->receives);
    chain->receives = chain->sends = NULL;
    chain->capacity = 0;
}
