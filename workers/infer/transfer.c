#include "workers/infer/transfer.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/term.h"
#include "base/version.h"

#define REDIRECTS_MAX 8L
#define RECEIVE_BYTES (256L * 1024)
#define PAUSE_MOST_MS 30000u
#define WAIT_MOST_S 600 /* a server that wants longer is not waited for */
#define AGAIN 1         /* of an attempt: it may go better the next time */

struct transfer {
    struct transfer_config c;
    CURL *curl;
    struct curl_slist *headers;
    uint64_t dice;
    long status;
    char words[256], problem[CURL_ERROR_SIZE];
};

/* Where the body of one request goes: a file from `at` on, or memory. */
struct sink {
    struct transfer *t;
    int fd;
    struct buf *text;
    uint64_t at, bytes;
    bool begun;    /* the answer's head was looked at */
    int rc;        /* why the rest is not wanted */
    char why[256]; /* the same in words */
};

static const char *header(CURL *curl, const char *name) {
    struct curl_header *h;
    bool there = curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK;
    return there ? h->value : NULL;
}

/* What the file has cannot be continued: from the start. */
static int begin_anew(struct sink *s) {
    s->at = 0;
    return s->fd >= 0 && ftruncate(s->fd, 0) != 0 ? -errno : AGAIN;
}

static size_t refuse(struct sink *s, int rc, const char *why) {
    s->rc = rc;
    snprintf(s->why, sizeof s->why, "%s", why);
    return 0;
}

/* What a file is sent must be what was asked for: all of it, or the rest of it. */
static bool begin_file(struct sink *s) {
    uint64_t first, last, total = s->bytes;
    s->begun = true;
    if (s->t->status == 206) {
        const char *range = header(s->t->curl, "content-range");
        int n = range
                    ? sscanf(range, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, &first, &last, &total)
                    : 0;
        if (n >= 2 && first == s->at && total == s->bytes) return true;
        refuse(s, ERR_CORRUPT, "it sends another part of the file than it was asked for");
        return false;
    }
    int rc = s->at > 0 ? begin_anew(s) : 0; /* a server that cannot resume sends all of it */
    if (rc < 0) refuse(s, rc, err_text(rc));
    return rc >= 0;
}

static size_t take_body(char *data, size_t one, size_t n, void *arg) {
    struct sink *s = arg;
    (void)one;
    curl_easy_getinfo(s->t->curl, CURLINFO_RESPONSE_CODE, &s->t->status);
    if (s->t->status != 200 && s->t->status != 206) return n; /* what an error page says */
    if (s->text)
        return buf_append(s->text, data, n) == 0
                   ? n
                   : refuse(s, s->text->error, "the answer is too long");
    if (!s->begun && !begin_file(s)) return 0;
    if (n > s->bytes - s->at) {
        begin_anew(s);
        return refuse(s, ERR_CORRUPT, "it sends more than the file has");
    }
    for (size_t done = 0; done < n;) {
        ssize_t wrote = pwrite(s->fd, data + done, n - done, (off_t)s->at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return refuse(s, -errno, err_text(-errno));
        done += (size_t)wrote;
        s->at += (uint64_t)wrote;
    }
    if (s->t->c.moved) s->t->c.moved(s->t->c.arg, s->at);
    return n;
}

int transfer_open(struct transfer **out, const struct transfer_config *c, char *err,
                  size_t err_bytes) {
    char line[1100];
    *out = NULL;
    struct transfer *t = calloc(1, sizeof *t);
    if (!t || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(t->curl = curl_easy_init())) {
        free(t);
        return err_set(err, err_bytes, -ENOMEM, "no memory for a connection");
    }
    t->c = *c;
    t->dice = (uint64_t)clock_mono_ns();
    int n = snprintf(line, sizeof line, "Authorization: Bearer %s", c->token ? c->token : "");
    if (c->token && n > 0 && (size_t)n < sizeof line) t->headers = curl_slist_append(NULL, line);
    if (c->token && !t->headers) {
        transfer_close(t);
        return err_set(err, err_bytes, ERR_LIMIT, "the token is too long");
    }
    *out = t;
    return 0;
}

void transfer_close(struct transfer *t) {
    if (!t) return;
    curl_slist_free_all(t->headers);
    curl_easy_cleanup(t->curl);
    curl_global_cleanup();
    free(t);
}

static void set_up(struct transfer *t, const char *url, struct sink *s) {
    char range[32];
    CURL *h = t->curl;
    const char *schemes = strncmp(url, "https:", 6) == 0 ? "https" : "http,https";
    const char *authorities = getenv("SSL_CERT_FILE");
    curl_easy_reset(h); /* connections stay open */
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, schemes);
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, schemes);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(h, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)t->c.stall_s);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)t->c.stall_s);
    curl_easy_setopt(h, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, t->problem);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, s);
    if (authorities && *authorities) curl_easy_setopt(h, CURLOPT_CAINFO, authorities);
    snprintf(range, sizeof range, "%" PRIu64 "-", s->at);
    if (s->at > 0) curl_easy_setopt(h, CURLOPT_RANGE, range);
    *t->problem = *t->words = '\0';
    t->status = 0;
}

