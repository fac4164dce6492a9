/* Opening files of other programs. SPDX-License-Identifier: BSD-3-Clause */
#include "store/foreign.h"

#include "base/checked.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES = 12 }; /* of either format, before the header's text */

static const char npy_magic[] = "\x93NUMPY";
enum { NPY_MAGIC = 6 };

/* ---- what a file is --------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *ending)
{
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && strcmp(name + length - tail, ending) == 0;
}

bool lsp_foreign_is(const char *file)
{
    char head[NPY_MAGIC];
    if (ends_with(file, ".safetensors") || ends_with(file, ".npy")) return true;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    bool npy =
        pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head && memcmp(head, npy_magic, NPY_MAGIC) == 0;
    (void)close(fd);
    return npy;
}

static lsp_status open_file(lsp_foreign *file, lsp_error *err)
{
    struct stat about;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &about) != 0)
        return lsp_error_set(err, LSP_ERR_FILE, "cannot open '%s': %s; check the path and its permissions",
                             file->path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return lsp_error_set(err, LSP_ERR_FILE,
                             "cannot open '%s': it is %s, not a file; name a .safetensors or .npy file",
                             file->path, S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe");
    file->file_bytes = (int64_t)about.st_size;
    if (file->file_bytes == 0)
        return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' is empty (0 bytes); make it again", file->path);
    return LSP_OK;
}

/* Formats that are met in the places of ours. */
static const char *other_format(const unsigned char *head, int64_t bytes)
{
    static const struct {
        const char *magic;
        int length;
        const char *what;
    } known[] = {{"\x89HDF\r\n\x1a\n", 8, "an HDF5 file, which needs no import"},
                 {"PK\x03\x04", 4, "a zip archive (.npz, or PyTorch's own format): save it as safetensors"},
                 {"GGUF", 4, "a GGUF file: convert it to safetensors"},
                 {"\x80\x02", 2, "a pickle of Python: save it as safetensors"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (bytes >= known[i].length && memcmp(head, known[i].magic, (size_t)known[i].length) == 0)
            return known[i].what;
    return NULL;
}

/* ---- the header ------------------------------------------------------------------------------------- */

static lsp_status read_at(const lsp_foreign *file, void *buffer, int64_t bytes, int64_t at, lsp_error *err)
{
    char *to = buffer;
    while (bytes > 0) {
        ssize_t got = pread(file->fd, to, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return lsp_error_set(err, LSP_ERR_FILE, "cannot read '%s': %s", file->path, strerror(errno));
        if (got == 0)
            return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' was cut while it was read", file->path);
        to += got;
        at += got;
        bytes -= got;
    }
    return LSP_OK;
}

/* Little-endian number of `count` bytes. */
static uint64_t number(const unsigned char *bytes, int count)
{
    uint64_t value = 0;
    for (int i = count; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

/* Where the header's text stands, for each format. */
typedef struct header_place {
    int64_t at, most;
    uint64_t length;
} header_place;

static lsp_status find_npy_header(const lsp_foreign *file, const unsigned char *head, int64_t have,
                                  header_place *place, lsp_error *err)
{
    int version = have > NPY_MAGIC ? head[NPY_MAGIC] : 0, wide = version > 1 ? 4 : 2;
    *place = (header_place){.at = NPY_MAGIC + 2 + wide, .most = LSP_NPY_HEADER_MOST};
    if (have < place->at)
        return lsp_error_set(err, LSP_ERR_CONTENT,
                             "'%s' is cut short: %lld bytes are not even a .npy's header", file->path,
                             (long long)file->file_bytes);
    if (version < 1 || version > 3)
        return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' is a .npy of version %d.%d; 1 to 3 are read",
                             file->path, version, head[NPY_MAGIC + 1]);
    place->length = number(head + NPY_MAGIC + 2, wide);
    return LSP_OK;
}

static lsp_status find_header(lsp_foreign *file, const unsigned char *head, int64_t have, header_place *place,
                              lsp_error *err)
{
    const char *other = other_format(head, have);
    bool npy = have >= NPY_MAGIC && memcmp(head, npy_magic, NPY_MAGIC) == 0;
    file->format = npy ? "npy" : "safetensors";
    if (npy) {
        lsp_status status = find_npy_header(file, head, have, place, err);
        if (status != LSP_OK) return status;
    } else if (other) {
        return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' is %s", file->path, other);
    } else if (ends_with(file->path, ".npy")) {
        return lsp_error_set(err, LSP_ERR_CONTENT,
                             "'%s' is not a .npy file: it does not begin with \\x93NUMPY; save it again with "
                             "numpy.save",
                             file->path);
    } else {
        *place = (header_place){.at = 8, .most = LSP_SAFETENSORS_HEADER_MOST};
        if (have < place->at)
            return lsp_error_set(err, LSP_ERR_CONTENT,
                                 "'%s' is cut short: %lld bytes do not hold the length of a safetensors "
                                 "header (8 bytes)",
                                 file->path, (long long)file->file_bytes);
        place->length = number(head, 8);
    }
    uint64_t left = (uint64_t)(file->file_bytes - place->at);
    if (place->length > left)
        return lsp_error_set(err, LSP_ERR_CONTENT,
                             "'%s' is cut short, or no %s file: its header should have %llu bytes, and %llu "
                             "follow in the file",
                             file->path, file->format, (unsigned long long)place->length,
                             (unsigned long long)left);
    if (place->length > (uint64_t)place->most)
        return lsp_error_set(err, LSP_ERR_CONTENT, "the header of '%s' has %llu bytes; at most %lld are read",
                             file->path, (unsigned long long)place->length, (long long)place->most);
    return LSP_OK;
}

static lsp_status read_header(lsp_foreign *file, lsp_error *err)
{
    unsigned char head[HEAD_BYTES];
    int64_t have = lsp_min(file->file_bytes, HEAD_BYTES);
    header_place place = {0};
    lsp_status status = read_at(file, head, have, 0, err);
    if (status == LSP_OK) status = find_header(file, head, have, &place, err);
    if (status != LSP_OK) return status;
    int64_t length = (int64_t)place.length, base = place.at + length;
    char *text = lsp_memory_alloc(length + 1, 1);
    if (!text) return lsp_error_set(err, LSP_ERR_LIMIT, "no memory for the header of '%s'", file->path);
    text[length] = '\0';
    status = read_at(file, text, length, place.at, err);
    if (status == LSP_OK)
        status = (strcmp(file->format, "npy") == 0 ? lsp_npy_parse : lsp_safetensors_parse)(
            text, length, base, file->file_bytes - base, file, err);
    lsp_memory_free(text);
    return status;
}

/* ---- the file --------------------------------------------------------------------------------------- */

lsp_status lsp_foreign_load(const char *path, lsp_foreign **out, lsp_error *err)
{
    lsp_foreign *file = lsp_memory_zalloc(1, sizeof *file);
    if (!file) return lsp_error_set(err, LSP_ERR_LIMIT, "no memory to open '%s'", path);
    file->fd = -1;
    file->path = lsp_memory_strdup(path);
    lsp_status status =
        file->path ? open_file(file, err) : lsp_error_set(err, LSP_ERR_LIMIT, "no memory to open '%s'", path);
    if (status == LSP_OK) status = read_header(file, err);
    if (status != LSP_OK)
        lsp_foreign_unload(file);
    else
        *out = file;
    return status;
}

void lsp_foreign_unload(lsp_foreign *file)
{
    if (!file) return;
    if (file->fd >= 0) (void)close(file->fd);
    for (int64_t i = 0; file->items && i < file->count; i++) lsp_memory_free(file->items[i].name);
    lsp_memory_free(file->items);
    lsp_memory_free(file->path);
    lsp_memory_free(file);
}

lsp_status lsp_foreign_open(lsp_context *ctx, const char *file, lsp_foreign **out)
{
    lsp_error err;
    lsp_status status = lsp_foreign_load(file, out, &err);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(ctx, status, "%s", err.text);
}

void lsp_foreign_close(lsp_foreign **file)
{
    lsp_foreign_unload(*file);
    *file = NULL;
}

/* ---- what it holds ---------------------------------------------------------------------------------- */

const char *lsp_foreign_format(const lsp_foreign *file)
{
    return file->format;
}

int64_t lsp_foreign_count(const lsp_foreign *file)
{
    return file->count;
}

int64_t lsp_foreign_bytes(const lsp_foreign *file)
{
    return file->file_bytes;
}

static lsp_dtype type_of(const lsp_foreign_code *code)
{
    if (code->kind == 'b') return LSP_BF16;
    if (code->kind != 'f') return LSP_I64;
    return code->bits == 16 ? LSP_F16 : code->bits == 32 ? LSP_F32 : LSP_F64;
}

lsp_foreign_tensor lsp_foreign_get(const lsp_foreign *file, int64_t index)
{
    const lsp_foreign_item *item = &file->items[index];
    lsp_foreign_tensor tensor = {.name = item->name,
                                 .type_name = item->type_name,
                                 .known = item->code.kind != 0,
                                 .type = type_of(&item->code),
                                 .axes = item->axes,
                                 .bytes = item->bytes};
    memcpy(tensor.dims, item->dims, sizeof tensor.dims);
    return tensor;
}

int64_t lsp_foreign_find(const lsp_foreign *file, const char *name)
{
    int64_t low = 0, high = file->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(file->items[middle].name, name);
        if (order == 0) return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

lsp_status lsp_foreign_measure(const lsp_foreign *file, const lsp_foreign_item *item, int64_t *bytes,
                               lsp_error *err)
{
    int64_t bits = item->code.bits;
    char text[LSP_FOREIGN_SHAPE_TEXT];
    for (int a = 0; a < item->axes; a++)
        if (!lsp_checked_mul(bits, item->dims[a], &bits))
            return lsp_error_set(err, LSP_ERR_CONTENT,
                                 "tensor '%s' of '%s' has shape %s, which is larger than a file can be",
                                 item->name, file->path, lsp_foreign_shape(item, text));
    if (bits % 8 != 0)
        return lsp_error_set(err, LSP_ERR_CONTENT, "tensor '%s' of '%s' (%s %s) does not fill whole bytes",
                             item->name, file->path, item->type_name, lsp_foreign_shape(item, text));
    *bytes = bits / 8;
    return LSP_OK;
}

const char *lsp_foreign_shape(const lsp_foreign_item *item, char *text)
{
    int at = snprintf(text, LSP_FOREIGN_SHAPE_TEXT, "[");
    for (int a = 0; a < item->axes; a++)
        at += snprintf(text + at, (size_t)(LSP_FOREIGN_SHAPE_TEXT - at), "%s%lld", a ? ", " : "",
                       (long long)item->dims[a]);
    (void)snprintf(text + at, (size_t)(LSP_FOREIGN_SHAPE_TEXT - at), "]");
    return text;
}

/* Bytes of the character that begins here (RFC 3629), 0 when none does. */
static int utf8_length(const unsigned char *at)
{
    if (*at < 0x80) return *at >= 0x20 && *at != 0x7F;
    int length = *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2;
    uint32_t code = *at & (0xFFu >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((at[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | (at[i] & 0x3Fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    bool surrogate = code >= 0xD800 && code < 0xE000, control = code < 0xA0;
    return *at >= 0xC2 && *at <= 0xF4 && code >= least[length] && code <= 0x10FFFF && !surrogate && !control
               ? length
               : 0;
}

bool lsp_foreign_printable(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at) {
        int length = utf8_length(at);
        if (length == 0) return false;
        at += length;
    }
    return true;
}
