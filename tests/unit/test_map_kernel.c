/* Looking at weights in every kernel: against the definition, AVX2 and AVX-512 to the bit, from registers and through
 * memory to the bit; pixels. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

enum { ROWS = 23, WIDTH = 40, KEYS = 470, LINKS = 30 };

/* How rows are looked at. */
typedef struct look_way {
    int64_t away; /* rows stand so many keys before the tile's first key */
    double softcap;
    int64_t grain; /* 0: all rows */
    bool apart;    /* a call for each grain */
    bool memory;   /* keys are said to have no bound, so that nothing stays in registers */
} look_way;

/* What one call says of a tile. */
typedef struct look_result {
    lsp_tile_shape shape;
    int64_t grains;
    char *sum, *most;
    double sums[ROWS][LSP_MAP_FIGURES];
    lsp_link items[LINKS];
    lsp_links links;
} look_result;

static void look_over(const lsp_kernel *kernel, const lsp_look_rows *all, const look_way *way,
                      const lsp_score_rule *rule, const lsp_key_tile *tile, look_result *r, void *scratch)
{
    size_t element = lsp_dtype_size(kernel->compute), packed = (size_t)kernel->packed_bytes;
    for (int64_t at = 0, count; at < all->rows; at += count) {
        size_t skip = (size_t)(at / all->grain * r->shape.tile_keys) * element;
        lsp_look_rows look = *all;
        lsp_look_columns columns = {r->sum + skip, r->most + skip};
        count = way->apart && all->grain < all->rows - at ? all->grain : all->rows - at;
        look.rows = count;
        look.q = (const char *)all->q + (size_t)(at * r->shape.k_depth) * packed;
        look.base = (const char *)all->base + (size_t)at * element;
        look.weight = (const char *)all->weight + (size_t)at * element;
        look.norm += at, look.sight += at, look.first_key += at, look.number += at;
        look.sums += at * LSP_MAP_FIGURES;
        kernel->look(&r->shape, rule, tile, &look, &columns, &r->links, scratch);
    }
}

/* Every fourth row is left out. Maxima and sums come from attend. */
static look_result look_at(const lsp_kernel *kernel, const kernel_case *c, look_way way)
{
    look_result r = {.shape = kernel->shape(c->d_k, c->d_v), .links = {LINKS, 0, NULL}};
    size_t element = lsp_dtype_size(kernel->compute), packed = (size_t)kernel->packed_bytes;
    lsp_score_rule rule = {way.softcap * LOG2_E, 0, c->scale * LOG2_E};
    char *q = lsp_memory_alloc(c->n * r.shape.k_depth, packed);
    char *k = lsp_memory_alloc(r.shape.tile_keys * r.shape.k_depth, packed);
    char *v = lsp_memory_zalloc(r.shape.tile_keys * r.shape.v_stride, packed);
    char *out = lsp_memory_zalloc(c->n * c->d_v, element), *max = lsp_memory_alloc(c->n, element),
         *sum = lsp_memory_zalloc(c->n, element);
    double *norm = lsp_memory_alloc(c->n, sizeof *norm);
    int64_t first_key[ROWS];
    void *scratch = lsp_memory_alloc(1, kernel->scratch_bytes(&r.shape));
    int64_t grain = way.grain > 0 ? way.grain : c->n;
    r.grains = (c->n + grain - 1) / grain;
    r.sum = lsp_memory_alloc(r.grains * r.shape.tile_keys, element),
    r.most = lsp_memory_alloc(r.grains * r.shape.tile_keys, element);
    uint64_t mode = lsp_fpmode_enter();
    kernel->pack_queries(c->d_k, c->q, LSP_F32, c->n, c->scale * LOG2_E, q);
    kernel->query_norms(c->d_k, c->n, q, norm);
    double k_norm = kernel->pack_k(&r.shape, c->k, LSP_F32, 0, c->m, k);
    for (int64_t i = 0; i < c->n; i++) {
        double low = -INFINITY;
        lsp_convert_store(kernel->compute, &low, 1, max, i);
        c->sight[i].position = -way.away;
        first_key[i] = i % 3 == 0 ? 100 : -1;
    }
    lsp_key_tile tile = {.k = k, .v = v, .k_norm = k_norm};
    lsp_query_rows rows = {c->n, q, norm, c->sight, out, max, sum};
    kernel->attend(&r.shape, &rule, &tile, &rows, scratch);
    for (int64_t i = 0; i < c->n; i++) { /* what method/map.c makes of them */
        double base, total;
        lsp_convert_load(kernel->compute, max, i, 1, &base);
        lsp_convert_load(kernel->compute, sum, i, 1, &total);
        double weight = total > 0 && i % 4 != 3 ? 1 / total : 0;
        if (!isfinite(base)) base = 0;
        lsp_convert_store(kernel->compute, &base, 1, max, i);
        lsp_convert_store(kernel->compute, &weight, 1, sum, i);
    }
    lsp_look_rows look = {c->n, grain, q, norm, c->sight, max, sum, first_key, 1000, &r.sums[0][0]};
    r.links.items = r.items;
    if (way.memory) tile.k_norm = INFINITY;
    look_over(kernel, &look, &way, &rule, &tile, &r, scratch);
    lsp_fpmode_leave(mode);
    void *const owned[] = {q, k, v, out, max, sum, norm, scratch};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    return r;
}