/* What an answer's status means: 0, AGAIN, or an error. */
static int judge_status(struct transfer *t, struct sink *s, const char *url, int64_t *wait_s,
                        char *err, size_t err_bytes) {
    const char *words = header(t->curl, "x-error-message");
    curl_off_t later = 0;
    long hops = 0, status = t->status;
    if (status == 200 || status == 206) return 0;
    snprintf(t->words, sizeof t->words, "%s", words ? words : "");
    term_clean(t->words);
    curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &later);
    curl_easy_getinfo(t->curl, CURLINFO_REDIRECT_COUNT, &hops);
    err_set(err, err_bytes, ERR_UNKNOWN, "%s: the answer is %ld%s%s", url, status,
            *t->words ? ": " : "", t->words);
    if (status == 416) return begin_anew(s);
    *wait_s = later;
    if (later > WAIT_MOST_S)
        return err_set(err, err_bytes, ERR_UNKNOWN,
                       "%s: the answer is %ld, and to come back in %" PRId64 " seconds", url,
                       status, *wait_s);
    bool stale = status == 403 && hops > 0; /* a signed address that is no longer valid */
    return status == 408 || status == 425 || status == 429 || status >= 500 || stale ? AGAIN
                                                                                     : ERR_UNKNOWN;
}

/* What libcurl's verdict means: 0, AGAIN, or an error that no further attempt will mend. */
static int judge(struct transfer *t, struct sink *s, CURLcode code, const char *url,
                 int64_t *wait_s, char *err, size_t err_bytes) {
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->status);
    if (s->rc != 0) {
        err_set(err, err_bytes, s->rc, "%s: %s", url, s->why);
        return s->rc == ERR_CORRUPT ? AGAIN : s->rc;
    }
    if (code != CURLE_OK)
        err_set(err, err_bytes, ERR_CLOSED, "%s: %s", url,
                *t->problem ? t->problem : curl_easy_strerror(code));
    switch (code) {
    case CURLE_OK: return judge_status(t, s, url, wait_s, err, err_bytes);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_OUT_OF_MEMORY: return ERR_CLOSED;
    default: return AGAIN;
    }
}

static void pause_before(struct transfer *t, uint32_t failures, int64_t wait_s, const char *why) {
    uint64_t ms = t->c.pause_ms;
    for (uint32_t i = 1; i < failures && ms < PAUSE_MOST_MS; i++) ms *= 2;
    if (ms > PAUSE_MOST_MS) ms = PAUSE_MOST_MS;
    ms += rng_next(&t->dice) % (ms / 4 + 1);
    if ((uint64_t)wait_s * 1000 > ms) ms = (uint64_t)wait_s * 1000;
    char said[1200];
    snprintf(said, sizeof said, "%s; again in %.1f s", why, (double)ms / 1000);
    if (t->c.retrying) t->c.retrying(t->c.arg, said);
    usleep((useconds_t)(ms * 1000));
}

static int what_failed(const struct transfer *t, const struct sink *s, CURLcode code) {
    if (s->rc != 0) return s->rc;
    if (code != CURLE_OK) return ERR_CLOSED;
    return t->status >= 400 ? ERR_UNKNOWN : ERR_CORRUPT;
}

static int run(struct transfer *t, const char *url, struct sink *s, char *err, size_t err_bytes) {
    for (uint32_t failures = 0;;) {
        char why[1024] = "";
        uint64_t before = s->at;
        int64_t wait_s = 0;
        s->begun = false;
        s->rc = 0;
        set_up(t, url, s);
        CURLcode code = curl_easy_perform(t->curl);
        int rc = judge(t, s, code, url, &wait_s, why, sizeof why);
        if (rc == 0 && (s->text || s->at == s->bytes)) return 0;
        if (rc == 0)
            snprintf(why, sizeof why, "%s: ends at byte %" PRIu64 " of %" PRIu64, url, s->at,
                     s->bytes);
        failures = !s->text && s->at > before ? 1 : failures + 1;
        if (rc < 0) return err_set(err, err_bytes, rc, "%s", why);
        if (failures >= t->c.attempts)
            return err_set(err, err_bytes, what_failed(t, s, code), "%s; tried %u times", why,
                           failures);
        if (s->text) buf_clear(s->text);
        pause_before(t, failures, wait_s, why);
    }
}

int transfer_text(struct transfer *t, const char *url, struct buf *out, char *err,
                  size_t err_bytes) {
    struct sink s = {.t = t, .fd = -1, .text = out};
    return run(t, url, &s, err, err_bytes);
}

int transfer_file(struct transfer *t, const char *url, const char *path, uint64_t bytes, char *err,
                  size_t err_bytes) {
    struct sink s = {.t = t, .bytes = bytes};
    struct stat st;
    s.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (s.fd < 0 || fstat(s.fd, &st) != 0) {
        int rc = -errno;
        if (s.fd >= 0) close(s.fd);
        return err_set(err, err_bytes, rc, "cannot open %s: %s", path, err_text(rc));
    }
    s.at = (uint64_t)st.st_size;
    int rc = s.at > bytes ? begin_anew(&s) : 0;
    if (rc >= 0) rc = s.at == bytes ? 0 : run(t, url, &s, err, err_bytes);
    if (close(s.fd) != 0 && rc == 0)
        rc = err_set(err, err_bytes, -errno, "cannot write %s: %s", path, err_text(-errno));
    return rc;
}

long transfer_status(const struct transfer *t) {
    return t->status;
}

const char *transfer_words(const struct transfer *t) {
    return t->words;
}

char *transfer_escape(const char *text, const char *keep) {
    static const char plain[] = "-._~";
    struct buf b = {0};
    for (const char *p = text; *p; p++) {
        bool as_it_is = (*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
                        (*p >= 'A' && *p <= 'Z') || strchr(plain, *p) || strchr(keep, *p);
        buf_printf(&b, as_it_is ? "%c" : "%%%02X", (unsigned char)*p);
    }
    buf_u8(&b, 0);
    if (b.error) buf_fini(&b);
    return (char *)b.data;
}
