/* Hostile documents and dying helpers: a reason each, and the next document is unharmed. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/rng.h"
#include "base/thread.h"
#include "tests/extract/help.h"

static struct arena a;

static void setup(void) {
    arena_init(&a, 512u << 20);
}

static void teardown(void) {
    use_real_helper();
    arena_fini(&a);
}

TestSuite(hostile, .init = setup, .fini = teardown);

/* ---- documents ---- */

Test(hostile, an_encrypted_pdf_is_refused) {
    struct pdf p;
    static const char sixteen[] = "00112233445566778899aabbccddeeff";
    char extra[256];
    pdf_begin(&p, 3);
    pdf_object(&p, 1, "<< /Type /Catalog /Pages 2 0 R >>");
    pdf_object(&p, 2, "<< /Type /Pages /Count 0 /Kids [] >>");
    pdf_object(&p, 3, "<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s%s> /U <%s%s> >>", sixteen,
               sixteen, sixteen, sixteen);
    snprintf(extra, sizeof extra, "/Encrypt 3 0 R /ID [<%s> <%s>]", sixteen, sixteen);
    must_refuse(&a, pdf_end(&p, &a, extra), NULL, ERR_CORRUPT, "encrypted");
}

Test(hostile, an_empty_document_and_one_without_pages_are_refused) {
    struct pdf p;
    must_refuse(&a, bytes_of("", 0), NULL, ERR_CORRUPT, "the document is empty");
    pdf_begin(&p, 2);
    pdf_object(&p, 1, "<< /Type /Catalog /Pages 2 0 R >>");
    pdf_object(&p, 2, "<< /Type /Pages /Count 0 /Kids [] >>");
    must_refuse(&a, pdf_end(&p, &a, ""), NULL, ERR_CORRUPT, "no pages");
}

/* Every cut is an error with a reason, or pages of which none claims to be whole. */
static void cut_everywhere(struct bytes whole, uint32_t *read, uint32_t *refused) {
    for (size_t len = 5; len + 8 < whole.len; len += 47) {
        struct extracted x;
        char err[512] = "";
        int rc = extract_run(NULL, bytes_of(whole.data, len), bytes_of("", 0), NULL, &a, &x, err,
                             sizeof err);
        cr_assert(rc == 0 || (rc == ERR_CORRUPT && err[0]), "%zu: %d %s", len, rc, err);
        if (rc == 0) check_extracted(&x);
        for (uint32_t i = 0; rc == 0 && i < x.pages_in; i++)
            cr_assert(x.pages[i].outcome != EXTRACT_OK, "%zu: page %u", len, i + 1);
        *(rc == 0 ? read : refused) += 1;
    }
}

Test(hostile, a_pdf_cut_off_anywhere_is_read_in_part_or_refused, .timeout = 300) {
    struct bytes whole = pdf_good(&a, 3);
    uint32_t read = 0, refused = 0;
    cut_everywhere(whole, &read, &refused);
    cr_assert(refused > 20, "%u read, %u refused", read, refused);
    /* With a trailer in front, as files made for the web have it, there is something to go by. */
    struct buf b = {0};
    buf_printf(&b, "%%PDF-1.4\ntrailer\n<< /Size 10 /Root 1 0 R >>\n%.*s", (int)whole.len - 9,
               (const char *)whole.data + 9);
    cut_everywhere(buf_bytes(&b), &read, &refused);
    cr_assert(read > 10, "%u read, %u refused", read, refused);
    buf_fini(&b);
    must_be_unharmed(&a);
}

Test(hostile, a_pdf_with_bytes_turned_gives_an_answer, .timeout = 300) {
    struct bytes whole = pdf_good(&a, 3);
    uint64_t seed = test_seed();
    uint8_t *bytes = arena_copy(&a, whole.data, whole.len);
    for (int round = 0; round < 60; round++) {
        struct extracted x;
        char err[512] = "";
        for (int i = 0; i < 4; i++)
            bytes[8 + rng_next(&seed) % (whole.len - 8)] ^= (uint8_t)(1u << (rng_next(&seed) % 8));
        int rc = extract_run(NULL, bytes_of(bytes, whole.len), bytes_of("", 0), NULL, &a, &x, err,
                             sizeof err);
        cr_assert(rc == 0 || (rc == ERR_CORRUPT && err[0]), "round %d: %d %s", round, rc, err);
        if (rc == 0) check_extracted(&x);
    }
    must_be_unharmed(&a);
}

