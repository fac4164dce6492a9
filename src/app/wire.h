/* Datagrams between the ranks' watchdogs: they arrive when MPI hangs, or get lost.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_WIRE_H
#define LSP_APP_WIRE_H

#include "app/app.h"

#include <netinet/in.h>

typedef struct lsp_wire_news {
    uint64_t token; /* of the run */
    int rank;
    bool leaves;
    bool judged; /* some rank has told why the run ends */
    double age;  /* seconds since any rank came on, as far as this one knows */
    int chain;   /* ranks before this one that hear each other, itself included, up to all */
    char phase[40], host[64];
} lsp_wire_news;

typedef struct lsp_wire {
    int socket, rank, ranks;
    bool open;
    uint64_t token;
    char host[64];
    struct sockaddr_in *places; /* [ranks]; port 0: unknown */
} lsp_wire;

/* Collective. False when this rank has no socket. */
bool lsp_wire_open(lsp_app *app, lsp_wire *wire);

/* Local. Sends to the rank that is `far` ranks further, around. */
void lsp_wire_send(const lsp_wire *wire, int far, lsp_wire_news *news);

/* Local. The next that has come; false when there is none. */
bool lsp_wire_receive(const lsp_wire *wire, lsp_wire_news *news);

void lsp_wire_close(lsp_wire *wire);

#endif