static void drop(look_result *r)
{
    lsp_memory_free(r->sum);
    lsp_memory_free(r->most);
}

/* By the formula. */
static void find_weights(const kernel_case *c, double softcap, double w[ROWS][KEYS])
{
    memset(w, 0, sizeof(double[ROWS][KEYS]));
    for (int64_t i = 0; i < c->n; i++) {
        double all = 0;
        for (int64_t j = c->sight[i].begin; j < c->sight[i].end; j++) {
            double s = 0;
            for (int64_t d = 0; d < c->d_k; d++)
                s += (double)c->q[i * c->d_k + d] * (double)c->k[j * c->d_k + d];
            s *= c->scale;
            if (softcap > 0) s = softcap * tanh(s / softcap);
            w[i][j] = exp(s), all += w[i][j];
        }
        for (int64_t j = c->sight[i].begin; j < c->sight[i].end; j++) w[i][j] /= all;
    }
}

static void check_definition(const lsp_kernel *kernel, kernel_case *c, int64_t away, double softcap)
{
    static double weights[ROWS][KEYS];
    look_result r = look_at(kernel, c, (look_way){.away = away, .softcap = softcap});
    double limit = kernel->compute == LSP_F64 ? 1e-12 : 2e-6, most_of_all = 0;
    find_weights(c, softcap, weights);
    for (int64_t j = 0; j < r.shape.tile_keys; j++) {
        double sum = 0, most = 0, got_sum, got_most;
        for (int64_t i = 0; i < c->n; i++) {
            double w = i % 4 == 3 || j >= c->m ? 0 : weights[i][j];
            sum += w, most = fmax(most, w);
        }
        lsp_convert_load(kernel->compute, r.sum, j, 1, &got_sum);
        lsp_convert_load(kernel->compute, r.most, j, 1, &got_most);
        assert_true(fabs(got_sum - sum) <= limit && fabs(got_most - most) <= limit);
        most_of_all = fmax(most_of_all, most);
    }
    for (int64_t i = 0; i < c->n; i++) {
        double distance = 0, near = 0, self = 0;
        for (int64_t j = c->sight[i].begin; j < c->sight[i].end; j++) {
            double w = i % 4 == 3 ? 0 : weights[i][j];
            int64_t d = j + away < 0 ? -j - away : j + away;
            distance += w * (double)d;
            if (d < LSP_MAP_WINDOW) near += w;
            if (d == 0) self += w;
        }
        bool sees_first = i % 3 == 0 && i % 4 != 3 && c->sight[i].begin <= 100 && c->sight[i].end > 100;
        double first = sees_first ? weights[i][100] : 0;
        assert_true(fabs(r.sums[i][LSP_MAP_DISTANCE] - distance) <= limit * (1 + distance));
        assert_true(fabs(r.sums[i][LSP_MAP_NEAR] - near) <= limit);
        assert_true(fabs(r.sums[i][LSP_MAP_SELF] - self) <= limit);
        assert_true(fabs(r.sums[i][LSP_MAP_FIRST] - first) <= limit);
    }
    double strongest = 0;
    for (int64_t l = 0; l < r.links.count; l++) {
        strongest = fmax(strongest, r.items[l].weight);
        double w = weights[r.items[l].row - 1000][r.items[l].key];
        assert_true(fabs(w - r.items[l].weight) <= limit);
    }
    assert_int_equal(r.links.count, LINKS);
    assert_true(fabs(strongest - most_of_all) <= limit);
    drop(&r);
}

static void weights_are_those_of_the_definition(void **state)
{
    (void)state;
    kernel_case c = case_make(ROWS, KEYS, WIDTH, WIDTH, 4);
    const lsp_dtype types[] = {LSP_F32, LSP_F64};
    for (int seen = 0; seen < 2; seen++) {
        if (seen) case_random_sights(&c, 9);
        for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++)
            for (int t = 0; t < 2; t++) {
                const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, types[t]);
                if (!kernel) continue;
                check_definition(kernel, &c, 5000, 0);
                check_definition(kernel, &c, -200, 0);
                check_definition(kernel, &c, -200, 1.5);
            }
    }
    case_free(&c);
}

static void check_equal(const look_result *a, const look_result *b, size_t element)
{
    assert_int_equal(a->grains, b->grains);
    assert_memory_equal(a->sum, b->sum, (size_t)(a->grains * a->shape.tile_keys) * element);
    assert_memory_equal(a->most, b->most, (size_t)(a->grains * a->shape.tile_keys) * element);
    assert_memory_equal(a->sums, b->sums, sizeof a->sums);
    assert_int_equal(a->links.count, b->links.count);
}