Test(hostile, pages_beyond_the_limit_are_failed_and_counted, .timeout = 300) {
    struct extracted x = must_extract(&a, pdf_of_many(&a, 10000));
    cr_assert(x.pages_in == 10000 && x.pages_ok == LIMIT_EXTRACT_PAGES);
    page_is(&x, LIMIT_EXTRACT_PAGES - 1, EXTRACT_OK, NULL);
    page_is(&x, LIMIT_EXTRACT_PAGES, EXTRACT_FAILED, "beyond the limit of 5000 pages");
    cr_assert_eq(x.pages_failed, 5000);
    must_be_unharmed(&a);
}

Test(hostile, a_document_of_more_pages_than_can_be_counted_is_refused, .timeout = 300) {
    must_refuse(&a, pdf_of_many(&a, 70000), NULL, ERR_LIMIT, "70000 pages");
}

Test(hostile, forms_within_themselves_and_deep_forms_end) {
    struct pdf p;
    enum { DEPTH = 400 };
    pdf_begin(&p, 5 + DEPTH);
    pdf_object(&p, 1, "<< /Type /Catalog /Pages 2 0 R >>");
    pdf_object(&p, 2, "<< /Type /Pages /Count 1 /Kids [3 0 R] >>");
    pdf_object(&p, 3,
               "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources "
               "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> "
               "/XObject << /X 5 0 R /Y 6 0 R >> >> >>");
    pdf_stream(&p, 4, "", bytes_str("/X Do /Y Do BT /F1 12 Tf 72 700 Td (After all) Tj ET"));
    pdf_stream(
        &p, 5,
        "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>",
        bytes_str("/X Do /X Do /X Do"));
    for (uint32_t i = 6; i < 5 + DEPTH; i++) {
        char dict[160];
        snprintf(
            dict, sizeof dict,
            "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /Y %u 0 R >> "
            ">>",
            i + 1);
        pdf_stream(&p, i, dict, bytes_str("/Y Do"));
    }
    pdf_stream(&p, 5 + DEPTH, "/Type /XObject /Subtype /Form /BBox [0 0 9 9]", bytes_str("q Q"));
    struct extracted x = must_extract(&a, pdf_end(&p, &a, ""));
    cr_assert(x.pages_in == 1);
    cr_assert(x.pages_failed == 1 || bytes_is(x.text, "After all\n"));
    must_be_unharmed(&a);
}

/* ---- limits ---- */

/* 4 GB of "q Q " in a few hundred bytes. */
static struct bytes bomb(void) {
    return pdf_with_middle(&a, "/Filter [/FlateDecode /FlateDecode]", flate_bomb(&a, 16u << 20));
}

/* Two million letters, all over the page. */
static struct bytes much_text(void) {
    struct buf c = {0};
    buf_printf(&c, "BT /F1 4 Tf ");
    for (uint32_t i = 0; i < 40000; i++)
        buf_printf(&c, "1 0 0 1 %u %u Tm (abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX) Tj ",
                   20 + i % 400, 20 + i / 400 * 8);
    buf_printf(&c, "ET");
    struct bytes pdf = pdf_with_middle(&a, "", buf_bytes(&c));
    buf_fini(&c);
    return pdf;
}

/* The middle page failed for this reason, the others were read. */
static void only_the_middle_failed(const struct extracted *x, const char *says) {
    page_is(x, 0, EXTRACT_OK, NULL);
    page_is(x, 1, EXTRACT_FAILED, says);
    page_is(x, 2, EXTRACT_OK, NULL);
    cr_assert(bytes_is(x->text, "A good page\nA good page\n"));
    must_be_unharmed(&a);
}

