/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "app/wire.h"

#include "app/collect.h"
#include "base/memory.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

/* What every rank tells the others of itself. */
typedef struct door {
    char host[64];
    int port; /* 0: none */
} door;

/* A socket on any free port; its port, or 0. */
static int open_socket(lsp_wire *wire)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_ANY)}};
    socklen_t size = sizeof own;
    wire->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (wire->socket < 0) return 0;
    wire->open = true;
    if (bind(wire->socket, (struct sockaddr *)&own, sizeof own) != 0 ||
        getsockname(wire->socket, (struct sockaddr *)&own, &size) != 0)
        return 0;
    return ntohs(own.sin_port);
}

/* Where a door is, seen from here. */
static struct sockaddr_in find(const lsp_wire *wire, const door *to)
{
    struct sockaddr_in place = {.sin_family = AF_INET};
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *found = NULL;
    if (to->port == 0) return place;
    if (strcmp(to->host, wire->host) == 0) {
        place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (getaddrinfo(to->host, NULL, &hints, &found) == 0) {
        place.sin_addr = ((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_addr;
        freeaddrinfo(found);
    } else {
        return place;
    }
    place.sin_port = htons((uint16_t)to->port);
    return place;
}

bool lsp_wire_open(lsp_app *app, lsp_wire *wire)
{
    *wire = (lsp_wire){.socket = -1, .rank = app->layout.rank, .ranks = app->layout.ranks};
    door mine = {.port = 0};
    (void)gethostname(wire->host, sizeof wire->host - 1);
    (void)snprintf(mine.host, sizeof mine.host, "%s", wire->host);
    if (wire->ranks == 1) return true;
    mine.port = open_socket(wire);
    if (getrandom(&wire->token, sizeof wire->token, GRND_NONBLOCK) != (ssize_t)sizeof wire->token)
        wire->token = (uint64_t)getpid();
    lsp_collect_broadcast(app->comm, &wire->token, sizeof wire->token);
    door *doors = lsp_memory_zalloc(wire->ranks, sizeof *doors);
    wire->places = lsp_memory_zalloc(wire->ranks, sizeof *wire->places);
    bool all = lsp_collect_min_i64(app, doors && wire->places) != 0;
    if (all)
        lsp_collect_check(
            app->comm, MPI_Allgather(&mine, sizeof mine, MPI_BYTE, doors, sizeof mine, MPI_BYTE, app->comm));
    /* Those that are ever sent to: looking up the names of thousands would take long. */
    for (int far = 1; all && far < wire->ranks; far *= 2) {
        int rank = (wire->rank + far) % wire->ranks;
        wire->places[rank] = find(wire, &doors[rank]);
    }
    lsp_memory_free(doors);
    return all && mine.port != 0;
}

void lsp_wire_send(const lsp_wire *wire, int far, lsp_wire_news *news)
{
    if (wire->ranks == 1) return;
    const struct sockaddr_in *to = &wire->places[(wire->rank + far) % wire->ranks];
    news->token = wire->token;
    if (to->sin_port == 0) return;
    /* What is lost is told again. */
    (void)sendto(wire->socket, news, sizeof *news, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to,
                 sizeof *to);
}

bool lsp_wire_receive(const lsp_wire *wire, lsp_wire_news *news)
{
    for (;;) {
        ssize_t bytes = recv(wire->socket, news, sizeof *news, MSG_DONTWAIT);
        if (bytes < 0) return false;
        if (bytes != (ssize_t)sizeof *news || news->token != wire->token) continue;
        news->phase[sizeof news->phase - 1] = news->host[sizeof news->host - 1] = '\0';
        return true;
    }
}

void lsp_wire_close(lsp_wire *wire)
{
    if (wire->open) (void)close(wire->socket);
    lsp_memory_free(wire->places);
    wire->open = false;
    wire->places = NULL;
}
