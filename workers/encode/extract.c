#include "workers/encode/extract.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "workers/encode/extract_helper.h"
#include "workers/encode/extract_read.h"

#define TICK_MS 50 /* how late a cancel or a limit may be noticed */
#define CHUNK_BYTES (256u * 1024u)
#define OUTSIDE_MAX 8u    /* kills from outside: then the whole document is tried again later */
#define OUTSIDE_A_PAGE 3u /* on one page: then the kernel kills for what that page needs */

const struct extract_limits extract_limits_default = {.memory_bytes = LIMIT_EXTRACT_MEMORY_BYTES,
                                                      .output_bytes = LIMIT_EXTRACT_OUTPUT_BYTES,
                                                      .cpu_s = LIMIT_EXTRACT_CPU_S,
                                                      .wall_ms = LIMIT_EXTRACT_WALL_MS,
                                                      .page_ms = LIMIT_EXTRACT_PAGE_MS,
                                                      .pages = LIMIT_EXTRACT_PAGES};

/* One document on its way. */
struct run {
    const struct extract_limits *l;
    const atomic_bool *cancelled;
    const char *path, *format;
    int document_fd;
    int64_t begun_ms, cpu_ms; /* the latter of the helpers that have ended */
    uint32_t restarts;
    uint32_t outside, at_page,
        page; /* kills from outside; of them, running, while `page` was read */
    struct extract_reader r;
    uint8_t *chunk;
};

/* Why a helper is no more, and what follows for the pages that it has not said. */
enum cause {
    CAUSE_DONE,
    CAUSE_PAGE,    /* this page's fault: failed, the next helper starts behind it */
    CAUSE_REST,    /* a limit of the document: this page and all behind it are failed */
    CAUSE_OUTSIDE, /* killed by others: tried again, unless always on the same page */
    CAUSE_STOP     /* the run ends with rc */
};
struct ending {
    enum cause cause;
    int rc; /* for CAUSE_STOP, and for a cause before the first HELLO */
    char reason[320];
};