/* The first page was read; the middle one and all behind it failed for this reason. */
static void only_the_first_was_read(const struct extracted *x, const char *says) {
    page_is(x, 0, EXTRACT_OK, NULL);
    page_is(x, 1, EXTRACT_FAILED, says);
    page_is(x, 2, EXTRACT_FAILED, says);
    page_is(x, 2, EXTRACT_FAILED, "not read");
    cr_assert(bytes_is(x->text, "A good page\n"));
    must_be_unharmed(&a);
}

Test(hostile, a_page_that_takes_too_long_costs_only_itself, .timeout = 300) {
    struct extract_limits l = extract_limits_default;
    l.page_ms = 4000;
    struct extracted x = must_extract_within(&a, bomb(), &l);
    only_the_middle_failed(&x, "longer than the limit of 4000 ms for a page");
}

Test(hostile, the_limit_of_processor_time_ends_a_document_and_keeps_what_was_read, .timeout = 300) {
    struct extract_limits l = extract_limits_default;
    l.cpu_s = 2;
    l.wall_ms = l.page_ms = 200000;
    struct extracted x = must_extract_within(&a, bomb(), &l);
    only_the_first_was_read(&x, "more than the limit of 2 s of processor time");
}

Test(hostile, the_limit_of_wall_time_ends_a_document_and_keeps_what_was_read, .timeout = 300) {
    struct extract_limits l = extract_limits_default;
    l.wall_ms = 5000;
    struct extracted x = must_extract_within(&a, bomb(), &l);
    only_the_first_was_read(&x, "longer than the limit of 5000 ms");
}

Test(hostile, a_page_that_needs_too_much_memory_costs_only_itself, .timeout = 300) {
    if (SANITIZED) cr_skip_test("the address sanitizer needs more address space than any limit");
    struct extract_limits l = extract_limits_default;
    l.memory_bytes = 96u << 20;
    struct extracted x = must_extract_within(&a, much_text(), &l);
    only_the_middle_failed(&x, "more than the limit of 100663296 bytes of memory");
}

Test(hostile, the_limit_of_output_ends_a_document_and_keeps_what_was_read) {
    struct extract_limits l = extract_limits_default;
    l.output_bytes = 2500; /* text and boxes of five pages have 2380 bytes */
    struct extracted x = must_extract_within(&a, pdf_good(&a, 9), &l);
    cr_assert(x.pages_ok == 5 && x.pages_failed == 4, "%u", x.pages_ok);
    page_is(&x, 5, EXTRACT_FAILED, "larger than the limit of 2500 bytes of output");
    page_is(&x, 8, EXTRACT_FAILED, "not read, because of page 6");
    must_be_unharmed(&a);
}

Test(hostile, a_limit_before_the_first_page_is_an_error_that_names_it, .timeout = 300) {
    struct extract_limits l = extract_limits_default;
    struct buf many = {0};
    l.output_bytes = 1000;
    while (many.len < 5000) buf_printf(&many, "a text ");
    struct extracted x = must_extract_within(&a, buf_bytes(&many), &l);
    page_is(&x, 0, EXTRACT_FAILED, "limit of 1000 bytes of output");
    use_script(&a, "exec sleep 100");
    l.wall_ms = 500;
    must_refuse(&a, pdf_good(&a, 1), &l, ERR_LIMIT, "longer than the limit of 500 ms");
    use_script(&a, "kill -XCPU $$");
    must_refuse(&a, pdf_good(&a, 1), NULL, ERR_LIMIT, "processor time");
    buf_fini(&many);
}

/* ---- helpers ---- */

Test(hostile, a_helper_that_calls_what_is_forbidden_is_stopped) {
    static const char *const ways[][2] = {{"socket", "socket"}, {"exec", "execve"},
                                          {"write", "openat"},  {"kill", "kill"},
                                          {"code", "mmap"},     {"fork", "clone"}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        use_misbehaving(&a, ways[i][0]);
        struct extracted x = must_extract(&a, pdf_good(&a, 2));
        char says[64];
        snprintf(says, sizeof says, "forbidden system call %s", ways[i][1]);
        cr_assert_eq(x.pages_failed, 2);
        page_is(&x, 0, EXTRACT_FAILED, says);
    }
    cr_assert(access("/tmp/penstock-extract-was-here", F_OK) != 0);
    must_be_unharmed(&a);
}

