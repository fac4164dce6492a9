/* The names that a layer's attention has in models, and finding it by them. SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Names behind the prefix, alternatives separated by |. */
typedef struct layout {
    const char *name;
    bool transposed;
    const char *roles[LSP_PART_COUNT];
    const char *foreign; /* what changes the result and this layer does not have */
} layout;

static const layout layouts[] = {
    {.name = "bert", /* also ViT, DistilBERT */
     .roles = {[LSP_PART_Q_WEIGHT] = "self.query.weight|attention.query.weight|q_lin.weight",
               [LSP_PART_K_WEIGHT] = "self.key.weight|attention.key.weight|k_lin.weight",
               [LSP_PART_V_WEIGHT] = "self.value.weight|attention.value.weight|v_lin.weight",
               [LSP_PART_OUT_WEIGHT] = "output.dense.weight|out_lin.weight",
               [LSP_PART_Q_BIAS] = "self.query.bias|attention.query.bias|q_lin.bias",
               [LSP_PART_K_BIAS] = "self.key.bias|attention.key.bias|k_lin.bias",
               [LSP_PART_V_BIAS] = "self.value.bias|attention.value.bias|v_lin.bias",
               [LSP_PART_OUT_BIAS] = "output.dense.bias|out_lin.bias"},
     .foreign = "self.distance_embedding.weight"},
    {.name = "llama", /* also Mistral, Qwen, and, with out_proj, BART, OPT, CLIP, Whisper */
     .roles = {[LSP_PART_Q_WEIGHT] = "q_proj.weight",
               [LSP_PART_K_WEIGHT] = "k_proj.weight",
               [LSP_PART_V_WEIGHT] = "v_proj.weight",
               [LSP_PART_OUT_WEIGHT] = "o_proj.weight|out_proj.weight",
               [LSP_PART_Q_BIAS] = "q_proj.bias",
               [LSP_PART_K_BIAS] = "k_proj.bias",
               [LSP_PART_V_BIAS] = "v_proj.bias",
               [LSP_PART_OUT_BIAS] = "o_proj.bias|out_proj.bias",
               [LSP_PART_Q_NORM] = "q_norm.weight",
               [LSP_PART_K_NORM] = "k_norm.weight"},
     .foreign = "sinks|q_proj.lora_A.weight|q_proj.qweight|q_proj.weight_scale"},
    {.name = "gpt2",
     .transposed = true,
     .roles = {[LSP_PART_QKV_WEIGHT] = "c_attn.weight",
               [LSP_PART_QKV_BIAS] = "c_attn.bias",
               [LSP_PART_OUT_WEIGHT] = "c_proj.weight",
               [LSP_PART_OUT_BIAS] = "c_proj.bias"},
     .foreign = "q_attn.weight"},
    {.name = "pytorch", /* nn.MultiheadAttention */
     .roles = {[LSP_PART_QKV_WEIGHT] = "in_proj_weight",
               [LSP_PART_QKV_BIAS] = "in_proj_bias",
               [LSP_PART_OUT_WEIGHT] = "out_proj.weight",
               [LSP_PART_OUT_BIAS] = "out_proj.bias"},
     .foreign = "bias_k|bias_v"},
};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

/* ---- names ------------------------------------------------------------------------------------------ */

/* name = prefix.ending, of at most LSP_IMPORT_NAME bytes: a longer one is in no file. */
static void join(char *name, const char *prefix, const char *ending, size_t length)
{
    size_t at = strnlen(prefix, LSP_IMPORT_NAME - 2);
    memcpy(name, prefix, at);
    if (at > 0) name[at++] = '.';
    length = length < LSP_IMPORT_NAME - 1 - at ? length : LSP_IMPORT_NAME - 1 - at;
    memcpy(name + at, ending, length);
    name[at + length] = '\0';
}

/* Calls up the alternatives of a list one after the other: into name, with the prefix; false after the last. */
static bool next_name(const char **list, const char *prefix, char *name)
{
    if (!*list || !**list) return false;
    size_t length = strcspn(*list, "|");
    join(name, prefix, *list, length);
    *list += length + ((*list)[length] == '|');
    return true;
}

static lsp_import_ref find_role(const lsp_import *import, const char *list, const char *prefix)
{
    char name[LSP_IMPORT_NAME];
    lsp_import_ref ref = {-1, -1};
    while (ref.file < 0 && next_name(&list, prefix, name)) ref = lsp_import_lookup(import, name);
    return ref;
}

