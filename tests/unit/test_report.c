/* Reports: numbers that JSON does not have, and how keys come to the ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/report.h"

#include <math.h>
#include <string.h>

/* The report's text is read back by a JSON parser; returns its "verify" (in *whole, to be deleted). */
static cJSON *written_and_read(const lsp_verify_result *result, cJSON **whole)
{
    cJSON *object = cJSON_CreateObject();
    assert_non_null(object);
    lsp_json_add_verify(object, result);
    char *text = cJSON_Print(object);
    assert_non_null(text);
    assert_null(strstr(text, "inf"));
    assert_null(strstr(text, "nan"));
    *whole = cJSON_Parse(text);
    assert_non_null(*whole);
    cJSON_free(text);
    cJSON_Delete(object);
    return cJSON_GetObjectItemCaseSensitive(*whole, "verify");
}

static void report_of_an_infinite_error(void **state)
{
    (void)state;
    const double errors[] = {INFINITY, NAN};
    for (int i = 0; i < 2; i++) {
        const lsp_verify_result result = {.rows = 16,
                                          .max_rel_err = errors[i],
                                          .max_lse_err = INFINITY,
                                          .tolerance = 1e-6,
                                          .max_abs_score = 3};
        cJSON *whole, *verify = written_and_read(&result, &whole);
        assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(verify, "max_rel_err")));
        assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(verify, "max_lse_err")));
        assert_true(cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(verify, "passed")));
        assert_true(cJSON_GetObjectItemCaseSensitive(verify, "rows")->valuedouble == 16);
        cJSON_Delete(whole);
    }
}

static void report_of_a_finite_error(void **state)
{
    (void)state;
    const lsp_verify_result result = {.rows = 3, .max_rel_err = 2.5e-7, .tolerance = 1e-6, .passed = true};
    cJSON *whole, *verify = written_and_read(&result, &whole);
    assert_true(cJSON_GetObjectItemCaseSensitive(verify, "max_rel_err")->valuedouble == 2.5e-7);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(verify, "passed")));
    cJSON_Delete(whole);
    verify = written_and_read(NULL, &whole);
    assert_true(cJSON_IsNull(verify));
    cJSON_Delete(whole);
}

static void summary_tells_how_keys_come(void **state)
{
    (void)state;
    char text[LSP_RULE_TEXT];
    lsp_estimate e = {.gather = LSP_GATHER_ALL, .head_groups = 1, .panels = 8, .panel_keys = 2048};
    assert_string_equal(lsp_summary_keys(&e, 2, text), "keys by all (8 of up to 2048 keys)");
    assert_string_equal(lsp_summary_keys(&e, 1, text), "nothing gathered (8 panels of up to 2048 keys)");
    e.head_groups = 2;
    assert_string_equal(lsp_summary_keys(&e, 4, text), "keys by all (8 of up to 2048 keys), 2 head groups");
    assert_string_equal(lsp_summary_keys(&e, 2, text),
                        "nothing gathered (8 panels of up to 2048 keys), 2 head groups");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(report_of_an_infinite_error),
        cmocka_unit_test(report_of_a_finite_error),
        cmocka_unit_test(summary_tells_how_keys_come),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
