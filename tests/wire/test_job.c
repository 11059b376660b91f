#include <criterion/criterion.h>
#include <string.h>

#include "base/rng.h"
#include "schemas/job.h"

Test(job, texts_of_ids_sort_as_the_ids_do_and_parse_back) {
    uint64_t seed = 5, last = 0;
    char last_text[JOB_ID_CHARS + 1];
    job_id_text(0, last_text);
    for (int i = 0; i < 100000; i++) {
        uint64_t id = rng_next(&seed) >> (rng_next(&seed) % 64), back;
        char text[JOB_ID_CHARS + 1];
        job_id_text(id, text);
        cr_assert_eq(job_id_parse(bytes_str(text), &back), 0);
        cr_assert_eq(id, back);
        int order = strcmp(text, last_text);
        cr_assert_eq(order < 0, id < last);
        cr_assert_eq(order > 0, id > last);
        last = id;
        memcpy(last_text, text, sizeof text);
    }
}

Test(job, known_ids_have_known_texts) {
    char text[JOB_ID_CHARS + 1];
    job_id_text(UINT64_MAX, text);
    cr_assert_str_eq(text, "FZZZZZZZZZZZZ");
    job_id_text(0, text);
    cr_assert_str_eq(text, "0000000000000");
    job_id_text(1ull << 20, text);
    cr_assert_str_eq(text, "0000000010000");
}

Test(job, what_people_misread_is_understood) {
    uint64_t a, b;
    cr_assert_eq(job_id_parse(bytes_str("01abcdefghjkm"), &a), 0);
    cr_assert_eq(job_id_parse(bytes_str("OLABCDEFGHJKM"), &b), 0);
    cr_assert_eq(a, b);
}

Test(job, a_text_that_is_no_id_is_refused) {
    uint64_t id = 42;
    const char *const bad[] = {"",
                               "000000000000",
                               "00000000000000",
                               "000000000000U",
                               "00000 0000000",
                               "G000000000000",
                               "000000000000\xC3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_lt(job_id_parse(bytes_str(bad[i]), &id), 0, "'%s'", bad[i]);
    cr_assert_lt(job_id_parse(bytes_of("00000\0000000000", 13), &id), 0, "a NUL");
    cr_assert_eq(id, 42);
}

Test(job, ids_never_repeat_nor_go_back_when_the_clock_does) {
    uint64_t last = 0, seed = 1;
    int64_t wall_ms = 1700000000000;
    for (int i = 0; i < 100000; i++) {
        wall_ms += (int64_t)(rng_next(&seed) % 7) - 3;
        uint64_t id = job_id_next(last, wall_ms);
        cr_assert_gt(id, last);
        last = id;
    }
    cr_assert_gt(job_id_next(0, -5), 0);
    cr_assert_eq(job_id_next(0, 1), 1ull << 20);
}

Test(job, names_of_states_and_errors_parse_back) {
    for (int i = 0; i < JOB_STATES; i++) {
        enum job_state s;
        cr_assert_eq(job_state_parse(bytes_str(job_state_name((enum job_state)i)), &s), 0);
        cr_assert_eq((int)s, i);
    }
    for (int i = 0; i < JOB_ERRORS; i++) {
        enum job_error e;
        cr_assert_eq(job_error_parse(bytes_str(job_error_name((enum job_error)i)), &e), 0);
        cr_assert_eq((int)e, i);
    }
    enum job_state s;
    cr_assert_lt(job_state_parse(bytes_str("lost"), &s), 0);
    cr_assert_not(job_state_terminal(JOB_LEASED));
    cr_assert(job_state_terminal(JOB_EXPIRED));
}