/* The weight by which a layout is known. */
static const char *anchor(const layout *of)
{
    const char *fused = of->roles[LSP_PART_QKV_WEIGHT];
    return fused ? fused : of->roles[LSP_PART_Q_WEIGHT];
}

/* ---- candidates ------------------------------------------------------------------------------------- */

typedef struct search {
    lsp_import *import;
    const char *names, *prefix; /* asked for; prefix NULL: any */
    char component[24];         /* import.layer as text; "" for any */
    int64_t seen, found;
    const layout *layout;       /* of the first one found */
    char some[LSP_IMPORT_NAME]; /* the last one seen, found or not */
    char first[LSP_IMPORT_NAME];
    char list[LSP_IMPORT_LIST]; /* those found */
} search;

static bool has_component(const char *prefix, const char *component)
{
    size_t length = strlen(component);
    for (const char *at = prefix; at; at = strchr(at, '.')) {
        if (*at == '.') at++;
        if (strcspn(at, ".") == length && strncmp(at, component, length) == 0) return true;
    }
    return false;
}

static void note(search *s, const layout *of, const char *prefix)
{
    s->seen++;
    (void)snprintf(s->some, sizeof s->some, "%s", prefix);
    if ((s->prefix && strcmp(s->prefix, prefix) != 0) ||
        (s->component[0] && !has_component(prefix, s->component)))
        return;
    size_t used = strlen(s->list);
    if (s->found++ == 0) {
        s->layout = of;
        (void)snprintf(s->first, sizeof s->first, "%s", prefix);
    }
    if (s->found <= 3)
        (void)snprintf(s->list + used, sizeof s->list - used, "%s'%.*s' (%s)", used ? ", " : "",
                       LSP_IMPORT_SHOWN, prefix, of->name);
}

/* Whether `name` is one of the alternatives behind some prefix, which is noted. */
static void match(search *s, const layout *of, const char *name)
{
    char wanted[LSP_IMPORT_NAME], prefix[LSP_IMPORT_NAME];
    const char *list = anchor(of);
    size_t length = strlen(name);
    while (next_name(&list, "", wanted)) {
        size_t tail = strlen(wanted);
        if (length < tail || strcmp(name + length - tail, wanted) != 0) continue;
        if (length > tail && name[length - tail - 1] != '.') continue;
        size_t head = length > tail ? length - tail - 1 : 0;
        memcpy(prefix, name, head); /* names have LSP_FOREIGN_NAME_MOST bytes at most */
        prefix[head] = '\0';
        note(s, of, prefix);
        return;
    }
}

static void look(search *s)
{
    for (int f = 0; f < s->import->file_count; f++) {
        const lsp_import_file *file = &s->import->files[f];
        for (int64_t i = 0; !file->array && i < lsp_foreign_count(file->file); i++)
            for (int l = 0; l < LAYOUTS; l++)
                if (strcmp(s->names, "auto") == 0 || strcmp(s->names, layouts[l].name) == 0)
                    match(s, &layouts[l], lsp_foreign_get(file->file, i).name);
    }
}

/* No candidate: says what was looked for, and what is most like it. */
static lsp_status refuse_none(search *s)
{
    char wanted[LSP_IMPORT_LIST] = "", name[LSP_IMPORT_NAME], first[LSP_IMPORT_NAME] = "";
    const char *prefix = s->prefix ? s->prefix : "PREFIX";
    if (s->seen > 0 && !s->prefix)
        return lsp_context_fail(s->import->app->ctx, LSP_ERR_CONTENT,
                                "'%s' has %" PRId64
                                " attention layers, as '%.*s', and none has import.layer = %s in "
                                "its name (import.list=yes lists all)",
                                s->import->files[0].path, s->seen, LSP_IMPORT_SHOWN, s->some, s->component);
    for (int l = 0; l < LAYOUTS; l++) {
        if (strcmp(s->names, "auto") != 0 && strcmp(s->names, layouts[l].name) != 0) continue;
        const char *list = anchor(&layouts[l]);
        size_t used = strlen(wanted);
        (void)next_name(&list, prefix, name);
        if (!*first) (void)snprintf(first, sizeof first, "%s", name);
        (void)snprintf(wanted + used, sizeof wanted - used, "%s'%.*s' (%s)", used ? ", " : "",
                       LSP_IMPORT_SHOWN, name, layouts[l].name);
    }
    const char *nearest = lsp_import_nearest(s->import, first);
    return lsp_context_fail(s->import->app->ctx, LSP_ERR_CONTENT,
                            "'%s' has no attention layer by a name known: none of %s; the nearest is '%.*s' "
                            "(import.list=yes lists all)",
                            s->import->files[0].path, wanted, LSP_IMPORT_SHOWN, nearest ? nearest : "");
}