Test(hostile, a_helper_cannot_read_files_of_others) {
    use_misbehaving(&a, "read");
    struct extracted x = must_extract(&a, pdf_good(&a, 2));
    page_is(&x, 0, EXTRACT_FAILED, "ended early, with status 3"); /* 77: it could */
    must_be_unharmed(&a);
}

Test(hostile, a_helper_that_crashes_or_talks_nonsense_is_named) {
    struct bytes good = pdf_good(&a, 1);
    use_script(&a, "echo it hurts >&2; kill -SEGV $$");
    must_refuse(&a, good, NULL, ERR_CORRUPT, "signal 11 (Segmentation fault): it hurts");
    use_script(&a, "echo the first >&2; echo the last >&2; exit 9");
    must_refuse(&a, good, NULL, ERR_CORRUPT, "ended early, with status 9: the last");
    use_script(&a, "printf 'what is this'");
    must_refuse(&a, good, NULL, ERR_LIMIT, "output");
    use_script(&a, "printf '\\3\\0\\0\\0abc'; exec sleep 100");
    must_refuse(&a, good, NULL, ERR_CORRUPT, "malformed");
    use_script(&a, "yes | tr 'y' '\\1'; sleep 100");
    must_refuse(&a, good, NULL, ERR_LIMIT, "output");
    use_script(&a, "yes a complaint | head -n 400000 >&2; exit 1");
    must_refuse(&a, good, NULL, ERR_CORRUPT, "a complaint");
    use_script(&a, "exec >&- 2>&-; sleep 100");
    must_refuse(&a, good, NULL, ERR_CORRUPT, "signal 9");
}

Test(hostile, a_helper_that_is_missing_or_killed_from_outside_is_tried_again_later) {
    struct bytes good = pdf_good(&a, 1);
    setenv("PENSTOCK_EXTRACT", "/nowhere/penstock-extract", 1);
    must_refuse(&a, good, NULL, ERR_FULL, "/nowhere/penstock-extract");
    use_script(&a, "kill -KILL $$");
    must_refuse(&a, good, NULL, ERR_FULL, "killed: by hand, or by the kernel");
    use_script(&a, "exec /nowhere/libpoppler");
    must_refuse(&a, good, NULL, ERR_FULL, "does not start");
}

/* A helper that kills itself as others would, while a folder is there that it can remove, and is
 * the real one from then on. */
static void use_killed(uint32_t times) {
    char script[1024], real[256], err[256], folder[] = "/tmp/penstock-extract-kills-XXXXXX";
    cr_assert(mkdtemp(folder));
    use_real_helper();
    cr_assert_eq(extract_helper(real, sizeof real, err, sizeof err), 0, "%s", err);
    for (uint32_t i = 0; i < times; i++) {
        snprintf(script, sizeof script, "%s/%u", folder, i);
        cr_assert_eq(mkdir(script, 0700), 0);
    }
    snprintf(script, sizeof script,
             "for f in %s/*; do rmdir $f 2>/dev/null && kill -KILL $$; done\n"
             "rmdir %s 2>/dev/null; exec %s \"$@\"",
             folder, folder, real);
    use_script(&a, script);
}

Test(hostile, a_helper_killed_a_few_times_from_outside_costs_nothing) {
    use_killed(5);
    struct extracted x = must_extract(&a, pdf_good(&a, 2));
    cr_assert_eq(x.pages_ok, 2);
    must_be_unharmed(&a);
}