static void ends(struct ending *e, enum cause cause, int rc, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void ends(struct ending *e, enum cause cause, int rc, const char *format, ...) {
    va_list args;
    e->cause = cause;
    e->rc = rc;
    va_start(args, format);
    vsnprintf(e->reason, sizeof e->reason, format, args);
    va_end(args);
}

/* ---- why it ended ---- */

static void over_time(const struct run *run, struct ending *e) {
    ends(e, CAUSE_REST, ERR_LIMIT, "it takes longer than the limit of %u ms", run->l->wall_ms);
}

static void over_cpu(const struct run *run, struct ending *e) {
    ends(e, CAUSE_REST, ERR_LIMIT, "it takes more than the limit of %u s of processor time",
         run->l->cpu_s);
}

static void over_output(const struct run *run, struct ending *e) {
    ends(e, CAUSE_REST, ERR_LIMIT,
         "its text and boxes are larger than the limit of %llu bytes of output",
         (unsigned long long)run->l->output_bytes);
}

static void bad_document(const struct run *run, struct ending *e) {
    int rc = run->r.bad == FRAME_BAD_DOCUMENT ? ERR_CORRUPT
             : run->r.bad == FRAME_BAD_LIMIT  ? ERR_LIMIT
                                              : ERR_FULL;
    ends(e, CAUSE_STOP, rc, "%s", run->r.said);
}

/* From what it said last, how it ended, and its last words. */
static void explain(const struct run *run, const struct extract_helper *h, int status,
                    struct ending *e) {
    const char *colon = h->words[0] ? ": " : "";
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (run->r.bad)
        bad_document(run, e);
    else if (run->r.end)
        e->cause = CAUSE_DONE;
    else if (run->r.death == FRAME_DEATH_MEMORY)
        ends(e, CAUSE_PAGE, ERR_LIMIT, "it needs more than the limit of %llu bytes of memory",
             (unsigned long long)run->l->memory_bytes);
    else if (run->r.death == FRAME_DEATH_SYSCALL)
        ends(e, CAUSE_PAGE, ERR_CORRUPT, "the helper was stopped: forbidden system call %s",
             run->r.said);
    else if (number == SIGXCPU)
        over_cpu(run, e);
    else if (number == SIGKILL && !h->killed)
        ends(e, CAUSE_OUTSIDE, ERR_FULL,
             "the helper was killed: by hand, or by the kernel for want of memory");
    else if (number != 0)
        ends(e, CAUSE_PAGE, ERR_CORRUPT, "the helper crashed: signal %d (%s)%s%s", number,
             strsignal(number), colon, h->words);
    else if (!run->r.hello && WEXITSTATUS(status) >= 126)
        ends(e, CAUSE_STOP, ERR_FULL, "%s does not start%s%s", run->path, colon, h->words);
    else
        ends(e, CAUSE_PAGE, ERR_CORRUPT, "the helper ended early, with status %d%s%s",
             WEXITSTATUS(status), colon, h->words);
}

/* ---- one helper ---- */

/* What it is asked, as arguments. */
struct asked {
    char text[5][48], format[16];
    char *argv[8];
};

static void ask(const struct run *run, struct asked *q) {
    int64_t cpu_s = ((int64_t)run->l->cpu_s * 1000 - run->cpu_ms + 999) / 1000;
    snprintf(q->format, sizeof q->format, "--format=%s", run->format);
    snprintf(q->text[0], sizeof q->text[0], "--first=%u", run->r.next + 1);
    snprintf(q->text[1], sizeof q->text[1], "--last=%u", run->l->pages);
    snprintf(q->text[2], sizeof q->text[2], "--memory=%llu",
             (unsigned long long)run->l->memory_bytes);
    snprintf(q->text[3], sizeof q->text[3], "--cpu=%lld", (long long)(cpu_s > 0 ? cpu_s : 1));
    snprintf(q->text[4], sizeof q->text[4], "--parent=%ld", (long)getpid());
    int n = 0;
    q->argv[n++] = (char *)(uintptr_t)run->path;
    q->argv[n++] = q->format;
    for (int i = 0; i < 5; i++) q->argv[n++] = q->text[i];
    q->argv[n] = NULL;
}

/* Whether it is time to kill; now_ms and when the page now being read began. */
static bool too_late(const struct run *run, int64_t now_ms, int64_t page_ms, struct ending *e) {
    if (run->cancelled && atomic_load_explicit(run->cancelled, memory_order_relaxed))
        ends(e, CAUSE_STOP, ERR_CANCELLED, "cancelled");
    else if (now_ms - run->begun_ms > run->l->wall_ms)
        over_time(run, e);
    else if (now_ms - page_ms > run->l->page_ms)
        ends(e, CAUSE_PAGE, ERR_LIMIT, "it takes longer than the limit of %u ms for a page",
             run->l->page_ms);
    else
        return false;
    return true;
}

/* Reads until its end, or until it has to be killed: true, with the cause. */
static bool hear(struct run *run, struct extract_helper *h, struct ending *e) {
    uint32_t page = run->r.next;
    int64_t page_ms = clock_mono_ms();
    for (;;) {
        ssize_t n = extract_helper_read(h, run->chunk, CHUNK_BYTES, TICK_MS);
        if (n < 0) return false;
        int rc = n > 0 ? extract_reader_feed(&run->r, run->chunk, (size_t)n) : 0;
        int64_t now_ms = clock_mono_ms();
        if (run->r.next != page) {
            page = run->r.next;
            page_ms = now_ms;
        }
        if (rc == ERR_LIMIT)
            over_output(run, e);
        else if (rc == -ENOMEM)
            ends(e, CAUSE_STOP, -ENOMEM, "no memory for the text of the document");
        else if (rc < 0)
            ends(e, CAUSE_PAGE, ERR_CORRUPT, "what the helper says is malformed");
        if (rc < 0 || too_late(run, now_ms, page_ms, e)) return true;
    }
}

static void run_helper(struct run *run, struct ending *e) {
    struct extract_helper h;
    struct extract_end end;
    struct asked q;
    extract_reader_restart(&run->r);
    ask(run, &q);
    *e = (struct ending){.cause = CAUSE_DONE};
    e->rc = extract_helper_start(&h, q.argv, run->document_fd, e->reason, sizeof e->reason);
    if (e->rc < 0) {
        e->cause = CAUSE_STOP;
        return;
    }
    bool kill_it = hear(run, &h, e);
    if (kill_it) extract_helper_kill(&h);
    extract_helper_end(&h, &end);
    run->cpu_ms += end.cpu_ms;
    if (!kill_it) explain(run, &h, end.status, e);
}

/* ---- the whole document ---- */

/* Fails the pages up to `last`; the reason is copied once. */
static int fail_pages(struct run *run, uint32_t last, const char *reason) {
    if (run->r.next >= last) return 0;
    char *kept = arena_strndup(run->r.a, reason, strlen(reason));
    if (!kept) return -ENOMEM;
    while (run->r.next < last) extract_reader_fail_page(&run->r, kept);
    return 0;
}

static int fail_from(struct run *run, const struct ending *e) {
    char rest[400];
    int rc = fail_pages(run, run->r.next + 1, e->reason);
    snprintf(rest, sizeof rest, "not read, because of page %u or those before it: %s", run->r.next,
             e->reason);
    return rc < 0 ? rc : fail_pages(run, run->r.pages_in, rest);
}

static bool all_said(const struct run *run) {
    return run->r.pages && (run->r.next >= run->r.pages_in || run->r.next >= run->l->pages);
}

/* After a kill from outside: whether another helper tries the same page. */
static bool try_again(struct run *run) {
    if (run->r.hello) {
        run->at_page = run->page == run->r.next ? run->at_page + 1 : 1;
        run->page = run->r.next;
    }
    return ++run->outside < OUTSIDE_MAX && run->at_page < OUTSIDE_A_PAGE;
}

/* What follows from an ending: 1 for another helper, 0 at the end, or an error with err. */
static int follow(struct run *run, const struct ending *e, char *err, size_t err_bytes) {
    if (e->cause == CAUSE_DONE && all_said(run)) return 0;
    if (e->cause == CAUSE_STOP) return err_set(err, err_bytes, e->rc, "%s", e->reason);
    if (e->cause == CAUSE_OUTSIDE && try_again(run)) return 1;
    if (!run->r.pages || run->outside == OUTSIDE_MAX) {
        const char *reason = e->cause == CAUSE_DONE ? "the helper says nothing" : e->reason;
        return err_set(err, err_bytes, e->cause == CAUSE_DONE ? ERR_CORRUPT : e->rc, "%s", reason);
    }
    if (e->cause == CAUSE_REST) return fail_from(run, e);
    struct ending why = *e;
    if (e->cause == CAUSE_DONE)
        ends(&why, CAUSE_PAGE, 0, "the helper left this page out");
    else if (run->cpu_ms >= (int64_t)run->l->cpu_s * 1000)
        over_cpu(run, &why);
    if (why.cause == CAUSE_REST || run->restarts == LIMIT_EXTRACT_RESTARTS)
        return fail_from(run, &why);
    run->restarts++;
    run->at_page = 0;
    int rc = fail_pages(run, run->r.next + 1, why.reason);
    return rc < 0 ? rc : !all_said(run);
}

static int finish(struct run *run, struct extracted *out) {
    struct extract_reader *r = &run->r;
    char reason[96];
    snprintf(reason, sizeof reason, "not read: beyond the limit of %u pages", run->l->pages);
    int rc = fail_pages(run, r->pages_in, reason);
    if (rc < 0) return rc;
    *out = (struct extracted){.text = bytes_of("", 0),
                              .chars = r->chars,
                              .pages = r->pages,
                              .pages_in = r->pages_in,
                              .format = r->format,
                              .encoding = r->encoding};
    if (r->text.len > 0)
        out->text = bytes_of(arena_copy(r->a, r->text.data, r->text.len), r->text.len);
    if (r->boxes.len > 0) out->boxes = arena_copy(r->a, r->boxes.data, r->boxes.len);
    if (!out->text.data || (r->boxes.len > 0 && !out->boxes)) return -ENOMEM;
    for (uint32_t i = 0; i < r->pages_in; i++) {
        out->pages_ok += r->pages[i].outcome == EXTRACT_OK;
        out->pages_partial += r->pages[i].outcome == EXTRACT_PARTIAL;
        out->pages_failed += r->pages[i].outcome == EXTRACT_FAILED;
    }
    return 0;
}

static int run_document(struct run *run, struct extracted *out, char *err, size_t err_bytes) {
    int rc = 1;
    for (struct ending e; rc == 1;) {
        run_helper(run, &e);
        rc = follow(run, &e, err, err_bytes);
    }
    if (rc == 0) rc = finish(run, out);
    if (rc == -ENOMEM) err_set(err, err_bytes, rc, "no memory for the text of the document");
    return rc;
}

static const char *format_of(struct bytes format) {
    return format.len == 0 || bytes_is(format, "auto") ? "auto"
           : bytes_is(format, "pdf")                   ? "pdf"
           : bytes_is(format, "txt")                   ? "txt"
                                                       : NULL;
}

int extract_run(const struct extract_limits *limits, struct bytes document, struct bytes format,
                const atomic_bool *cancelled, struct arena *a, struct extracted *out, char *err,
                size_t err_bytes) {
    char path[PATH_MAX];
    struct run run = {.l = limits ? limits : &extract_limits_default,
                      .cancelled = cancelled,
                      .path = path,
                      .format = format_of(format),
                      .begun_ms = clock_mono_ms()};
    *out = (struct extracted){0};
    if (!run.format)
        return err_set(err, err_bytes, ERR_CORRUPT, "the format %.*s is not auto, pdf or txt",
                       (int)(format.len < 32 ? format.len : 32), (const char *)format.data);
    if (document.len == 0) return err_set(err, err_bytes, ERR_CORRUPT, "the document is empty");
    if (document.len > LIMIT_EXTRACT_DOCUMENT_BYTES)
        return err_set(err, err_bytes, ERR_LIMIT, "the document has %zu bytes; the most is %u",
                       document.len, LIMIT_EXTRACT_DOCUMENT_BYTES);
    int rc = extract_helper(path, sizeof path, err, err_bytes);
    if (rc < 0) return rc;
    run.document_fd = extract_document_fd(document, err, err_bytes);
    if (run.document_fd < 0) return run.document_fd;
    extract_reader_init(&run.r, a, run.l->output_bytes);
    run.chunk = malloc(CHUNK_BYTES);
    rc = run.chunk ? run_document(&run, out, err, err_bytes)
                   : err_set(err, err_bytes, -ENOMEM, "no memory for a document");
    free(run.chunk);
    extract_reader_fini(&run.r);
    close(run.document_fd);
    return rc;
}

int extract_helper(char *out, size_t out_bytes, char *err, size_t err_bytes) {
    static const char *const beside[] = {"", "/../bin", "/../libexec/penstock"};
    char folder[PATH_MAX];
    const char *named = getenv("PENSTOCK_EXTRACT");
    if (named && *named) {
        int n = snprintf(out, out_bytes, "%s", named);
        if (n > 0 && (size_t)n < out_bytes && access(out, X_OK) == 0) return 0;
        return err_set(err, err_bytes, ERR_FULL,
                       "PENSTOCK_EXTRACT names %s, which is no program to run", named);
    }
    file_beside_program(NULL, 0, folder, sizeof folder); /* gives the program's own folder */
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        int n = snprintf(out, out_bytes, "%s%s/penstock-extract", folder, beside[i]);
        if (n > 0 && (size_t)n < out_bytes && access(out, X_OK) == 0) return 0;
    }
    return err_set(err, err_bytes, ERR_FULL,
                   "penstock-extract is not beside %s/: build or install it, or name it in "
                   "PENSTOCK_EXTRACT",
                   folder);
}