/* Both ways of looking give the same bits, to rows that stand far from the tile and to those within it. */
static void compare_ways(look_way one, look_way other)
{
    const lsp_dtype types[] = {LSP_F32, LSP_F64};
    const int64_t places[] = {100000, -100000, 60, -250};
    kernel_case c = case_make(ROWS, 512, WIDTH, WIDTH, 5);
    for (int seen = 0; seen < 2; seen++) {
        if (seen) case_random_sights(&c, 11);
        for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++)
            for (int i = 0; i < 8; i++) {
                const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, types[i / 4]);
                if (!kernel) continue;
                one.away = other.away = places[i % 4];
                look_result a = look_at(kernel, &c, one), b = look_at(kernel, &c, other);
                check_equal(&a, &b, lsp_dtype_size(types[i / 4]));
                for (int l = 0; l < a.links.count; l++) {
                    bool found = false;
                    for (int m = 0; m < b.links.count; m++)
                        found = found || memcmp(&a.items[l], &b.items[m], sizeof(lsp_link)) == 0;
                    assert_true(found);
                }
                drop(&a), drop(&b);
            }
    }
    case_free(&c);
}

static void registers_and_memory_give_the_same_bits(void **state)
{
    (void)state;
    compare_ways((look_way){.grain = 8}, (look_way){.grain = 8, .memory = true});
}

/* Groups of rows take no notice of grains. */
static void grains_together_are_grains_apart(void **state)
{
    (void)state;
    for (int64_t grain = 1; grain < ROWS; grain = 3 * grain + 1)
        compare_ways((look_way){.grain = grain}, (look_way){.grain = grain, .apart = true});
}

static void vectors_of_all_widths_give_the_same_bits(void **state)
{
    (void)state;
    kernel_case c = case_make(ROWS, KEYS, WIDTH, WIDTH, 6);
    const lsp_dtype types[] = {LSP_F32, LSP_F64};
    for (int seen = 0; seen < 2; seen++) {
        if (seen) case_random_sights(&c, 10);
        for (int t = 0; t < 2; t++) {
            const lsp_kernel *narrow = lsp_kernel_get(LSP_ISA_AVX2, types[t]),
                             *wide = lsp_kernel_get(LSP_ISA_AVX512, types[t]);
            if (!narrow || !wide) continue;
            look_way way = {.away = -300, .grain = 5};
            look_result a = look_at(narrow, &c, way), b = look_at(wide, &c, way);
            check_equal(&a, &b, lsp_dtype_size(types[t]));
            assert_memory_equal(a.items, b.items, sizeof a.items);
            drop(&a), drop(&b);
        }
    }
    case_free(&c);
}

/* Every key's mass goes to one pixel, whatever the pixel's width and where the tile begins in it. */
static void pixels_take_all_mass(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, LSP_F32);
        if (!kernel) continue;
        for (int64_t width = 1; width < 700; width = width * 2 + 1)
            for (int64_t begin = 0; begin < 200; begin += 67) {
                float sum[512], most[512];
                int64_t mass[512] = {0}, sums[513] = {0}, first_left = width - 5 * width / 7;
                double peaks[513] = {0};
                for (int i = 0; i < 512; i++) sum[i] = (float)(i % 37) / 64, most[i] = (float)((i * 7) % 101);
                lsp_look_columns columns = {sum, most};
                lsp_look_pixels pixels = {sums, peaks, mass, width, first_left};
                kernel->pool(&columns, begin, 500, 128, &pixels);
                for (int64_t j = begin, pixel = 0, left = first_left; j < 500; j++) {
                    if (left == 0) pixel++, left = width;
                    left--;
                    assert_int_equal(mass[j], 2 * (j % 37));
                    sums[pixel] -= mass[j];
                    assert_true(peaks[pixel] >= (double)most[j]);
                }
                for (int i = 0; i < 513; i++) assert_int_equal(sums[i], 0);
            }
    }
}

static void links_keep_the_strongest(void **state)
{
    (void)state;
    enum { COUNT = 500, MOST = 40 };
    lsp_link kept[MOST];
    lsp_links links = {MOST, 0, kept};
    for (int i = 0; i < COUNT; i++) { /* weights in steps: many are equal */
        int place = i * 211 % COUNT;
        links_offer(&links, (lsp_link){(double)(place / 30), place % 7, place});
    }
    for (int i = 0; i < COUNT; i++) {
        lsp_link link = {(double)(i / 30), i % 7, i};
        int before = 0, found = 0;
        for (int j = 0; j < COUNT; j++) {
            lsp_link other = {(double)(j / 30), j % 7, j};
            before += links_after(&link, &other);
        }
        for (int j = 0; j < MOST; j++) found += kept[j].key == i;
        assert_int_equal(found, before < MOST);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_those_of_the_definition),
        cmocka_unit_test(registers_and_memory_give_the_same_bits),
        cmocka_unit_test(grains_together_are_grains_apart),
        cmocka_unit_test(vectors_of_all_widths_give_the_same_bits),
        cmocka_unit_test(pixels_take_all_mass),
        cmocka_unit_test(links_keep_the_strongest),
    };
    return cmocka_run_group_tests_name("map kernels", tests, NULL, NULL);
}
