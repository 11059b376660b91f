#include <criterion/criterion.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/commit.h"
#include "broker/job.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* their malloc says nothing of what it holds */
#else
enum { SANITIZED = 0 };
#endif

static const struct pipeline_stage stage = {.name = "a", .run = "test.a", .timeout_ms = 100};
static const struct pipeline one = {
    .name = "one", .kind = "text.embed", .n_stages = 1, .stages = &stage};

enum { JOBS = 100000, WINDOW = 1024, BODY = 256, JOB_BYTES_MAX = 540 };

static size_t held_bytes(void) {
    struct mallinfo2 m = mallinfo2();
    return m.arena + m.hblkhd;
}

/* What a job leaves behind when it waits: as the broker does it with bodies that are left to the
 * store, a commit operation beside each job until it is on disk, so many of them at a time. */
Test(broker_memory,
     a_job_that_waits_takes_less_than_540_bytes_with_the_holes_that_its_commit_left) {
    if (SANITIZED) cr_skip_test("the sanitizer's malloc keeps no account");
    static struct job *job[JOBS];
    static struct commit_op *op[JOBS];
    static const uint8_t body[BODY];
    struct bytes part = bytes_of(body, BODY);
    size_t before = held_bytes();
    for (uint32_t i = 0; i < JOBS + WINDOW; i++) {
        if (i < JOBS) {
            cr_assert_not_null(job[i] = job_new(&one));
            cr_assert_eq(job_payload_set(&job[i]->body, &part, 1), 0);
            cr_assert_not_null(op[i] = commit_op_new(COMMIT_ADD));
        }
        if (i < WINDOW) continue;
        job_body_leave(job[i - WINDOW]);
        commit_op_free(op[i - WINDOW]);
    }
    size_t bytes = (held_bytes() - before) / JOBS;
    printf("%zu bytes a job, %zu of them its struct\n", bytes, sizeof(struct job));
    cr_expect_leq(bytes, (size_t)JOB_BYTES_MAX);
    for (uint32_t i = 0; i < JOBS; i++) job_free(job[i]);
}