static lsp_status choose(search *s)
{
    if (s->found == 0) return refuse_none(s);
    if (s->found == 1) return LSP_OK;
    return lsp_context_fail(s->import->app->ctx, LSP_ERR_USAGE,
                            "%" PRId64 " attention layers are there: %s%s; say which with %simport.prefix",
                            s->found, s->list, s->found > 3 ? ", ..." : "",
                            s->component[0] ? "" : "import.layer or ");
}

/* ---- the layer's tensors ---------------------------------------------------------------------------- */

static lsp_status refuse_missing(const lsp_import *import, const lsp_import_layer *layer, const char *list)
{
    char name[LSP_IMPORT_NAME], one[LSP_IMPORT_NAME];
    const char *all = list;
    (void)next_name(&list, layer->prefix, one);
    const char *nearest = lsp_import_nearest(import, one);
    join(name, layer->prefix, all, strlen(all));
    return lsp_context_fail(
        import->app->ctx, LSP_ERR_CONTENT,
        "'%s' has no tensor '%.*s', which a layer by the names of %s has; the nearest is '%.*s' "
        "(name all files of the model in import.source)",
        import->files[0].path, 2 * LSP_IMPORT_SHOWN, name, layer->names, LSP_IMPORT_SHOWN,
        nearest ? nearest : "");
}

static lsp_status find_roles(const lsp_import *import, const layout *of, lsp_import_layer *layer)
{
    for (int role = 0; role < LSP_PART_COUNT; role++) {
        layer->roles[role] = find_role(import, of->roles[role], layer->prefix);
        if (role <= LSP_PART_OUT_WEIGHT && of->roles[role] && layer->roles[role].file < 0)
            return refuse_missing(import, layer, of->roles[role]);
    }
    lsp_import_ref odd = find_role(import, of->foreign, layer->prefix);
    if (odd.file < 0) return LSP_OK;
    return lsp_context_fail(
        import->app->ctx, LSP_ERR_CONTENT,
        "tensor '%.*s' of '%s' changes what the layer computes, and Longspan's layer has nothing "
        "like it",
        LSP_IMPORT_SHOWN, lsp_import_tensor(import, odd).name, import->files[odd.file].path);
}

lsp_status lsp_import_find_layer(lsp_import *import)
{
    lsp_options *options = import->app->options;
    lsp_import_layer *layer = &import->layer;
    const char *names = lsp_options_text(options, LSP_KEY_IMPORT_NAMES);
    layer->names = NULL;
    if (strcmp(names, "none") == 0 || !lsp_options_is_set(options, LSP_KEY_IMPORT_SOURCE)) return LSP_OK;
    search s = {.import = import, .names = names};
    char prefix[LSP_IMPORT_NAME];
    if (lsp_options_is_set(options, LSP_KEY_IMPORT_PREFIX)) {
        (void)snprintf(prefix, sizeof prefix, "%s", lsp_options_text(options, LSP_KEY_IMPORT_PREFIX));
        size_t length = strlen(prefix);
        if (length > 1 && prefix[length - 1] == '.') prefix[length - 1] = '\0';
        s.prefix = prefix;
    }
    if (lsp_options_is_set(options, LSP_KEY_IMPORT_LAYER))
        (void)snprintf(s.component, sizeof s.component, "%" PRId64,
                       lsp_options_int(options, LSP_KEY_IMPORT_LAYER));
    look(&s);
    lsp_status status = choose(&s);
    if (status != LSP_OK) return status;
    layer->names = s.layout->name;
    layer->transposed = s.layout->transposed;
    (void)snprintf(layer->prefix, sizeof layer->prefix, "%s", s.first);
    return find_roles(import, s.layout, layer);
}