/* Says HELLO and the first page, then is killed, as the kernel does when a page needs too much. */
Test(hostile, a_page_on_which_every_helper_is_killed_is_failed) {
    struct bytes good = pdf_good(&a, 2);
    char script[1024], real[256], err[256];
    use_real_helper();
    cr_assert_eq(extract_helper(real, sizeof real, err, sizeof err), 0, "%s", err);
    snprintf(
        script, sizeof script,
        "case \"$*\" in *--first=1\\ *) %s \"$@\" --parent=0 | head -c 24; kill -KILL $$;; esac\n"
        "exec %s \"$@\"",
        real, real);
    use_script(&a, script);
    struct extracted x = must_extract(&a, good);
    page_is(&x, 0, EXTRACT_FAILED, "killed: by hand, or by the kernel");
    page_is(&x, 1, EXTRACT_OK, NULL);
    must_be_unharmed(&a);
}

Test(hostile, a_worker_without_a_free_file_is_told_so) {
    struct extracted x;
    struct rlimit before, few = {.rlim_cur = 0, .rlim_max = 0};
    char err[256] = "";
    struct bytes good = pdf_good(&a, 1);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0); /* the lowest that is free */
    close(next);
    for (int free_files = 0; free_files < 3; free_files++) {
        few = (struct rlimit){(rlim_t)(next + free_files), before.rlim_max};
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        int rc = extract_run(NULL, good, bytes_of("", 0), NULL, &a, &x, err, sizeof err);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        cr_assert_eq(rc, ERR_FULL, "%d: %s", rc, err);
        cr_assert(strstr(err, "Too many open files"), "%s", err);
    }
    must_be_unharmed(&a);
}

Test(hostile, a_helper_dies_with_its_worker, .timeout = 120) {
    struct bytes pdf = bomb();
    int status = 0;
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* so that the orphan becomes our child */
    pid_t worker = fork();
    cr_assert(worker >= 0);
    if (worker == 0) {
        struct extracted x;
        extract_run(NULL, pdf, bytes_of("", 0), NULL, &a, &x, NULL, 0);
        _exit(0);
    }
    /* Half a second of the bomb's time: by then the helper has long been at it. */
    usleep(500000);
    kill(worker, SIGKILL);
    cr_assert_eq(waitpid(worker, &status, 0), worker);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    pid_t helper = waitpid(-1, &status, 0);
    cr_assert(helper > 0 || errno == ECHILD);
    if (helper > 0) cr_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 1, "%x", status);
    must_be_unharmed(&a);
}

/* ---- cancelling ---- */

static atomic_bool cancelled;

static void *cancel_thread_main(void *arg) {
    (void)arg;
    usleep(200000);
    atomic_store(&cancelled, true);
    return NULL;
}

Test(hostile, a_cancelled_run_ends_soon_and_leaves_nothing) {
    pthread_t t;
    struct extracted x;
    char err[256];
    use_script(&a, "sleep 100 & wait");
    cr_assert_eq(thread_start(&t, "cancel", cancel_thread_main, NULL), 0);
    int64_t begun_ms = clock_mono_ms();
    int rc =
        extract_run(NULL, pdf_good(&a, 1), bytes_of("", 0), &cancelled, &a, &x, err, sizeof err);
    int64_t took_ms = clock_mono_ms() - begun_ms;
    pthread_join(t, NULL);
    cr_assert_eq(rc, ERR_CANCELLED, "%d %s", rc, err);
    cr_assert(took_ms < 10000, "%lld ms", (long long)took_ms);
    must_be_unharmed(&a);
}

static void *extract_thread_main(void *arg) {
    struct bytes *good = arg;
    struct arena own;
    struct extracted x;
    char err[256];
    arena_init(&own, 64u << 20);
    for (int i = 0; i < 10; i++) {
        int rc = extract_run(NULL, *good, bytes_of("", 0), NULL, &own, &x, err, sizeof err);
        if (rc != 0 || x.pages_ok != 2) return arg;
        arena_reset(&own);
    }
    arena_fini(&own);
    return NULL;
}

Test(hostile, several_threads_extract_at_once) {
    pthread_t t[4];
    struct bytes good = pdf_good(&a, 2);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(thread_start(&t[i], "extract", extract_thread_main, &good), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        cr_assert_null(failed);
    }
    must_be_unharmed(&a);
}
